"""Photographs of every kind, crawled by the command: the columns of their rows."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL.ExifTags import GPS, Base
from typer.testing import CliRunner

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.crawl.metadata import PhotoRules
from mmindex.crawl.stage import CrawlReport, crawl
from mmindex.crawl.tables import FILE_COLUMNS, IMAGE_COLUMNS, MAX_METADATA_COLUMNS
from mmindex.media import archive
from mmindex.media.photo import PHOTO_COLUMNS
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.objects import Objects
from mmindex_cli.app import app
from support.corpora import (
    coco_content,
    crawl_specs,
    jpeg,
    new_store,
    rows_of,
    write_coco,
    write_files,
    write_zip,
)
from support.photo_files import (
    CAMERA,
    EXPECTED,
    MUNICH,
    PEOPLE,
    TOLD,
    R,
    encoded,
    exif,
    iptc,
    xmp,
)

LONG_AGO_NS = 1_600_000_000_000_000_000
CANON = {Base.Make: "Canon", Base.Model: "Canon EOS 5D"}
WHOLE = exif(CANON, CAMERA, MUNICH)
NOON = datetime(2023, 6, 1, 12)
NOON_TEXT = "2023:06:01 12:00:00"


def taken(text: str = NOON_TEXT, **more: object) -> bytes:
    tags = {getattr(Base, name): value for name, value in more.items()}
    return encoded(exif=exif(camera={Base.DateTimeOriginal: text, **tags}))


def somewhere(**gps: object) -> bytes:
    tags = {getattr(GPS, name): value for name, value in gps.items()}
    return encoded(exif=exif(gps={**MUNICH, **tags}))


def other_byte_order() -> bytes:
    """The marker states the other byte order than that of the numbers."""
    data = encoded(exif=WHOLE)
    start = data.index(b"Exif\0\0") + 6
    marker = {b"II": b"MM", b"MM": b"II"}[data[start : start + 2]]
    return data[:start] + marker + data[start + 2 :]


def looping() -> bytes:
    """The directories of camera settings and of the next image are the main directory itself."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return encoded(exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8))


def huge_count() -> bytes:
    """A text whose stated length is four billion characters."""
    entry = struct.pack("<HHII", Base.Make, 2, 0xFFFFFFFF, 26)
    return encoded(exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(8))


