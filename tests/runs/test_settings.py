"""A store remembers its settings from the start of a run; only given ones change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmindex.core.config import DEFAULT_SCENES, Config
from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.runs.dry_run import dry_run
from mmindex.runs.run import run
from mmindex.runs.settings import settings
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.upkeep.rollback import rollback
from support.fakestore import fake_model, write_photos
from support.models import FakeEncoder

MACHINE = {"encode.workers": 0, "index.threads": 1, "index.gpu": "never"}


def photos(folder: Path, count: int, first: int = 0, bad: int = 0) -> str:
    numbers = range(first, first + count)
    broken = {f"bad{number}.jpg": b"no picture" for number in range(bad)}
    write_photos(
        folder, {f"{folder.name}{number}.jpg": number for number in numbers}, broken=broken
    )
    return f"folder:{folder}"


def asked(store: Path, fresh: bool = False, **values: Any) -> Config:
    given = {name.replace("__", "."): value for name, value in values.items()}
    return settings(store, None, {**MACHINE, **given}, fresh=fresh)


def build(store: Path, name: str = "run", fresh: bool = False, **values: Any) -> Config:
    config = asked(store, fresh, **values)
    with fake_model(FakeEncoder()):
        run(store, config, name)
    return config


def specs(config: Config) -> list[str]:
    return [source.spec for source in config.source]


def test_after_a_failed_first_build_the_next_continues_with_its_sources_and_settings(place):
    source = photos(place / "photos", 4, bad=15)
    with pytest.raises(DataError, match="unusable"):
        build(place / "store", source=[source], index__kind="exact")
    again = asked(place / "store")
    assert specs(again) == [source]
    assert again.index.kind == "exact"
    build(place / "store", limits__max_quarantine=1.0)
    assert not Layout(place / "store").intent_file.exists()


def test_after_a_killed_build_the_next_continues_with_its_settings(place, monkeypatch):
    source = photos(place / "photos", 4)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmindex.runs.stages.drop_failed", die)
    with pytest.raises(KeyboardInterrupt):
        build(place / "store", source=[source])
    assert specs(asked(place / "store")) == [source]


def test_a_later_failure_keeps_the_new_intent_and_the_published_version(place):
    old, new = photos(place / "old", 5), photos(place / "new", 1, first=20, bad=15)
    build(place / "store", source=[old])
    with pytest.raises(DataError, match="of folder:"):
        build(place / "store", source=[old, new])
    manifest = versions.read_current(versions.open_layout(place / "store"))
    assert manifest is not None
    assert [one["spec"] for one in manifest.config["source"]] == [old]
    assert specs(asked(place / "store")) == [old, new]


def test_errors_and_missing_sources_create_no_store_and_change_no_intent(place):
    with pytest.raises(NoInputError):
        build(place / "store", source=[f"folder:{place / 'gone'}"])
    with pytest.raises(UsageError):
        build(place / "store", source=["nothing:x"])
    assert not (place / "store").exists()
    source = photos(place / "photos", 3)
    build(place / "store", source=[source])
    with pytest.raises(NoInputError):
        build(place / "store", source=[f"folder:{place / 'gone'}"])
    assert specs(asked(place / "store")) == [source]


def test_naming_the_sources_changes_nothing_else(place):
    old, new = photos(place / "old", 5), photos(place / "new", 3, first=20)
    build(place / "store", source=[old], index__kind="exact", limits__max_quarantine=0.5)
    both = asked(place / "store", source=[old, new])
    assert (both.index.kind, both.limits.max_quarantine) == ("exact", 0.5)
    fresh = asked(place / "store", fresh=True, source=[old, new])
    assert (fresh.index.kind, fresh.limits.max_quarantine) == ("auto", 0.01)


def test_another_model_does_not_inherit_the_weights_of_the_last(place):
    source = photos(place / "old", 3)
    build(place / "store", source=[source], model__name="ViT-B-32", model__pretrained="openai")
    assert asked(place / "store").model.pretrained == "openai"
    changed = asked(place / "store", model__name="embedded")
    assert (changed.model.name, changed.model.pretrained) == ("embedded", None)


def test_drawn_scenes_belong_to_a_store_that_was_never_given_a_source(place):
    assert specs(asked(place / "store")) == [DEFAULT_SCENES]


def test_a_rollback_takes_the_settings_back_too(place):
    old, new = photos(place / "old", 5), photos(place / "new", 1, first=20, bad=15)
    build(place / "store", "one", source=[old])
    build(place / "store", "two", index__recall_target=0.9)
    with pytest.raises(DataError):
        build(place / "store", "three", source=[old, new])
    rollback(place / "store", 1, "back")
    back = asked(place / "store")
    assert (specs(back), back.index.recall_target) == ([old], 0.95)


def test_a_damaged_note_of_intent_is_reported_with_the_remedy(place):
    source = photos(place / "photos", 3)
    build(place / "store", source=[source])
    Layout(place / "store").intent_file.write_bytes(b"{")
    with pytest.raises(DataError, match=r"intent\.json") as caught:
        asked(place / "store")
    assert "fresh_settings" in caught.value.hint
    build(place / "store", fresh=True, source=[source])
    assert specs(asked(place / "store")) == [source]


def test_a_dry_run_names_the_settings_that_differ(place):
    source = photos(place / "photos", 3)
    build(place / "store", source=[source])
    with fake_model(FakeEncoder()):
        same = dry_run(place / "store", asked(place / "store"), "dry")
        other = dry_run(place / "store", asked(place / "store", index__recall_target=0.9), "dry")
    assert same.settings == {}
    assert other.settings == {"index.recall_target": (0.95, 0.9)}


def test_a_source_that_had_images_and_now_has_none_stops_the_build(place):
    """Even if it is a small part: a disk that is not mounted is an empty folder."""
    home, nas = photos(place / "home", 40), photos(place / "nas", 2, first=50)
    build(place / "store", source=[home, nas])
    for path in (place / "nas").glob("*"):
        path.unlink()
    with pytest.raises(DataError, match="had 2 images") as caught:
        build(place / "store")
    assert nas in caught.value.message
    build(place / "store", limits__max_removed=1.0)


def test_too_many_images_removed_from_one_source_stop_the_build(place):
    home, nas = photos(place / "home", 40), photos(place / "nas", 4, first=50)
    build(place / "store", source=[home, nas])
    photos(place / "nas", 1, first=50)
    with pytest.raises(DataError, match=r"3 of the 4 images of folder:.*nas"):
        build(place / "store")


def test_a_source_that_is_no_longer_requested_counts_only_in_the_total(place):
    home, nas = photos(place / "home", 40), photos(place / "nas", 2, first=50)
    build(place / "store", source=[home, nas])
    build(place / "store", source=[home])


def test_too_many_unusable_images_of_a_source_name_it_with_reasons(place):
    home = photos(place / "home", 300)
    scans = photos(place / "scans", 5, first=3_000, bad=12)
    with pytest.raises(DataError) as caught:
        build(place / "store", source=[home, scans])
    assert f"12 of 17 items of {scans} are unusable (12 not_an_image)" in str(caught.value)
    assert "12 of them: " in caught.value.hint
