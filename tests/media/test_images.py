"""Images from bytes: the closed list of formats, the limits, and a reason for every refusal."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError, Reason
from mmindex.media.images import FORMATS, ImageInfo, ImageLimits, decode, probe
from support.image_files import heic, saved
from support.images import draw

LIMITS = ImageLimits.of(LimitsConfig())
ORIENTATION = 0x0112


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> ItemError:
    with pytest.raises(ItemError) as caught:
        decode(data, limits)
    return caught.value


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_zeros(width: int, height: int) -> bytes:
    """Return a black one-bit PNG, which is small even for a large image."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", FORMATS)
def test_every_listed_format_is_probed_and_decoded(kind: str) -> None:
    image = draw(2, (48, 40))
    several = {"sizes": [(48, 40)]} if kind == "ICO" else {}
    large = {"preview": image.resize((1200, 1000), Image.Resampling.NEAREST)}
    data = saved(image, kind, **(large if kind == "RAW" else several))
    info = probe(data, LIMITS)
    assert (info.width, info.height, info.format) == (48, 40, kind)
    decoded = decode(data, LIMITS)
    if kind == "RAW":  # the camera's preview is taken
        assert decoded.size == (1200, 1000)
        decoded = decoded.resize((48, 40), Image.Resampling.BOX)
    assert (decoded.mode, decoded.size) == ("RGB", (48, 40))
    assert np.abs(np.asarray(decoded, float) - np.asarray(image, float)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_image_is_rotated_and_probe_reports_the_rotated_size(
    kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = saved(draw(3, (64, 24)), kind, exif=exif.tobytes())
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    decoded = decode(data, LIMITS)
    assert decoded.size == ((24, 64) if orientation >= 5 else (64, 24))
    assert decoded.tobytes() == expected.tobytes()
    info = probe(data, LIMITS)
    assert (info.width, info.height) == decoded.size


def test_exif_after_the_pixels_of_a_png_is_used() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    plain = saved(draw(0, (64, 24)), "PNG")
    data = plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]
    assert decode(data, LIMITS).size == (24, 64)
    assert probe(data, LIMITS) == ImageInfo(24, 64, "PNG")


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM" * 9])
def test_a_damaged_exif_block_loses_no_image(exif: bytes) -> None:
    data = saved(draw(1), "JPEG", exif=exif)
    assert decode(data, LIMITS).size == (48, 40)
    assert probe(data, LIMITS) == ImageInfo(48, 40, "JPEG")


def test_the_pixel_limit_is_checked_in_the_header() -> None:
    """A 400-megapixel PNG of 48 kB is refused; with a higher limit, its header is read."""
    bomb = png_of_zeros(20_000, 20_000)
    assert len(bomb) < 50_000
    with pytest.raises(ItemError) as caught:
        probe(bomb, LIMITS)
    assert caught.value.reason is Reason.TOO_LARGE
    assert refusal(bomb).reason is Reason.TOO_LARGE
    assert probe(bomb, ImageLimits(400_000_000, 1 << 20, 2.0)).width == 20_000


@pytest.mark.parametrize(("height", "fits"), [(10, True), (11, False), (19, False), (40, False)])
def test_the_pixel_limit_is_exact(height: int, fits: bool) -> None:
    limits = ImageLimits(max_pixels=100, max_bytes=1 << 20, max_aspect=200.0)
    data = saved(Image.new("RGB", (10, height)), "PNG")
    if fits:
        assert decode(data, limits).size == (10, height)
    else:
        assert refusal(data, limits).reason is Reason.TOO_LARGE


def test_empty_thin_and_oversized_files_have_their_own_reasons() -> None:
    assert refusal(b"").reason is Reason.EMPTY
    assert refusal(saved(Image.new("L", (1, 30_000)), "PNG")).reason is Reason.TOO_THIN
    assert refusal(saved(Image.new("L", (201, 1)), "PNG")).reason is Reason.TOO_THIN
    assert decode(saved(Image.new("L", (200, 1)), "PNG"), LIMITS).size == (200, 1)
    assert decode(saved(Image.new("L", (1, 1)), "PNG"), LIMITS).size == (1, 1)
    assert refusal(bytes(101), ImageLimits(100, 100, 2.0)).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("data", "reason", "word"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", Reason.NOT_AN_IMAGE, "HTML"),
        (b"%PDF-1.7\n", Reason.NOT_AN_IMAGE, "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\n", Reason.NOT_AN_IMAGE, "LFS"),
        (b"PK\3\4" + bytes(40), Reason.NOT_AN_IMAGE, "zip"),
        (b"plain text", Reason.NOT_AN_IMAGE, "no image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", Reason.UNSUPPORTED, "PostScript"),
        (b"8BPS\0\1" + bytes(40), Reason.UNSUPPORTED, "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', Reason.UNSUPPORTED, "SVG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", Reason.NOT_AN_IMAGE, "isom"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", Reason.CORRUPT, "AVIF"),
        (b"RIFF\4\0\0\0WEBP", Reason.CORRUPT, "WEBP"),
        (b"\x89PNG\r\n\x1a\n", Reason.CORRUPT, "PNG"),
    ],
)
def test_other_files_with_image_names_are_identified(
    data: bytes, reason: Reason, word: str
) -> None:
    error = refusal(data)
    assert error.reason is reason
    assert word in error.detail
    assert "\n" not in error.detail
    with pytest.raises(ItemError):
        probe(data, LIMITS)


