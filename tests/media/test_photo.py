"""Dates, locations, cameras and texts in photographs, in every standard."""

from __future__ import annotations

import io
import warnings
from datetime import datetime

import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from mmindex.media.photo import PHOTO_COLUMNS, photo_fields, xmp_fields
from mmindex.media.pillow import read_exif
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


def fields(data: bytes) -> dict[str, object]:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
        return dict(photo_fields(image, read_exif(image, data)))


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_gives_the_same_values(fmt: str) -> None:
    main = {Base.Make: "Canon", Base.Model: "Canon EOS 5D"}
    assert fields(encoded(fmt, exif=exif(main, CAMERA, MUNICH))) == EXPECTED


def test_every_column_has_a_known_name() -> None:
    assert set(EXPECTED) <= set(PHOTO_COLUMNS)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: str) -> None:
    block = Image.Exif()
    block.endian = order
    block.get_ifd(IFD.Exif).update(CAMERA)
    assert fields(encoded(exif=block.tobytes()))["iso"] == 400


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("SONY\0\0", "ILCE-7M3   ", "SONY ILCE-7M3"),
        ("", "Pixel 7", "Pixel 7"),
        ("FUJIFILM", "", "FUJIFILM"),
    ],
)
def test_the_camera_is_one_text_with_its_make_once(make: str, model: str, camera: str) -> None:
    assert fields(encoded(exif=exif({Base.Make: make, Base.Model: model})))["camera"] == camera


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2023:06:01 18:30:05", datetime(2023, 6, 1, 18, 30, 5)),
        ("2023-06-01T18:30:05", datetime(2023, 6, 1, 18, 30, 5)),
        ("2023/06/01 18:30:05", datetime(2023, 6, 1, 18, 30, 5)),
        ("2023:06:01 18:30", datetime(2023, 6, 1, 18, 30)),
        ("2023:06:01", datetime(2023, 6, 1)),
        ("2023:06:01 18:30:05\0", datetime(2023, 6, 1, 18, 30, 5)),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2023:13:01 00:00:00", None),
        ("2023:02:30 00:00:00", None),
        ("1023:02:03 00:00:00", None),
        ("2023:06:01 24:61:00", None),
        ("yesterday", None),
    ],
)
def test_dates_of_cameras_are_read_and_zeros_are_missing(text: str, when: object) -> None:
    data = encoded(exif=exif(camera={Base.DateTimeOriginal: text}))
    assert fields(data).get("taken") == when


def test_the_time_of_the_last_change_is_used_only_with_a_camera() -> None:
    changed = {Base.DateTime: "2020:01:02 03:04:05"}
    assert "taken" not in fields(encoded(exif=exif(changed)))
    scanned = fields(encoded(exif=exif({**changed, Base.Make: "EPSON"})))
    assert scanned["taken"] == datetime(2020, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("north", "east", "lat", "lon"),
    [("S", "E", -48.14, 11.58), ("N", "W", 48.14, -11.58), ("S", "W", -48.14, -11.58)],
)
def test_south_and_west_are_negative(north: str, east: str, lat: float, lon: float) -> None:
    gps = {**MUNICH, GPS.GPSLatitudeRef: north, GPS.GPSLongitudeRef: east}
    found = fields(encoded(exif=exif(gps=gps)))
    assert (found["lat"], found["lon"]) == (pytest.approx(lat), pytest.approx(lon))


@pytest.mark.parametrize(
    "gps",
    [
        {GPS.GPSLatitude: (R(0, 1), R(0, 1), R(0, 1)), GPS.GPSLongitude: (R(0, 1),) * 3},
        {**MUNICH, GPS.GPSLatitude: (R(91, 1), R(0, 1), R(0, 1))},
        {**MUNICH, GPS.GPSLatitude: (R(0, 0), R(0, 0), R(0, 0))},
        {GPS.GPSLatitude: MUNICH[GPS.GPSLatitude], GPS.GPSLatitudeRef: "N"},
        {GPS.GPSDateStamp: "2023:06:01"},
    ],
)
def test_impossible_locations_are_ignored(gps: dict[int, object]) -> None:
    assert not {"lat", "lon"} & fields(encoded(exif=exif(gps=gps))).keys()


def test_degrees_with_decimal_minutes_are_read() -> None:
    gps = {**MUNICH, GPS.GPSLatitude: (R(48, 1), R(84, 10), R(0, 0))}
    assert fields(encoded(exif=exif(gps=gps)))["lat"] == pytest.approx(48.14)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (Base.ExposureTime, R(0, 0)),
        (Base.ExposureTime, R(0, 1)),
        (Base.FNumber, R(0, 1)),
        (Base.FocalLength, R(0, 1)),
        (Base.ISOSpeedRatings, 0),
    ],
)
def test_zeros_and_zero_denominators_are_ignored(tag: int, value: object) -> None:
    assert fields(encoded(exif=exif(camera={tag: value}))) == {}