def cut_off() -> bytes:
    return encoded(exif=WHOLE[: len(WHOLE) // 2])


# For each file: its name, its bytes, those of its sidecars, and the expected values in its row.
FILES: list[tuple[str, bytes, Mapping[str, bytes], Mapping[str, object]]] = [
    ("canon.jpg", encoded(exif=WHOLE), {}, EXPECTED),
    ("canon.png", encoded("PNG", exif=WHOLE), {}, EXPECTED),
    ("canon.webp", encoded("WEBP", exif=WHOLE), {}, EXPECTED),
    ("canon.tif", encoded("TIFF", exif=WHOLE), {}, EXPECTED),
    ("canon.avif", encoded("AVIF", exif=WHOLE), {}, EXPECTED),
    ("other-order.jpg", other_byte_order(), {}, {}),
    ("loop.jpg", looping(), {}, {}),
    ("huge.jpg", huge_count(), {}, {}),
    ("zero-date.jpg", taken("0000:00:00 00:00:00"), {}, {}),
    ("blank-date.jpg", taken("    :  :     :  :  "), {}, {}),
    ("month-13.jpg", taken("2023:13:01 00:00:00"), {}, {}),
    ("iso-date.jpg", taken("2023-06-01T12:00:00"), {}, {"taken": NOON}),
    (
        "offset.jpg",
        taken(OffsetTimeOriginal="+05:30", SubsecTimeOriginal="7"),
        {},
        {"taken": NOON.replace(microsecond=700_000), "taken_offset": "+05:30"},
    ),
    ("no-offset.jpg", taken(OffsetTimeOriginal="+99:99"), {}, {"taken": NOON}),
    ("digitized.jpg", encoded(exif=exif(camera={Base.DateTimeDigitized: NOON_TEXT})), {},
     {"taken": NOON}),
    ("changed.jpg", encoded(exif=exif({Base.DateTime: NOON_TEXT})), {}, {}),
    ("south.jpg", somewhere(GPSLatitudeRef="S"), {},
     {"lat": pytest.approx(-48.14), "lon": pytest.approx(11.58)}),
    ("west.jpg", somewhere(GPSLongitudeRef="W"), {},
     {"lat": pytest.approx(48.14), "lon": pytest.approx(-11.58)}),
    ("south-west.jpg", somewhere(GPSLatitudeRef="S", GPSLongitudeRef="W"), {},
     {"lat": pytest.approx(-48.14), "lon": pytest.approx(-11.58)}),
    ("north-pole.jpg", somewhere(GPSLatitude=(R(91, 1), R(0, 1), R(0, 1))), {}, {}),
    ("no-fix.jpg", somewhere(GPSLatitude=(R(0, 1),) * 3, GPSLongitude=(R(0, 1),) * 3), {}, {}),
    ("zero-by-zero.jpg", somewhere(GPSLatitude=(R(0, 0),) * 3), {}, {}),
    ("1-by-0.jpg", encoded(exif=exif(camera={Base.ExposureTime: R(1, 0)})), {}, {}),
    ("nikon.jpg", encoded(exif=exif({Base.Make: "NIKON CORPORATION", Base.Model: "NIKON D750"})),
     {}, {"camera": "NIKON D750"}),
    ("sony.jpg", encoded(exif=exif({Base.Make: "SONY\0\0", Base.Model: "ILCE-7M3  "})), {},
     {"camera": "SONY ILCE-7M3"}),
    ("olympus.jpg", encoded(exif=exif({Base.ImageDescription: "OLYMPUS DIGITAL CAMERA"})), {}, {}),
    ("iso.jpg", encoded(exif=exif(camera={Base.ISOSpeedRatings: 65535, Base.ISOSpeed: 102_400})),
     {}, {"iso": 102_400}),
    ("windows.jpg", encoded(exif=exif({0x9C9E: "art; 海;".encode("utf-16-le"), 0x4746: 4})), {},
     {"keywords": ["art", "海"], "rating": 4}),
    ("latin-1.jpg", encoded(exif=exif({Base.ImageDescription: b"caf\xe9"})), {},
     {"description": "café"}),
    ("escape.jpg", encoded(exif=exif({Base.ImageDescription: "\x1b[2J<script>"})), {},
     {"description": "\x1b[2J<script>"}),
    ("iptc.jpg", iptc((5, b"Harbour"), (55, b"20230601"), (60, b"120000+0200")), {},
     {"title": "Harbour", "taken": NOON, "taken_offset": "+02:00"}),
    ("xmp.jpg", encoded(xmp=xmp(PEOPLE, 'xmp:Rating="5"')), {}, TOLD),
    ("bomb.jpg", encoded(xmp=b"<!DOCTYPE x [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><x>&b;</x>"),
     {}, {}),
    ("nan.jpg", encoded(xmp=xmp("", 'xmp:Rating="NaN"')), {}, {}),
    ("darktable.jpg", encoded(), {"darktable.jpg.xmp": xmp(PEOPLE, 'xmp:Rating="5"')}, TOLD),
    ("adobe.jpg", encoded(), {"adobe.xmp": xmp("", 'xmp:Rating="3"')}, {"rating": 3}),
    ("upper.JPG", encoded(), {"upper.XMP": xmp("", 'xmp:Rating="3"')}, {"rating": 3}),
    ("both.jpg", encoded(), {"both.xmp": xmp("", 'xmp:Rating="1"'),
     "both.jpg.xmp": xmp("", 'xmp:Rating="2"')}, {"rating": 2}),
    (
        "corrected.jpg",
        taken(OffsetTimeOriginal="+02:00"),
        {"corrected.xmp": xmp("", 'exif:DateTimeOriginal="2023-06-01T13:00:00"')},
        {"taken": NOON.replace(hour=13)},
    ),
    ("bad-sidecar.jpg", taken(), {"bad-sidecar.xmp": b"<x"}, {"taken": NOON}),
    (
        "sydney.png",
        encoded("PNG"),
        {"sydney.xmp": xmp("", 'exif:GPSLatitude="33,52.08S" exif:GPSLongitude="151,12.6E"')},
        {"lat": pytest.approx(-33.868), "lon": pytest.approx(151.21)},
    ),
]  # fmt: skip


def table_of(root: Path) -> pa.Table:
    """Return the crawled images of a store."""
    manifest = versions.read_current(Layout(root))
    assert manifest is not None
    return Objects(Layout(root)).read_table(manifest.require("crawl/images"))


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of all files above by name, after ``mmindex crawl``."""
    home = tmp_path_factory.mktemp("home")
    files = {name: data for name, data, _, _ in FILES}
    sidecars = {name: data for _, _, beside, _ in FILES for name, data in beside.items()}
    write_files(home / "photos", {**files, **sidecars, "cut-off.jpg": cut_off()})
    arguments = ["crawl", "--source", f"folder:{home}/photos", "--store", f"{home}/store"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "not read" not in done.output  # sidecars belong to images
    rows = table_of(home / "store").to_pylist()
    return {row["filename"]: row for row in rows}


def written(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row that come from the camera and the owner."""
    return {name: row[name] for name in PHOTO_COLUMNS if row.get(name) is not None}


@pytest.mark.parametrize(("name", "expected"), [(file[0], file[3]) for file in FILES])
def test_the_metadata_of_a_photograph_is_read(
    crawled: dict[str, dict[str, Any]], name: str, expected: Mapping[str, object]
) -> None:
    assert written(crawled[name]) == expected


def test_damaged_blocks_lose_no_image_and_every_row_has_its_file(
    crawled: dict[str, dict[str, Any]],
) -> None:
    assert crawled.keys() == {"cut-off.jpg", *(file[0] for file in FILES)}
    assert {(row["folder"], row["width"]) for row in crawled.values()} == {("", 16)}
    assert all(row["modified"].year >= 2020 for row in crawled.values())


def test_heic_has_the_same_metadata(tmp_path: Path) -> None:
    write_files(tmp_path / "f", {"a.heic": encoded("HEIF", exif=WHOLE)})
    objects = new_store(tmp_path / "store")
    [row], _ = rows_of(objects, crawl_specs(objects, f"folder:{tmp_path}/f"))
    assert written(row) == EXPECTED


def test_columns_have_types_that_conditions_can_use(tmp_path: Path) -> None:
    packet = xmp(PEOPLE, 'xmp:Rating="5"')
    write_files(tmp_path / "f", {"a.jpg": encoded(exif=WHOLE, xmp=packet), "b.jpg": jpeg(1)})
    objects = new_store(tmp_path / "store")
    table = objects.read_table(crawl_specs(objects, f"folder:{tmp_path}/f").images)
    number, text = pa.float64(), pa.string()
    assert {name: table.schema.field(name).type for name in table.column_names[9:]} == {
        "aperture": number, "camera": text, "description": text, "exposure": number,
        "filename": text, "focal_mm": number, "folder": text, "iso": pa.int64(),
        "keywords": pa.list_(text), "lat": number, "lens": text, "lon": number,
        "modified": pa.timestamp("us"), "rating": pa.int64(), "taken": pa.timestamp("us"),
        "title": text,
    }  # fmt: skip


# Every kind of source


def shard(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sources(folder: Path, data: bytes) -> dict[str, str]:
    """Write one image for each kind of source that reads local files."""
    folder.mkdir()
    pq.write_table(pa.table({"image": pa.array([data], pa.binary())}), folder / "p.parquet")
    coco = write_coco(folder / "coco", coco_content({1: ["a"]}), count=1)
    (coco / "val2017" / "000000000001.jpg").write_bytes(data)
    write_files(folder / "flickr", {"results_20130124.token": "1.jpg#0\ta", "1.jpg": data})
    return {
        "folder": f"folder:{write_files(folder / 'f', {'a.jpg': data})}",
        "zip": f"folder:{write_zip(folder / 'a.zip', {'a.jpg': data})}",
        "tar": f"folder:{shard(folder / 'b.tar', {'a.jpg': data})}",
        "webdataset": f"webdataset:{shard(folder / 'c.tar', {'a.jpg': data})}",
        "parquet": f"parquet:{folder / 'p.parquet'}",
        "coco": f"coco:{coco}#val2017",
    }


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "webdataset", "parquet", "coco"])
def test_every_kind_of_source_reads_metadata(tmp_path: Path, kind: str) -> None:
    spec = sources(tmp_path / "sources", encoded(exif=WHOLE))[kind]
    objects = new_store(tmp_path / "store")
    [row], _ = rows_of(objects, crawl_specs(objects, spec))
    assert written(row) == EXPECTED


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_corpus_without_metadata_gets_no_columns(tmp_path: Path, kind: str) -> None:
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, sources(tmp_path / "sources", encoded())[kind])
    assert objects.read_table(report.images).column_names == list(IMAGE_COLUMNS)


