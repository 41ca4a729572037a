"""`mmindex forget` and `mmindex quarantine` for people and programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mmindex.store.holds import hold_current
from mmindex_cli.app import app
from support.fakestore import fake_model, run_build, truncated_jpeg, write_photos
from support.forgetting import COPY, ID, build, image_ids, opened
from support.models import FakeEncoder


def run(place: Path, *args: str, code: int = 0) -> Result:
    with fake_model(FakeEncoder()):
        done = CliRunner().invoke(app, [*args, "--store", str(place / "store")])
    assert done.exit_code == code, done.output
    return done


def test_forget_reports_what_was_removed(place: Path) -> None:
    build(place)
    dry = run(place, "forget", ID, "--dry-run").stdout
    assert dry.splitlines()[:3] == [
        "would forget 2 image(s) and 4 caption(s)",
        f"  {ID}",
        f"  byte-identical copy, also forgotten: {COPY}",
    ]
    assert ID in image_ids(place)
    done = run(place, "forget", ID).stdout
    assert "forgot 2 image(s) and 4 caption(s)" in done
    assert "published version 2" in done
    assert "removed version 1" in done
    assert run(place, "forget", ID).stdout == f"{ID} was already forgotten\n"


def test_forget_prints_json(place: Path) -> None:
    build(place)
    record = json.loads(run(place, "forget", ID, "--format", "json").stdout)
    assert record == {
        "version": 2,
        "published": True,
        "forgotten": [ID],
        "already": [],
        "images": 2,
        "same_bytes": [COPY],
        "captions": 4,
        "removed": [1],
        "held": [],
        "still_in": [],
        "dry_run": False,
        "near_copies": [],
    }


def test_forget_names_an_unknown_id(place: Path) -> None:
    build(place)
    done = run(place, "forget", "no\x1bsuch", code=66)
    assert "nothing was forgotten" in done.stderr
    assert "\x1b" not in done.output


def test_forget_without_ids_is_a_usage_error(place: Path) -> None:
    build(place)
    run(place, "forget", code=2)


def test_forget_ends_with_75_while_a_reader_holds_an_old_version(place: Path) -> None:
    build(place)
    with hold_current(opened(place)[0]):
        done = run(place, "forget", ID, code=75)
    assert "version 1" in done.stderr
    assert "published version 2" in done.stdout
    assert "version 1" in run(place, "gc").stdout or opened(place)[1].version == 2
    assert len(run(place, "versions").stdout.splitlines()) == 1


def test_check_accepts_a_store_after_forget(place: Path) -> None:
    build(place)
    run(place, "forget", ID)
    assert run(place, "check", "--full").stdout.startswith("intact")


def test_quarantine_list_filters_by_reason(place: Path) -> None:
    photos = write_photos(
        place / "photos",
        {f"p{n}.jpg": n for n in range(5)},
        broken={"bad.jpg": truncated_jpeg(7), "no.jpg": b"text", "empty.jpg": b""},
    )
    run_build(place / "store", photos)
    assert len(run(place, "quarantine", "list").stdout.splitlines()) == 3
    chosen = run(place, "quarantine", "list", "--reason", "truncated", "--reason", "empty").stdout
    assert [line.split()[0] for line in chosen.splitlines()] == ["truncated", "empty"]
    assert "unknown reason" in run(place, "quarantine", "list", "--reason", "x", code=2).stderr


def test_quarantine_retry_reports_how_many_were_recovered(place: Path) -> None:
    photos = write_photos(
        place / "photos",
        {f"p{n}.jpg": n for n in range(5)},
        broken={"bad.jpg": truncated_jpeg(7)},
    )
    run_build(place / "store", photos)
    assert run(place, "quarantine", "retry").stdout.startswith("0 of 1 items in quarantine")
    record = json.loads(run(place, "quarantine", "retry", "--format", "json").stdout)
    assert (record["tried"], record["back"], record["published"]) == (1, [], False)
    run(place / "nowhere", "quarantine", "retry", code=66)


@pytest.mark.parametrize("name", ["path", "folder", "uri", "where", "id"])
def test_images_can_be_named_in_every_way(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(place)
    monkeypatch.chdir(place)
    photo = place / "photos" / "p3.jpg"
    given = {
        "path": ["photos/p3.jpg"],
        "folder": [str(photo.parent)],
        "uri": [str(photo)],
        "where": ["--where", "image_id like '%/p3.jpg'"],
        "id": [ID],
    }[name]
    if name == "folder":
        assert "would leave none" in run(place, "forget", *given, "--dry-run", code=65).stderr
        return
    record = json.loads(run(place, "forget", *given, "--dry-run", "--format", "json").stdout)
    assert (record["forgotten"], record["same_bytes"]) == ([ID], [COPY])


def test_a_folder_selects_every_image_below_it(place: Path) -> None:
    photos = place / "photos"
    write_photos(photos, {f"p{n}.jpg": n for n in range(4)})
    write_photos(photos / "anna", {"a.jpg": 40, "b.jpg": 41})
    build(place)
    run(place, "forget", str(photos / "anna"))
    assert image_ids(place) == {f"folder/photos/p{n}.jpg" for n in range(4)}


def test_a_condition_that_matches_nothing_forgets_nothing(place: Path) -> None:
    build(place)
    assert "no image matches" in run(place, "forget", "--where", "width < 0", code=66).stderr
    assert "did you mean width" in run(place, "forget", "--where", "widht < 0", code=2).stderr


def test_similar_images_are_named_but_kept(place: Path) -> None:
    """The same pixels in other bytes: the fake model gives both the same vector."""
    photos = write_photos(place / "photos", {f"p{n}.jpg": n for n in range(5)})
    data = (photos / "p3.jpg").read_bytes()
    (photos / "near.jpg").write_bytes(data + b"\0")
    build(place)
    dry = run(place, "forget", ID, "--dry-run").stdout
    assert "  looks almost the same, but stays: folder/photos/near.jpg" in dry
    run(place, "forget", ID)
    assert "folder/photos/near.jpg" in image_ids(place)


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_in_a_terminal_it_asks_for_confirmation(place: Path, answer: str, code: int) -> None:
    build(place)
    with fake_model(FakeEncoder()), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmindex_cli.forget.on_terminal", lambda: True)
        done = CliRunner().invoke(
            app, ["forget", ID, "--store", str(place / "store")], input=f"{answer}\n"
        )
        assert done.exit_code == code
        assert "would forget 2 image(s)" in done.stderr
        assert "You cannot undo this" in done.stderr
        assert (ID in image_ids(place)) is (answer == "n")
        yes = ["forget", "folder/photos/p5.jpg", "--yes", "--store", str(place / "store")]
        assert CliRunner().invoke(app, yes).exit_code == 0