def test_an_iso_above_16_bits_is_read_from_its_own_field() -> None:
    camera = {Base.ISOSpeedRatings: 65535, Base.ISOSpeed: 102_400}
    assert fields(encoded(exif=exif(camera=camera)))["iso"] == 102_400


def test_windows_tags_are_utf_16() -> None:
    main = {
        0x9C9B: "Straße\0".encode("utf-16-le"),
        0x9C9E: "art; 海;art;".encode("utf-16-le"),
        0x4746: 4,
    }
    found = fields(encoded(exif=exif(main)))
    assert found == {"title": "Straße", "keywords": ["art", "海"], "rating": 4}


@pytest.mark.parametrize(
    "text", ["OLYMPUS DIGITAL CAMERA", "SONY DSC", "DCIM\\100MEDIA\\DJI_1.JPG"]
)
def test_a_description_from_the_camera_is_ignored(text: str) -> None:
    assert "description" not in fields(encoded(exif=exif({Base.ImageDescription: text})))


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_is_read_from_every_format(fmt: str) -> None:
    packet = xmp(PEOPLE, 'xmp:Rating="5"')
    if fmt == "PNG":
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode())
        data = encoded(fmt, pnginfo=chunks)
    elif fmt == "TIFF":
        data = encoded(fmt, tiffinfo={int(Base.XMLPacket): packet})
    else:
        data = encoded(fmt, xmp=packet)
    assert fields(data) == TOLD


def test_a_sidecar_is_read_like_a_packet() -> None:
    place = 'exif:GPSLatitude="33,52.08S" exif:GPSLongitude="151,12,36E" xmp:Rating="-1"'
    assert xmp_fields(xmp("", place)) == {
        "lat": pytest.approx(-33.868),
        "lon": pytest.approx(151.21),
        "rating": -1,
    }


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2021-07-08T09:10:11.5+02:00", datetime(2021, 7, 8, 9, 10, 11, 500_000)),
        ("2021-07-08T09:10Z", datetime(2021, 7, 8, 9, 10)),
        ("2021-07-08", datetime(2021, 7, 8)),
        ("2021", None),
        ("2021-99-08", None),
    ],
)
def test_dates_of_xmp_keep_the_cameras_clock(text: str, when: object) -> None:
    found = xmp_fields(xmp("", f'exif:DateTimeOriginal="{text}"'))
    assert found.get("taken") == when


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0" * 100,
        b"<x",
        b"<?xml version='1.0' encoding='no-such'?><x/>",
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><x>&b;</x>",
        b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>",
        b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
        xmp("", 'xmp:Rating="NaN"'),
        xmp("", 'xmp:Rating="9e999"'),
        xmp("", 'exif:GPSLatitude="999,0N" exif:GPSLongitude="1,0E"'),
        b"<a>" * 100_000,
        b"x" * (5 << 20),
    ],
    ids=range(12),
)
def test_a_hostile_packet_is_ignored(packet: bytes) -> None:
    assert xmp_fields(packet) == {}


def test_iptc_is_read_with_its_old_encodings() -> None:
    data = iptc(
        (5, b"Harbour"), (25, b"boat"), (25, b"caf\xe9"), (120, "Möwen".encode()),
        (55, b"20210708"), (60, b"091011+0200"),
    )  # fmt: skip
    assert fields(data) == {
        "title": "Harbour",
        "keywords": ["boat", "café"],
        "description": "Möwen",
        "taken": datetime(2021, 7, 8, 9, 10, 11),
        "taken_offset": "+02:00",
    }


def test_values_from_people_have_priority() -> None:
    block = exif({Base.ImageDescription: "old"}, {Base.DateTimeOriginal: "2020:01:01 00:00:00"})
    packet = xmp(PEOPLE, 'exif:DateTimeOriginal="2021-01-01T00:00:00"')
    found = fields(encoded(exif=block, xmp=packet))
    assert found["description"] == "Boats & gulls"
    assert found["taken"] == datetime(2020, 1, 1)


def test_a_damaged_block_never_loses_an_image_and_never_another_block() -> None:
    """Each byte of the block in turn set to 0, 0xff and flipped."""
    main = {Base.Make: "Canon", Base.Model: "EOS"}
    data = encoded(exif=exif(main, CAMERA, MUNICH), xmp=xmp(PEOPLE, 'xmp:Rating="5"'))
    start = data.index(b"Exif\0\0") + 6
    for place in range(start, start + 300):
        for value in (0, 0xFF, data[place] ^ 0x80):
            damaged = data[:place] + bytes([value]) + data[place + 1 :]
            assert fields(damaged).items() >= {"title": "The harbour", "rating": 5}.items()


def test_values_can_be_stored_whatever_bytes_they_are() -> None:
    main = {Base.Make: b"\xff\xfe\x00bad", Base.Model: "x" * 100_000}
    for value in fields(encoded("PNG", exif=exif(main))).values():
        assert len(str(value).encode("utf-8")) < 1 << 17