def test_drawn_scenes_get_no_columns_of_files(tmp_path: Path) -> None:
    objects = new_store(tmp_path / "store")
    names = objects.read_table(crawl_specs(objects, "scenes:3@1").images).column_names
    assert not {*PHOTO_COLUMNS, *FILE_COLUMNS} & set(names)


def test_a_webdataset_sample_can_have_a_sidecar(tmp_path: Path) -> None:
    files = {"a.jpg": encoded(), "a.xmp": xmp("", 'xmp:Rating="3"')}
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"webdataset:{shard(tmp_path / 'a.tar', files)}")
    [row], _ = rows_of(objects, report)
    assert written(row) == {"rating": 3}


# Columns of the source itself


def test_a_column_of_the_source_has_priority_even_if_it_is_empty(tmp_path: Path) -> None:
    data = [encoded(exif=WHOLE, xmp=xmp(PEOPLE)), encoded("PNG", exif=WHOLE)]
    table = {"image": pa.array(data, pa.binary()), "title": ["Own", None], "Lens": ["x", "y"]}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    objects = new_store(tmp_path / "store")
    rows, _ = rows_of(objects, crawl_specs(objects, f"parquet:{tmp_path}/p.parquet"))
    assert [(row["title"], row["Lens"], row["iso"]) for row in rows] == [
        ("Own", "x", 400),
        (None, "y", 400),
    ]
    assert "lens" not in rows[0]  # SQL cannot distinguish it from Lens


