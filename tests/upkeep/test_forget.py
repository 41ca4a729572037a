"""Forgotten items are nowhere in the store and never return."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.store import quarantine
from mmindex.store.forgotten import read_forgotten
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.upkeep.forget import forget
from mmindex.upkeep.rollback import rollback
from support.corpora import jpeg
from support.fakestore import run_build, truncated_jpeg, write_photos
from support.forgetting import (
    COPY,
    ID,
    IMAGES,
    assert_nowhere,
    assert_sound,
    build,
    contents,
    forget_ids,
    image_ids,
    opened,
    traces_of,
    vector_of,
)
from support.models import FakeEncoder


@pytest.mark.parametrize(
    "index", [{}, {"index__kind": "IVF4,PQ4x4"}, {"index__kind": "IVF4,Flat"}], ids=str
)
def test_nothing_of_a_forgotten_image_is_left_anywhere_in_the_store(
    place: Path, index: dict[str, str]
) -> None:
    """No file contains the bytes, sha256, id, path, captions or vectors."""
    images = {f"p{n}.jpg": n for n in range(80)} if index else IMAGES
    write_photos(place / "photos", images)
    build(place, encode__shard_rows=8, **index)
    # An older version, and a report that names the image in the middle of a sentence.
    (place / "photos" / "p5.jpg").unlink()
    build(place, encode__shard_rows=8, **index)
    layout, _ = opened(place)
    note = {"error": {"message": f"{ID} of {place}/photos/p3.jpg: changed (really)"}}
    layout.run("20250101T000000-old").write_text(json.dumps(note))
    key = hashlib.sha256(jpeg(3)).hexdigest()
    text_key = hashlib.sha256(b"drawing 3").hexdigest()
    needles = [
        *traces_of(jpeg(3)),
        ID.encode() + b'"',
        b"photos/p3.jpg",
        b"drawing 3",
        *traces_of(b"a square 3"),
        vector_of(place, key),
        vector_of(place, text_key, "text"),
        np.frombuffer(vector_of(place, key), np.float16).astype(np.float32).tobytes(),
    ]
    needles = [needle for needle in needles if needle not in (b"drawing 3", b"a square 3")]
    before = "".join(where for where, data in contents(place / "store") if needles[1] in data)
    assert "stamps" in before or "objects" in before  # the search would find it

    report = forget_ids(place)

    assert report.published
    assert report.forgotten == (ID,)
    assert report.removed == (1, 2)
    assert_nowhere(place / "store", *needles)
    assert_sound(place)
    assert ID not in image_ids(place)


def test_the_same_bytes_under_another_name_are_also_removed_and_named(place: Path) -> None:
    build(place)
    report = forget_ids(place)
    assert report.same_bytes == (COPY,)
    assert report.images == 2
    assert_nowhere(place / "store", b"copy-of-3")


def test_a_caption_text_that_another_image_has_stays(place: Path) -> None:
    write_photos(
        place / "photos",
        {"a.jpg": 1, "b.jpg": 2},
        {"a.jpg": ["shared words", "only of a"], "b.jpg": ["shared words"]},
    )
    build(place)
    report = forget_ids(place, "folder/photos/a.jpg")
    layout, manifest = opened(place)
    captions = manifest.find("captions")
    assert captions is not None
    rows = Objects(layout).read_table(captions).to_pylist()
    assert [(row["image_id"], row["text"]) for row in rows] == [
        ("folder/photos/b.jpg", "shared words")
    ]
    assert report.captions == 2
    vector_of(place, hashlib.sha256(b"shared words").hexdigest(), "text")
    assert_nowhere(place / "store", b"only of a", *traces_of(b"only of a"))


def test_a_build_from_the_same_folder_neither_restores_it_nor_publishes(place: Path) -> None:
    build(place)
    forget_ids(place)
    summary = run_build(place / "store", place / "photos")
    assert not summary.published
    counts = summary.manifest.counts
    assert (counts.seen, counts.indexed, counts.ignored) == (13, 11, 2)
    assert summary.manifest.sources[0].notes == {"ignored: forgotten": 2}
    assert_nowhere(place / "store", *traces_of(jpeg(3))[1:])


def test_it_stays_out_when_everything_is_read_again_by_another_model(place: Path) -> None:
    build(place)
    forget_ids(place)
    summary = run_build(
        place / "store", place / "photos", encoder=FakeEncoder(seed=1), crawl__rehash=True
    )
    assert summary.published
    assert summary.manifest.counts.indexed == 11
    assert summary.manifest.floor == 2
    assert_nowhere(place / "store", *traces_of(jpeg(3)), b"p3.jpg")


def test_its_bytes_under_a_new_name_and_new_bytes_under_its_name_stay_out(place: Path) -> None:
    build(place)
    forget_ids(place)
    write_photos(place / "photos", IMAGES | {"p3.jpg": 77, "new.jpg": 3, "fine.jpg": 78})
    manifest = build(place)
    assert manifest.counts.balanced
    assert manifest.counts.ignored == 3
    ids = image_ids(place)
    assert "folder/photos/fine.jpg" in ids
    assert not ids & {ID, "folder/photos/new.jpg", COPY}
    assert_sound(place)


def test_another_name_of_the_bytes_can_return_with_other_bytes(place: Path) -> None:
    """Only the requested ids are blocked permanently."""
    build(place)
    forget_ids(place)
    write_photos(place / "photos", IMAGES | {"copy-of-3.jpg": 50})
    build(place)
    assert COPY in image_ids(place)


def test_forgetting_most_of_a_corpus_does_not_count_as_missing_images(
    place: Path,
) -> None:
    build(place)
    forget_ids(place, *(f"folder/photos/p{n}.jpg" for n in range(10)))
    summary = run_build(place / "store", place / "photos")
    assert summary.manifest.counts.indexed == 2


def test_an_unknown_id_is_named_and_nothing_is_forgotten(place: Path) -> None:
    build(place)
    with pytest.raises(NoInputError, match="no-such"):
        forget_ids(place, ID, "folder/photos/no-such.jpg")
    assert opened(place)[1].version == 1
    assert ID in image_ids(place)


def test_forgetting_twice_is_fine_and_changes_nothing(place: Path) -> None:
    build(place)
    forget_ids(place)
    report = forget_ids(place)
    assert (report.published, report.already, report.version) == (False, (ID,), 2)


def test_forgetting_more_keeps_what_was_forgotten_before(place: Path) -> None:
    build(place)
    forget_ids(place)
    forget_ids(place, "folder/photos/p4.jpg", ID)
    summary = run_build(place / "store", place / "photos")
    assert summary.manifest.counts.ignored == 3
    assert summary.manifest.floor == 3
    assert_nowhere(place / "store", *traces_of(jpeg(3)), *traces_of(jpeg(4)))


def test_an_image_that_is_only_in_an_older_version_can_be_forgotten(place: Path) -> None:
    """It was removed from the folder, but older versions still contain it."""
    build(place)
    (place / "photos" / "p6.jpg").unlink()
    build(place)
    report = forget_ids(place, "folder/photos/p6.jpg")
    assert report.published
    assert report.images == 0
    assert_nowhere(place / "store", *traces_of(jpeg(6)), b"p6.jpg")
    write_photos(place / "photos", IMAGES)
    build(place)
    assert "folder/photos/p6.jpg" not in image_ids(place)


def test_all_content_that_an_id_ever_had_is_removed(place: Path) -> None:
    build(place)
    write_photos(place / "photos", IMAGES | {"p3.jpg": 60})
    build(place)
    forget_ids(place)
    assert_nowhere(place / "store", *traces_of(jpeg(3)), *traces_of(jpeg(60)))


def test_forgetting_everything_is_refused(place: Path) -> None:
    build(place)
    with pytest.raises(DataError, match="would leave none") as refused:
        forget_ids(place, *image_ids(place))
    assert str(place / "store") in refused.value.hint
    assert opened(place)[1].version == 1


def test_no_ids_are_a_usage_error(place: Path) -> None:
    with pytest.raises(UsageError):
        forget(place / "store", [], "run")


def test_a_dry_run_reports_the_same_and_writes_nothing(place: Path) -> None:
    build(place)
    before = {path: path.stat().st_mtime_ns for path in (place / "store").rglob("*")}
    dry = forget_ids(place, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in (place / "store").rglob("*")} == before
    real = forget_ids(place)
    assert dry.dry_run
    assert not dry.published
    assert (dry.forgotten, dry.images, dry.captions, dry.same_bytes) == (
        (real.forgotten, real.images, real.captions, real.same_bytes)
    )


def test_a_quarantined_image_can_be_forgotten(place: Path) -> None:
    write_photos(place / "photos", IMAGES, broken={"bad.jpg": truncated_jpeg(40), "no.jpg": b"x"})
    build(place)
    layout, manifest = opened(place)
    assert manifest.counts.quarantined == 2
    forget_ids(place, "folder/photos/bad.jpg")
    _, manifest = opened(place)
    assert (manifest.counts.quarantined, manifest.counts.ignored) == (1, 1)
    assert [entry.id for entry in quarantine.read_ledger(layout)] == ["folder/photos/no.jpg"]
    assert_nowhere(place / "store", *traces_of(truncated_jpeg(40)), b"bad.jpg")
    assert not run_build(place / "store", place / "photos").published


def test_other_failures_stay_known(place: Path) -> None:
    write_photos(place / "photos", IMAGES, broken={"bad.jpg": truncated_jpeg(40)})
    build(place)
    forget_ids(place)
    summary = run_build(place / "store", place / "photos")
    assert not summary.published
    assert summary.manifest.counts.reasons == {"truncated": 1}


def test_versions_below_the_floor_cannot_come_back(place: Path) -> None:
    build(place)
    forget_ids(place)
    with pytest.raises(NoInputError, match="contains forgotten items"):
        rollback(place / "store", 1, "back")


def test_rolling_back_before_a_later_build_keeps_it_forgotten(place: Path) -> None:
    build(place)
    forget_ids(place)
    write_photos(place / "photos", IMAGES | {"more.jpg": 30})
    build(place)
    rollback(place / "store", 2, "back")
    layout, manifest = opened(place)
    assert (manifest.version, manifest.floor, manifest.restored_from) == (4, 2, 2)
    assert read_forgotten(Snapshot(Objects(layout), manifest)).has_id(ID)
    build(place)
    assert ID not in image_ids(place)


def test_two_sources_are_counted_separately(place: Path) -> None:
    write_photos(place / "photos", IMAGES)
    write_photos(place / "more" / "photos2", {"x.jpg": 3, "y.jpg": 40})
    specs = [f"folder:{place / name}" for name in ("photos", "more/photos2")]
    build(place, source=specs)
    forget_ids(place, "folder/photos2/x.jpg")
    _, manifest = opened(place)
    found = [(one.seen, one.images, one.captions, one.ignored) for one in manifest.sources]
    assert found == [(13, 11, 22, 2), (2, 1, 2, 1)]
    assert not run_build(place / "store", place / "photos", source=specs).published
