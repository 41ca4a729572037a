"""Photographs as written by cameras and programs: small images with EXIF, XMP and IPTC."""

from __future__ import annotations

import io
import struct
from datetime import datetime

import pytest
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from support.image_files import saved
from support.images import draw

R = TiffImagePlugin.IFDRational


def encoded(fmt: str = "JPEG", **options: object) -> bytes:
    """Return a small image with the metadata blocks in Pillow's options."""
    return saved(Image.new("RGB", (16, 12), "teal"), fmt, **options)


def exif(
    main: dict[int, object] | None = None,
    camera: dict[int, object] | None = None,
    gps: dict[int, object] | None = None,
) -> bytes:
    """Return an EXIF block with the main directory and those of the camera and the location."""
    block = Image.Exif()
    block.update(main or {})
    if camera:
        block.get_ifd(IFD.Exif).update(camera)
    if gps:
        block.get_ifd(IFD.GPSInfo).update(gps)
    return block.tobytes()


def photograph(number: int) -> bytes:
    """Return ``draw(number)`` as a JPEG with a date, a camera, a location and keywords."""
    block = exif({Base.Make: "Canon", Base.Model: "Canon EOS 5D"}, CAMERA, MUNICH)
    buffer = io.BytesIO()
    draw(number).save(buffer, "JPEG", exif=block, xmp=xmp(PEOPLE))
    return buffer.getvalue()


def xmp(body: str, attributes: str = "") -> bytes:
    """Return an XMP packet with one description."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        'xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {attributes}>{body}'
        "</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


def iptc(*records: tuple[int, bytes]) -> bytes:
    """Return a JPEG with an APP13 segment of IPTC-IIM records."""
    body = b"".join(
        b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value
        for number, value in records
    )
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)
    segment = b"Photoshop 3.0\0" + resource
    data = encoded()
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


CAMERA = {
    Base.DateTimeOriginal: "2023:06:01 18:30:05",
    Base.SubsecTimeOriginal: "25",
    Base.ExposureTime: R(1, 250),
    Base.FNumber: R(28, 10),
    Base.ISOSpeedRatings: 400,
    Base.FocalLength: R(50, 1),
    Base.LensModel: "EF 50mm f/1.8",
}
MUNICH = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (R(48, 1), R(8, 1), R(24, 1)),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (R(11, 1), R(34, 1), R(48, 1)),
}
EXPECTED = {
    "taken": datetime(2023, 6, 1, 18, 30, 5, 250_000),
    "camera": "Canon EOS 5D",
    "lens": "EF 50mm f/1.8",
    "iso": 400,
    "exposure": pytest.approx(0.004),
    "aperture": pytest.approx(2.8),
    "focal_mm": 50.0,
    "lat": pytest.approx(48.14),
    "lon": pytest.approx(11.58),
}

PEOPLE = (
    "<dc:title><rdf:Alt><rdf:li xml:lang='de'>Der Hafen</rdf:li>"
    "<rdf:li xml:lang='x-default'>The harbour</rdf:li></rdf:Alt></dc:title>"
    "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>Boats &amp; gulls</rdf:li></rdf:Alt>"
    "</dc:description><dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li>"
    "<rdf:li>boat</rdf:li></rdf:Bag></dc:subject>"
)
TOLD = {
    "title": "The harbour",
    "description": "Boats & gulls",
    "keywords": ["boat", "sea"],
    "rating": 5,
}