def test_columns_of_two_types_become_text(tmp_path: Path) -> None:
    write_files(tmp_path / "f", {"a.jpg": encoded(exif=WHOLE)})
    files = {"a.jpg": jpeg(1), "a.json": b'{"lat": "48 N", "taken": "summer"}'}
    shard(tmp_path / "a.tar", files)
    objects = new_store(tmp_path / "store")
    specs = (f"folder:{tmp_path}/f", f"webdataset:{tmp_path}/a.tar")
    rows, _ = rows_of(objects, crawl_specs(objects, *specs))
    assert [row["taken"] for row in rows] == ["2023-06-01T18:30:05.250000", "summer"]
    assert [row["lat"] for row in rows] == ["48.14", "48 N"]
    assert rows[0]["iso"] == 400


def test_a_source_with_the_maximum_of_columns_can_contain_photographs(tmp_path: Path) -> None:
    own: dict[str, Any] = {f"c{n}": [n] for n in range(MAX_METADATA_COLUMNS)}
    own["image"] = pa.array([encoded(exif=WHOLE)], pa.binary())
    pq.write_table(pa.table(own), tmp_path / "p.parquet")
    objects = new_store(tmp_path / "store")
    [row], _ = rows_of(objects, crawl_specs(objects, f"parquet:{tmp_path}/p.parquet"))
    assert (row["c255"], row["iso"]) == (255, 400)


# Unchanged files and sidecars


