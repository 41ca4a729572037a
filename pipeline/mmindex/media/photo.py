"""Read the metadata of photographs: date, location, camera, title, keywords.

There are three standards, and a file can contain all of them: EXIF (CIPA DC-008, "Exif 3.0"), XMP
(ISO 16684-1, with the IPTC Photo Metadata Standard on top) and the older IPTC-IIM. A sidecar file
``NAME.xmp`` contains XMP for an image that a program did not want to change. If they differ, the
sidecar has priority, then EXIF for values that the camera measures, and XMP for values that people
write.

A damaged, hostile or absurd block loses only its own values, never the image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar, cast
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree
from PIL import Image, ImageFile, IptcImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from mmindex.core.records import LOCATION_COLUMNS, Scalar
from mmindex.media.pillow import DECODER_ERRORS

T = TypeVar("T")

Value = str | int | float | datetime | list[Scalar]
Fields = dict[str, Value]

PHOTO_COLUMNS: Final = (
    "taken",
    "taken_offset",
    "camera",
    "lens",
    "iso",
    "exposure",
    "aperture",
    "focal_mm",
    *LOCATION_COLUMNS,
    "title",
    "description",
    "keywords",
    "rating",
)

# Columns of a video frame, in seconds.
DURATION: Final = "duration_s"

# XMP from Lightroom with a complete editing history takes about 100 KiB.
_MOST_XMP_BYTES: Final = 4 << 20
_MOST_CHARS: Final = 1 << 16
_MOST_KEYWORDS: Final = 1_000
# The oldest surviving photograph was taken in 1826 or 1827.
_FIRST_YEAR: Final = 1826

# Windows writes these five tags as UTF-16; Pillow has no names for them.
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F
_RATING = 0x4746
_ISO_ELSEWHERE: Final = 65535  # Exif: "the value does not fit; see ISOSpeed"

# What cameras write in the description field.
_BOILERPLATE: Final = re.compile(
    r"(OLYMPUS|MINOLTA|KONICA MINOLTA|SAMSUNG|SANYO|KODAK)\b.*DIGITAL (STILL )?CAMERA"
    r"|SAMSUNG|SONY DSC|DIGITAL CAMERA|Exif[_ ]JPEG[_ ]PICTURE|DCIM[\\/].*|default|untitled",
    re.IGNORECASE | re.DOTALL,
)
_EXIF_TIME: Final = re.compile(
    r"(\d{4})[:/.\-](\d{1,2})[:/.\-](\d{1,2})(?:[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?"
)
_ISO_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?(Z|[+-]\d\d:?\d\d)?"
)
# Time zones are between UTC-12 and UTC+14.
_OFFSET: Final = re.compile(r"Z|([+-])(0\d|1[0-4]):?([0-5]\d)")
# ISO 6709: +48.1374+011.5755+519.000/
_ISO_PLACE: Final = re.compile(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)")
_XMP_PLACE: Final = re.compile(
    r"\s*(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?(?:,(\d+(?:\.\d+)?))?\s*([NSEW])\s*", re.IGNORECASE
)

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_EXIF_EX = "{http://cipa.jp/exif/1.0/}"
_TIFF = "{http://ns.adobe.com/tiff/1.0/}"
_AUX = "{http://ns.adobe.com/exif/1.0/aux/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"


def photo_fields(image: ImageFile.ImageFile, exif: Image.Exif) -> Fields:
    """Return the metadata in the blocks of an image.

    Args:
        image: an opened image, not yet decoded.
        exif: its EXIF block, see :func:`mmindex.media.pillow.read_exif`.

    Returns:
        valid values by column, see ``PHOTO_COLUMNS``. ``taken`` is a naive datetime from the clock
        of the camera. ``taken_offset`` is the offset of that clock from UTC, such as ``+02:00``.
    """
    packet = _tolerant(lambda: _xmp_packet(image, exif), b"")
    nothing: Fields = {}
    people, camera = xmp_fields(packet), _tolerant(lambda: _exif_fields(exif), nothing)
    old = _tolerant(lambda: _iptc_fields(image), nothing)
    written = {"title", "description", "keywords", "rating"}
    told = {name: value for name, value in camera.items() if name in written}
    measured = {name: value for name, value in camera.items() if name not in written}
    return merged(merged({**old, **told}, people), measured)


def merged(fields: Fields, better: Fields) -> Fields:
    """Merge two descriptions of an image; the second one has priority.

    An offset from UTC belongs to the time in the same description.
    """
    both = {**fields, **better}
    if "taken" in better and "taken_offset" not in better and fields.get("taken") != both["taken"]:
        both.pop("taken_offset", None)
    return both


def pack(fields: Fields) -> str:
    """Encode fields as one line of JSON; empty if there are none."""
    return msgspec.json.encode(fields).decode() if fields else ""


def unpack(text: str) -> Fields:
    """Decode fields from :func:`pack`."""
    fields: Fields = msgspec.json.decode(text) if text else {}
    if "taken" in fields:
        fields["taken"] = datetime.fromisoformat(cast("str", fields["taken"]))
    return fields


def xmp_fields(packet: bytes) -> Fields:
    """Return the fields in an XMP packet or sidecar; empty if it is not well-formed XML.

    Entities and external references are refused (https://github.com/tiran/defusedxml).
    """
    if not packet or len(packet) > _MOST_XMP_BYTES:
        return {}
    try:
        # Pillow and some programs leave padding, NULs or a byte-order mark around the packet.
        root = SafeTree.fromstring(packet.strip(b"\0 \t\r\n"))
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return {}
    values: dict[str, Element | str] = {}
    for description in root.iter(f"{_RDF}Description"):
        for name, text in description.attrib.items():
            values.setdefault(name, text)
        for child in description:
            values.setdefault(child.tag, child)
    return _kept(_xmp_values(values))


def video_fields(tags: Mapping[str, str]) -> Fields:
    """Return the fields in the tags of a video container, with Apple's or standard names."""
    apple = "com.apple.quicktime."

    def text(*names: str) -> str | None:
        found = (_text(tags.get(name)) for name in names)
        return next((one for one in found if one), None)

    return _kept(_video_values(text(f"{apple}creationdate", "creation_time"), text, apple))


def _video_values(
    said: str | None, text: Callable[..., str | None], apple: str
) -> Iterable[tuple[str, Value | None]]:
    yield "taken", _iso_time(said)
    yield "taken_offset", _iso_offset(said)
    yield "camera", _camera(text(f"{apple}make", "make"), text(f"{apple}model", "model"))
    place = _ISO_PLACE.match(text(f"{apple}location.ISO6709", "location") or "")
    if place is not None:
        yield from _place(float(place[1]), float(place[2]))
    yield "title", text("title")
    yield "description", _description(text("description", "comment"))


def _xmp_values(values: Mapping[str, Element | str]) -> Iterable[tuple[str, Value | None]]:
    def text(*names: str) -> str | None:
        return next((found for name in names if (found := _xmp_text(values.get(name)))), None)

    times = (f"{_EXIF}DateTimeOriginal", f"{_PHOTOSHOP}DateCreated", f"{_XMP}CreateDate")
    said = next((one for name in times if _iso_time(one := text(name))), None)
    yield "taken", _iso_time(said)
    yield "taken_offset", _iso_offset(said)
    yield "camera", _camera(text(f"{_TIFF}Make"), text(f"{_TIFF}Model"))
    yield "lens", text(f"{_EXIF_EX}LensModel", f"{_AUX}Lens")
    lat, lon = (_xmp_degrees(text(f"{_EXIF}GPS{name}")) for name in ("Latitude", "Longitude"))
    yield from _place(lat, lon)
    yield "title", text(f"{_DC}title")
    yield "description", _description(text(f"{_DC}description"))
    yield "keywords", _keywords(_xmp_list(values.get(f"{_DC}subject")))
    yield "rating", _rating(text(f"{_XMP}Rating"))


def _xmp_list(value: Element | str | None) -> list[str]:
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    return [item.text or "" for item in value.iter(f"{_RDF}li")] or [value.text or ""]


def _xmp_text(value: Element | str | None) -> str | None:
    """Return a simple value, or the alternative in the default language, or the first one."""
    if isinstance(value, Element):
        items = list(value.iter(f"{_RDF}li"))
        default = [item for item in items if item.get(_XML_LANG) == "x-default"]
        value = next(iter(default or items), value).text
    return _text(value)


def _xmp_degrees(text: str | None) -> float | None:
    match = _XMP_PLACE.fullmatch(text or "")
    if match is None:
        return None
    degrees, minutes, seconds = (float(part or 0) for part in match.groups()[:3])
    return _signed(degrees + minutes / 60 + seconds / 3600, match[4])


def _xmp_packet(image: Image.Image, exif: Image.Exif) -> bytes:
    """Return the XMP packet of an image: a chunk, a segment, or TIFF tag 700."""
    names = ("xmp", "XML:com.adobe.xmp")
    found = [chunk for name in names if (chunk := image.info.get(name))]
    packet: object = found[0] if found else exif.get(Base.XMLPacket)
    if isinstance(packet, str):
        return packet.encode("utf-8", "replace")
    return bytes(packet) if isinstance(packet, bytes | tuple) else b""


def _exif_fields(exif: Image.Exif) -> Fields:
    if not len(exif):
        return {}  # most files without a camera; the rest would take a tenth of a crawl's time
    camera: Mapping[int, Any] = _tolerant(lambda: exif.get_ifd(IFD.Exif), {})
    gps: Mapping[int, Any] = _tolerant(lambda: exif.get_ifd(IFD.GPSInfo), {})
    return _kept(_exif_values(exif, camera, gps))


def _exif_values(
    main: Mapping[int, Any], camera: Mapping[int, Any], gps: Mapping[int, Any]
) -> Iterable[tuple[str, Value | None]]:
    make, model = _text(main.get(Base.Make)), _text(main.get(Base.Model))
    times = [
        (Base.DateTimeOriginal, Base.SubsecTimeOriginal, Base.OffsetTimeOriginal),
        (Base.DateTimeDigitized, Base.SubsecTimeDigitized, Base.OffsetTimeDigitized),
    ]
    if make or model:  # in other files, it is the last change by a program
        times.append((Base.DateTime, Base.SubsecTime, Base.OffsetTime))
    everything = {**camera, **main}
    for time, fraction, offset in times:
        if taken := _exif_time(everything, time, fraction):
            yield "taken", taken
            yield "taken_offset", _offset(_text(everything.get(offset)))
            break
    yield "camera", _camera(make, model)
    yield "lens", _text(camera.get(Base.LensModel))
    yield "iso", _iso(camera)
    exposure = _number(camera.get(Base.ExposureTime))
    yield "exposure", exposure if exposure and 0 < exposure <= 7 * 86_400 else None
    aperture = _number(camera.get(Base.FNumber))
    yield "aperture", aperture if aperture and 0.1 <= aperture <= 1_024 else None
    focal = _number(camera.get(Base.FocalLength))
    yield "focal_mm", focal if focal and 0.1 <= focal <= 100_000 else None
    yield from _place(
        _signed(_degrees(gps.get(GPS.GPSLatitude)), gps.get(GPS.GPSLatitudeRef)),
        _signed(_degrees(gps.get(GPS.GPSLongitude)), gps.get(GPS.GPSLongitudeRef)),
    )
    yield "title", _wide_text(main.get(_XP_TITLE)) or _wide_text(main.get(_XP_SUBJECT))
    described = _text(main.get(Base.ImageDescription)) or _wide_text(main.get(_XP_COMMENT))
    yield "description", _description(described)
    yield "keywords", _keywords((_wide_text(main.get(_XP_KEYWORDS)) or "").split(";"))
    yield "rating", _rating(main.get(_RATING))


def _iso(camera: Mapping[int, Any]) -> int | None:
    for tag in (Base.ISOSpeedRatings, Base.ISOSpeed, Base.RecommendedExposureIndex):
        value = _number(camera.get(tag))
        if value is not None and 1 <= value <= 100_000_000 and value != _ISO_ELSEWHERE:
            return int(value)
    return None


def _iptc_fields(image: ImageFile.ImageFile) -> Fields:
    """Return the IPTC-IIM 4.2 fields of record 2: name 5, keywords 25, date 55/60, caption 120."""
    found = IptcImagePlugin.getiptcinfo(image)
    if not found:
        return {}

    def texts(number: int) -> list[str]:
        value = found.get((2, number), [])
        values = value if isinstance(value, list) else [value]
        return [text for one in values if (text := _text(one)) is not None]

    day, hour = "".join(texts(55)[:1]), "".join(texts(60)[:1])
    stamp = f"{day[:4]}-{day[4:6]}-{day[6:8]}"
    if re.match(r"\d{6}", hour):
        stamp += f"T{hour[:2]}:{hour[2:4]}:{hour[4:6]}{_offset(hour[6:]) or ''}"
    return _kept(
        [
            ("taken", _iso_time(stamp)),
            ("taken_offset", _iso_offset(stamp)),
            ("title", next(iter(texts(5)), None)),
            ("description", _description(next(iter(texts(120)), None))),
            ("keywords", _keywords(texts(25))),
        ]
    )


def _tolerant(read: Callable[[], T], otherwise: T) -> T:
    """Return the value of a block, or a default if Pillow cannot parse it."""
    try:
        return read()
    except DECODER_ERRORS:
        return otherwise


def _kept(values: Iterable[tuple[str, Value | None]]) -> Fields:
    return {name: value for name, value in values if value is not None and value != []}


def _text(value: object) -> str | None:
    """Return text without padding, or None; bytes are UTF-8, or Latin-1 from old cameras."""
    if isinstance(value, bytes):
        value = _decoded(value)
    if not isinstance(value, str):
        return None
    # Lone surrogates cannot be stored as UTF-8.
    clean = value.partition("\0")[0].strip().encode("utf-8", "replace").decode("utf-8")
    return clean[:_MOST_CHARS] or None


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _wide_text(value: object) -> str | None:
    """Return a Windows XP field: UTF-16, little-endian, as bytes or as a tuple of bytes."""
    if isinstance(value, tuple):
        value = bytes(value)
    return _text(value.decode("utf-16-le", "replace")) if isinstance(value, bytes) else None


def _description(text: str | None) -> str | None:
    return None if text is None or _BOILERPLATE.fullmatch(text) else text


def _keywords(words: Iterable[str | Scalar]) -> list[Scalar]:
    clean: dict[Scalar, None] = {text: None for word in words if (text := _text(word))}
    return list(clean)[:_MOST_KEYWORDS]


def _number(value: object) -> float | None:
    """Return a finite number, or None, for example for a rational with a zero denominator."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]
    except DECODER_ERRORS:
        return None
    return number if math.isfinite(number) else None


def _rating(value: object) -> int | None:
    """Return a rating from 0 to 5; -1 means "rejected" in XMP."""
    number = _number(value)
    return int(number) if number is not None and -1 <= number <= 5 else None


def _camera(make: str | None, model: str | None) -> str | None:
    """Return make and model as one text: "NIKON CORPORATION" and "NIKON D750" are "NIKON D750"."""
    if make is None or model is None:
        return model or make
    if model.split()[0].casefold() == make.split()[0].casefold():
        return model
    return f"{make} {model}"


def _exif_time(fields: Mapping[int, Any], tag: int, fraction: int) -> datetime | None:
    match = _EXIF_TIME.match(_text(fields.get(tag)) or "")
    return _time(match.groups(), _text(fields.get(fraction))) if match else None


def _iso_time(text: str | None) -> datetime | None:
    match = _ISO_TIME.fullmatch(text or "")
    return _time(match.groups()[:6], match[7]) if match else None


def _iso_offset(text: str | None) -> str | None:
    match = _ISO_TIME.fullmatch(text or "")
    return _offset(match[8]) if match else None


def _offset(text: str | None) -> str | None:
    """Return the offset of a clock from UTC, as ``+HH:MM``."""
    match = _OFFSET.fullmatch(text or "")
    if match is None:
        return None
    return "+00:00" if match[1] is None else f"{match[1]}{match[2]}:{match[3]}"


def _time(parts: Iterable[str | None], fraction: str | None) -> datetime | None:
    """Return a time of the camera clock; None for zeros, which cameras without a clock write."""
    digits = re.match(r"\d{1,6}", fraction or "")
    microseconds = int(digits[0].ljust(6, "0")) if digits else 0
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    try:
        when = datetime(year, month, day, hour, minute, second, microseconds)
    except ValueError:
        return None
    return when if when.year >= _FIRST_YEAR else None


def _degrees(value: object) -> float | None:
    """Return degrees, minutes and seconds as one number; minutes or seconds can be missing."""
    parts = value if isinstance(value, tuple | list) else (value,)
    numbers = [_number(part) for part in parts[:3]]
    if not numbers or numbers[0] is None:
        return None
    degrees, minutes, seconds = (*(number or 0.0 for number in numbers), 0.0, 0.0)[:3]
    return degrees + minutes / 60 + seconds / 3600


def _signed(degrees: float | None, reference: object) -> float | None:
    """Return degrees with the sign of the hemisphere; some programs write the sign themselves."""
    letter = (_text(reference) or "").upper()[:1]
    if degrees is None:
        return None
    return -abs(degrees) if letter in ("S", "W") else degrees


def _place(lat: float | None, lon: float | None) -> Iterable[tuple[str, Value | None]]:
    """Return both coordinates or None; phones without a GPS fix write 0, 0."""
    if lat is None or lon is None or not (-90 <= lat <= 90 and -180 <= lon <= 180):
        return
    if (lat, lon) != (0.0, 0.0):
        yield "lat", lat
        yield "lon", lon