def test_heic_of_phones_is_read_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = heic(draw(1, (64, 24)), exif=exif.tobytes())
    assert probe(data, LIMITS) == ImageInfo(24, 64, "HEIF")
    assert decode(data, LIMITS).size == (24, 64)
    for length in range(40, len(data), 97):
        assert refusal(data[:length]).reason in (Reason.CORRUPT, Reason.TRUNCATED)


@pytest.mark.parametrize("bits", [8, 10])
def test_heic_of_any_depth_keeps_its_colours(bits: int) -> None:
    image = Image.new("RGB", (64, 48), (200, 40, 90))
    found = decode(heic(image, quality=95, bit_depth=bits), LIMITS)
    assert all(abs(a - b) < 6 for a, b in zip(found.getpixel((30, 20)), (200, 40, 90), strict=True))


def test_a_truncated_photo_has_a_valid_header_but_fails_to_decode() -> None:
    noise = Image.effect_noise((200, 200), 80)
    data = saved(noise, "JPEG")[:-2000]
    assert probe(data, LIMITS) == ImageInfo(200, 200, "JPEG")
    assert refusal(data).reason is Reason.TRUNCATED


def test_a_refusal_has_the_same_text_in_every_run() -> None:
    """Pillow's own message would contain a memory address."""
    details = {refusal(b"nothing known").detail for _ in range(3)}
    assert len(details) == 1


def test_decoding_leaves_no_trace_in_the_process(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """No output of libtiff or Pillow's logger, no warning, and Pillow's own limit is unchanged."""
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    good = saved(draw(4), "TIFF", compression="tiff_lzw")
    for data in (
        good[:-40] + bytes(40),
        good.replace(b"\x03\0\x01\0", b"\xff\xff\x01\0"),
        b"II*\0",
    ):
        with pytest.raises(ItemError):
            decode(data, LIMITS)
    assert decode(good, LIMITS).size == (48, 40)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert before == Image.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)


def test_real_photos_decode_to_what_plain_pillow_gives(real_photos: Path) -> None:
    photos = sorted((real_photos / "coco_val2017" / "val2017").iterdir())[:20]
    for path in photos:
        with Image.open(path) as image:
            assert decode(path.read_bytes(), LIMITS).tobytes() == image.convert("RGB").tobytes()