def age(folder: Path, ns: int = LONG_AGO_NS) -> None:
    for path in folder.rglob("*"):
        os.utime(path, ns=(ns, ns))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened for reading."""
    names: list[str] = []
    read_file = archive.read_file

    def counted(path: str, max_bytes: int) -> bytes:
        names.append(Path(path).name)
        return read_file(path, max_bytes)

    monkeypatch.setattr(archive, "read_file", counted)
    return names


def crawl_photos(objects: Objects, folder: Path, **rules: Any) -> CrawlReport:
    sources = [SourceConfig(spec=f"folder:{folder}")]
    return crawl(objects, sources, LimitsConfig(), photos=PhotoRules(**rules))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    packet = xmp(PEOPLE, 'xmp:Rating="5"')
    files = {"a.jpg": encoded(exif=WHOLE), "b.jpg": taken(), "a.xmp": packet}
    folder = write_files(tmp_path / "photos", files)
    age(folder)
    return folder


def test_unchanged_files_keep_their_metadata_without_being_opened(
    tmp_path: Path, photos: Path, opened: list[str]
) -> None:
    objects = new_store(tmp_path / "store")
    first = crawl_photos(objects, photos)
    opened.clear()
    assert crawl_photos(objects, photos) == first
    assert opened == []
    rows, _ = rows_of(objects, first)
    assert written(rows[0]) == {**EXPECTED, **TOLD}


def test_a_changed_added_or_removed_sidecar_is_noticed_and_only_it_is_read(
    tmp_path: Path, photos: Path, opened: list[str]
) -> None:
    objects = new_store(tmp_path / "store")
    crawl_photos(objects, photos)
    opened.clear()
    (photos / "a.xmp").write_bytes(xmp("", 'xmp:Rating="1"'))
    (photos / "b.jpg.xmp").write_bytes(xmp("", 'xmp:Rating="2"'))
    age(photos, LONG_AGO_NS)
    rows, _ = rows_of(objects, crawl_photos(objects, photos))
    assert [row["rating"] for row in rows] == [1, 2]
    assert sorted(opened) == ["a.xmp", "b.jpg.xmp"]
    (photos / "a.xmp").unlink()
    opened.clear()
    rows, _ = rows_of(objects, crawl_photos(objects, photos))
    assert [row["rating"] for row in rows] == [None, 2]
    assert opened == []


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_an_unreadable_sidecar_is_counted_and_loses_no_image(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "secret.xmp").write_bytes(xmp("", 'xmp:Rating="2"'))
    (photos / "b.xmp").symlink_to(tmp_path / "secret.xmp")
    (photos / "a.xmp").unlink()
    (photos / "a.xmp").mkdir()
    objects = new_store(tmp_path / "store")
    report = crawl_photos(objects, photos)
    rows, _ = rows_of(objects, report)
    assert [row.get("rating") for row in rows] == [None, None]
    assert report.sources[0].notes["unreadable_sidecars"] == 2


# Settings that limit what is stored


def test_excluded_metadata_is_removed_from_the_table_and_the_cache(
    tmp_path: Path, photos: Path
) -> None:
    objects = new_store(tmp_path / "store")
    stamps = objects.layout.stamps_file
    full = objects.read_table(crawl_photos(objects, photos).images)
    assert b'"lat"' in stamps.read_bytes()
    less = objects.read_table(crawl_photos(objects, photos, metadata="no-location").images)
    assert set(full.column_names) - set(less.column_names) == {"lat", "lon"}
    assert b'"lat"' not in stamps.read_bytes()
    none = objects.read_table(crawl_photos(objects, photos, metadata="none").images)
    assert none.column_names == list(IMAGE_COLUMNS)
    assert b"Canon" not in stamps.read_bytes()
    assert b"harbour" not in stamps.read_bytes()
    assert objects.read_table(crawl_photos(objects, photos).images) == full


def test_captions_can_come_from_metadata(tmp_path: Path, photos: Path) -> None:
    (photos / "b.txt").write_text("a caption of the folder's")
    objects = new_store(tmp_path / "store")
    _, none = rows_of(objects, crawl_photos(objects, photos))
    assert [row["text"] for row in none] == ["a caption of the folder's"]
    _, captions = rows_of(objects, crawl_photos(objects, photos, captions_from="metadata"))
    assert [row["text"] for row in captions] == [
        "The harbour",
        "Boats & gulls",
        "boat, sea",
        "a caption of the folder's",
    ]
