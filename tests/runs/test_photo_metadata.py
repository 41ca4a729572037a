"""Metadata of photographs in whole builds: upgrades, settings, queries, locations."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL.ExifTags import GPS, Base

import mmindex
from mmindex.core.errors import UsageError
from mmindex.models.encoder import Encoder
from mmindex.runs.dry_run import dry_run
from mmindex.runs.run import RunSummary
from mmindex.runs.settings import settings
from mmindex.search import vectorize
from mmindex.store.snapshot import open_snapshot
from mmindex.upkeep.gc import Retention, gc
from support.asking import run as query
from support.fakestore import fake_model, fast_folder, run_build
from support.forgetting import assert_nowhere, assert_sound, forget_ids
from support.models import FakeEncoder
from support.photo_files import MUNICH, PEOPLE, R, encoded, exif, xmp

LONG_AGO_NS = 1_600_000_000_000_000_000
SYDNEY = {
    GPS.GPSLatitudeRef: "S",
    GPS.GPSLatitude: (R(33, 1), R(52, 1), R(0, 1)),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (R(151, 1), R(12, 1), R(0, 1)),
}


def photo(date: str, gps: dict[int, object] | None, fmt: str = "JPEG", **more: object) -> bytes:
    return encoded(fmt, exif=exif({Base.Make: "Leica"}, {Base.DateTimeOriginal: date}, gps), **more)


PHOTOS = {
    "rome/old.jpg": photo("2019:05:01 10:00:00", None),
    "munich.webp": photo("2023:06:01 18:30:05", MUNICH, "WEBP", xmp=xmp(PEOPLE)),
    "sydney.png": photo("2024:01:02 03:04:05", SYDNEY, "PNG"),
    "plain.tif": encoded("TIFF"),
}
HOSTILE = "\x1b[2J<script>\t=1+1"


@pytest.fixture
def place() -> Iterator[Path]:
    with fast_folder() as made:
        for name, data in PHOTOS.items():
            path = made / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for path in (made / "photos").rglob("*"):
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
        yield made


def build(place: Path, **values: Any) -> RunSummary:
    return run_build(place / "store", place / "photos", **values)


def columns(place: Path) -> set[str]:
    with open_snapshot(place / "store").open_parquet("images") as file:
        return set(file.schema_arrow.names)


def new_vectors(summary: RunSummary) -> tuple[int, int]:
    report = summary.report.reports["encode"]
    return report["encoded_images"], report["encoded_texts"]


def test_a_store_without_metadata_gets_it_at_the_next_build_and_nothing_is_encoded(
    place: Path,
) -> None:
    build(place, crawl__metadata="none")
    assert "taken" not in columns(place)
    summary = build(place, crawl__metadata="all")
    assert summary.published
    assert new_vectors(summary) == (0, 0)
    assert {"taken", "lat", "keywords", "folder", "modified"} <= columns(place)
    assert not build(place).published
    assert_sound(place)


def test_a_stricter_setting_and_gc_remove_stored_metadata(place: Path) -> None:
    build(place)
    summary = build(place, crawl__metadata="no-location")
    assert (summary.published, new_vectors(summary)) == (True, (0, 0))
    assert "taken" in columns(place)
    assert not {"lat", "lon"} & columns(place)
    assert not build(place).published, "the store remembers it"
    build(place, crawl__metadata="none")
    gc(place / "store", Retention(keep_versions=1, keep_days=0))
    assert_nowhere(place / "store", b"The harbour", b"Leica")
    assert_sound(place)


def test_a_dry_run_predicts_the_build(place: Path) -> None:
    build(place, crawl__metadata="none")
    config = settings(place / "store", None, {"crawl.metadata": "all", "encode.workers": 0})
    with fake_model(FakeEncoder()):
        forecast = dry_run(place / "store", config, "20260101T000000-dry")
    assert forecast.would == "publish"
    assert forecast.settings == {"crawl.metadata": ("none", "all")}
    assert {plan.encode for plan in forecast.encode.values()} == {0}


def test_captions_from_metadata_are_encoded_and_remembered(place: Path) -> None:
    build(place)
    summary = build(place, crawl__captions_from="metadata")
    assert new_vectors(summary) == (0, 3)
    assert summary.manifest.counts.captions == 3
    assert not build(place).published
    with pytest.raises(UsageError, match="`captions_from=metadata` needs metadata"):
        build(place, crawl__metadata="none")


def test_forgetting_a_photograph_removes_its_metadata(place: Path) -> None:
    (place / "photos" / "munich.xmp").write_bytes(xmp("<dc:title>Never shown</dc:title>"))
    os.utime(place / "photos" / "munich.xmp", ns=(LONG_AGO_NS, LONG_AGO_NS))
    build(place, crawl__captions_from="metadata")
    stamps = place / "store" / "stamps.sqlite"
    assert b"Never shown" in stamps.read_bytes()
    forget_ids(place, "folder/photos/munich.webp")
    needles = (b"Never shown", b"The harbour", b"Boats & gulls", b"munich.webp")
    assert_nowhere(place / "store", *needles)
    build(place)
    assert_nowhere(place / "store", *needles)
    assert_sound(place)


# Queries


@pytest.fixture
def store(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    build(place, crawl__captions_from="metadata")

    def load(_published: object, _device: str) -> Encoder:
        return FakeEncoder()

    monkeypatch.setattr(vectorize, "_load", load)
    monkeypatch.setenv("MMINDEX_STORE", str(place / "store"))
    return place / "store"


def names(*arguments: str) -> list[str]:
    done = query("red", "--format", "json", *arguments)
    assert done.exit_code == 0, done.output
    return [hit["id"].removeprefix("folder/photos/") for hit in json.loads(done.stdout)["hits"]]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("taken >= '2023-06-01'", {"munich.webp", "sydney.png"}),
        ("taken between '2019-01-01' and '2019-12-31'", {"rome/old.jpg"}),
        ("year(taken) = 2024", {"sydney.png"}),
        ("taken is null", {"plain.tif"}),
        ("distance_km(lat, lon, 48.14, 11.58) < 5", {"munich.webp"}),
        ("distance_km(lat, lon, 48.14, 11.58) > 5", {"sydney.png"}),
        ("lat < 0", {"sydney.png"}),
        ("list_contains(keywords, 'boat')", {"munich.webp"}),
        ("folder = 'rome' and camera = 'Leica'", {"rome/old.jpg"}),
        ("modified < '2021-01-01' and filename like '%.png'", {"sydney.png"}),
    ],
)
@pytest.mark.usefixtures("store")
def test_conditions_use_dates_places_and_keywords(where: str, found: set[str]) -> None:
    assert set(names("--where", where)) == found


@pytest.mark.usefixtures("store")
def test_columns_that_differ_in_letter_case_are_not_mixed_up(place: Path) -> None:
    line = json.dumps({"file_name": "plain.tif", "Taken": "long ago", "caption": "a field"})
    (place / "photos" / "metadata.jsonl").write_text(line)
    build(place)
    assert names("--where", "\"Taken\" = 'long ago'") == ["plain.tif"]
    assert names("--where", "year(taken) = 2019") == ["rome/old.jpg"]
    done = query("red", "--where", "\"Taken\" = 'long ago' or taken is null")
    assert done.exit_code == 2
    assert "the columns 'Taken' and 'taken' differ only in letter case" in done.stderr


@pytest.mark.usefixtures("store")
def test_hits_are_sorted_by_a_column_those_without_a_value_last() -> None:
    order = ["rome/old.jpg", "munich.webp", "sydney.png", "plain.tif"]
    assert names("--sort", "taken") == order
    assert names("--sort", "taken:desc") == [*reversed(order[:3]), "plain.tif"]
    assert names("--sort", "keywords")[0] == "munich.webp"
    assert names("--sort", "lat")[:2] == ["sydney.png", "munich.webp"]


@pytest.mark.parametrize("sort", ["takn", "taken:down", "", "-taken", ":desc"])
@pytest.mark.usefixtures("store")
def test_an_unknown_order_names_the_columns(sort: str) -> None:
    done = query("red", "--sort", sort)
    assert done.exit_code == 2
    assert "no column" in done.stderr
    assert "taken" in done.stderr


@pytest.mark.usefixtures("store")
def test_columns_are_shown_as_each_form_can() -> None:
    shown = ("--where", "lat > 0", "--columns", "taken,keywords")
    done = query("red", *shown, "--format", "json")
    [hit] = json.loads(done.stdout)["hits"]
    assert hit["columns"] == {"taken": "2023-06-01T18:30:05", "keywords": ["boat", "sea"]}
    line = query("red", *shown, "--format", "tsv").stdout.splitlines()[1]
    assert line.split("\t")[-2:] == ["2023-06-01T18:30:05", "boat, sea"]
    assert "2023-06-01T18:30:05  boat, sea" in query("red", *shown).stdout


def test_hostile_texts_of_photographs_are_inert_in_every_form(place: Path, store: Path) -> None:
    packet = xmp("<dc:subject><rdf:Bag><rdf:li>&#x202e;word</rdf:li></rdf:Bag></dc:subject>")
    data = encoded(exif=exif({Base.Artist: "x", Base.ImageDescription: HOSTILE}), xmp=packet)
    (place / "photos" / "hostile.jpg").write_bytes(data)
    build(place)
    shown = ("--where", "filename = 'hostile.jpg'", "--columns", "description,keywords")
    for form in ("table", "json", "tsv"):
        done = query("red", *shown, "--format", form)
        assert "<script>" in done.stdout
        assert not {"\x1b", "\u202e"} & set(done.stdout)
    with mmindex.open(store) as index:
        [hit] = index.search("red", where="filename = 'hostile.jpg'")
        assert hit.metadata["description"] == HOSTILE  # stored exactly


@pytest.mark.parametrize("form", ["table", "json", "tsv"])
@pytest.mark.usefixtures("store")
def test_places_leave_the_store_only_on_request(form: str) -> None:
    refused = query("red", "--columns", "lat,lon", "--format", form)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--with-location" in refused.stderr
    shown = query("red", "--columns", "lat,lon", "--with-location", "--format", form)
    assert "48.14" in shown.stdout


@pytest.mark.usefixtures("store")
def test_pages_contain_no_locations(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert query("red", "--html", str(page)).exit_code == 0
    text = re.sub(r"data:[^\"')]*", "", page.read_text("utf-8"))
    assert "48.1" not in text
    assert "11.5" not in text


def test_places_are_in_the_api_only_on_request(store: Path) -> None:
    asked: dict[str, Any] = {"k": 4, "where": "lat > 0"}
    with mmindex.open(store) as index:
        [hit] = index.search("red", **asked)
        assert not {"lat", "lon"} & hit.metadata.keys()
        assert hit.metadata["camera"] == "Leica"
        assert not {"lat", "lon"} & set(index.search("red").to_arrow().column_names)
        assert {"lat", "lon"} <= set(index.columns)
    with mmindex.open(store, with_location=True) as index:
        [hit] = index.search("red", **asked)
        assert hit.metadata["lat"] == pytest.approx(48.14)
        assert {"lat", "lon"} <= set(index.search("red").to_arrow().column_names)


def test_the_api_sorts_as_the_command_does(store: Path) -> None:
    with mmindex.open(store) as index:
        for sort in ("taken", "taken:desc", "filename:desc"):
            ids = [hit.id.removeprefix("folder/photos/") for hit in index.search("red", sort=sort)]
            assert ids == names("--sort", sort)
            [many] = index.search_many(["red"], sort=sort)
            assert [hit.id for hit in many] == [f"folder/photos/{name}" for name in ids]
        with pytest.raises(UsageError, match="no column 'takn'; did you mean 'taken'"):
            index.search("red", sort="takn")
        with pytest.raises(TypeError, match="sort"):
            index.search("red", sort=3)  # type: ignore[arg-type]
