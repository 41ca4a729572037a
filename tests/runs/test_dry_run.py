"""``--dry-run`` predicts the build and changes nothing."""

import os

import msgspec
import pytest

from mmindex.core.errors import BusyError
from mmindex.runs.dry_run import dry_run
from mmindex.runs.settings import settings
from mmindex.store.layout import Layout
from mmindex.store.lock import writer_lock
from support.fakestore import fake_model, run_build, write_photos
from support.models import FakeEncoder

TWELVE = {f"{number:02}.jpg": number for number in range(12)}


def foresee(store, photos, encoder=None, **values):
    given = {
        "source": [f"folder:{photos}"],
        "encode.workers": 0,
        "index.threads": 1,
        "index.gpu": "never",
        **{name.replace("__", "."): value for name, value in values.items()},
    }
    with fake_model(encoder or FakeEncoder()):
        return dry_run(store, settings(store, None, given), "dry")


def state(folder):
    """Return every name below a folder with bytes, time and mode, except LOCK."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        if path.name != "LOCK":
            found[str(path)] = (content, status.st_mtime_ns, status.st_mode, status.st_ino)
    return found


@pytest.fixture
def built(tmp_path):
    photos = write_photos(tmp_path / "photos", TWELVE)
    run_build(tmp_path / "store", photos)
    return tmp_path / "store", photos


CHANGED = {
    "nothing": TWELVE,
    "one of each": {**dict(list(TWELVE.items())[1:]), "01.jpg": 101, "new.jpg": 100},
    "an addition": {**TWELVE, "new.jpg": 100},
    "a removal": dict(list(TWELVE.items())[1:]),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_build_matches_its_dry_run(built, change):
    store, photos = built
    write_photos(photos, CHANGED[change])
    before = state(store)
    said = foresee(store, photos)
    assert state(store) == before
    done = run_build(store, photos)
    assert said.would == ("publish" if done.published else "nothing")
    assert said.version + done.published == done.manifest.version
    assert said.changes == done.report.changes
    encode = done.report.reports["encode"]
    for side in ("image", "text"):
        assert said.encode[side].encode == encode[f"encoded_{side}s"]
        assert said.encode[side].reuse == encode[f"reused_{side}s"]
        index = done.report.reports[f"index {side}"]
        assert said.index[side].vectors == index["vectors"]
        if change != "nothing":
            assert said.index[side].action == index["action"]


def test_an_older_index_is_predicted_to_be_extended(built):
    """A crawl alone has published a version without an index."""
    store, photos = built
    write_photos(photos, CHANGED["an addition"])
    run_build(store, photos, wanted=("crawl",))
    said = foresee(store, photos)
    done = run_build(store, photos)
    for side in ("image", "text"):
        index = done.report.reports[f"index {side}"]
        assert (said.index[side].action, said.index[side].added) == ("extended", index["added"])
        assert index["action"] == "extended"


def test_another_model_is_predicted(built):
    store, photos = built
    said = foresee(store, photos, FakeEncoder(seed=9))
    assert (said.encode["image"].encode, said.encode["image"].reuse) == (12, 0)
    assert said.index["image"].action == "trained"
    assert said.would == "publish"


def test_what_would_stop_the_build_is_reported_with_its_exit_code(built):
    store, photos = built
    write_photos(photos, {}, captions={})
    before = state(store)
    said = foresee(store, photos)
    assert (said.would, said.exit_code) == ("stop", 65)
    assert "had 12 images in the last version and has none now" in said.stops[0].message
    assert state(store) == before


def test_a_missing_source_stops_it_too(built):
    store, photos = built
    said = foresee(store, photos.parent / "nowhere")
    assert (said.would, said.exit_code) == ("stop", 66)
    assert "nowhere" in said.stops[0].message


def test_a_dry_run_creates_no_store(tmp_path):
    photos = write_photos(tmp_path / "photos", TWELVE)
    said = foresee(tmp_path / "store", photos)
    assert (said.version, said.would, said.encode["image"].encode) == (0, "publish", 12)
    assert not (tmp_path / "store").exists()


def test_missing_sources_are_named_and_neither_fetched_nor_drawn(built, tmp_path):
    store, photos = built
    before = state(store)
    given = [f"folder:{photos}", "scenes:50", "coco:val2017"]
    (tmp_path / "list.csv").write_text("url\nhttp://127.0.0.1:1/a.jpg\n")
    given.append(f"urls:{tmp_path / 'list.csv'}")
    said = foresee(store, photos, source=given)
    assert said.would == "fetch"
    assert [unread.source for unread in said.unread] == [given[n] for n in (1, 2, 3)]
    assert "draw 50" in said.unread[0].why
    assert "val2017.zip" in said.unread[1].why
    assert said.changes["images"]["unchanged"] == 12
    assert said.needed_bytes > 1_000_000_000
    assert state(store) == before


def test_weights_that_the_hub_has_are_not_fetched(built, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    store, photos = built
    values = {"source": [f"folder:{photos}"], "index.gpu": "never"}
    said = dry_run(store, settings(store, None, values), "dry")
    assert [unread.source for unread in said.unread] == ["model"]
    assert said.encode["image"].encode == 12
    assert not (tmp_path / "hub").exists()


def test_seconds_are_estimated_from_the_last_run(built):
    store, photos = built
    write_photos(photos, {**TWELVE, "new.jpg": 100})
    assert foresee(store, photos).seconds["encode"] > 0


def test_a_store_in_use_is_busy(built):
    store, photos = built
    with writer_lock(Layout(store)), pytest.raises(BusyError):
        foresee(store, photos)


def test_a_forecast_is_plain_json(built):
    store, photos = built
    said = msgspec.json.decode(msgspec.json.encode(foresee(store, photos)))
    assert said["store"] == os.fspath(store)
    assert said["exit_code"] == 0
