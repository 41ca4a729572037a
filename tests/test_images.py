"""Pictures from bytes: the closed list of formats, the limits, and a reason for every refusal."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mmindex.config import LimitsConfig
from mmindex.images import FORMATS, ImageInfo, ImageLimits, decode, probe
from mmindex.records import ItemError, Reason
from support.pictures import draw

LIMITS = ImageLimits.of(LimitsConfig())
ORIENTATION = 0x0112

# Every refusal among the awkward files, and whether the header already shows it. The others are
# pictures. `made-here` and the names' first words tell where the files come from.
REFUSED = {
    "flick30k-xet-pointer__1000092795.jpg": (Reason.NOT_AN_IMAGE, "header"),
    "libvips__blankpage.pdf": (Reason.NOT_AN_IMAGE, "header"),
    "libvips__blankpage.pdf__named.jpg": (Reason.NOT_AN_IMAGE, "header"),
    "libvips__logo.svg": (Reason.UNSUPPORTED, "header"),
    "libvips__logo.svg__named.png": (Reason.UNSUPPORTED, "header"),
    "libvips__truncated.gif": (Reason.TRUNCATED, "pixels"),
    "libvips__truncated.svgz": (Reason.NOT_AN_IMAGE, "header"),
    "made-here__zero-byte.jpg": (Reason.EMPTY, "header"),
    "pillow__avif_hopper.heif": (Reason.UNSUPPORTED, "header"),
    "pillow__bmp_b_badwidth.bmp": (Reason.TOO_LARGE, "header"),
    "pillow__bmp_b_reallybig.bmp": (Reason.TOO_LARGE, "header"),
    "pillow__bmp_b_shortfile.bmp": (Reason.TRUNCATED, "pixels"),
    "pillow__broken.png": (Reason.CORRUPT, "header"),
    "pillow__broken_data_stream.png": (Reason.CORRUPT, "pixels"),
    "pillow__crash-2020-10-test.tif": (Reason.CORRUPT, "pixels"),
    "pillow__decompression_bomb.gif": (Reason.TOO_LARGE, "header"),
    "pillow__decompression_bomb.ico": (Reason.TOO_LARGE, "header"),
    "pillow__eps_non_zero_bb.eps": (Reason.UNSUPPORTED, "header"),
    "pillow__hopper.psd": (Reason.UNSUPPORTED, "header"),
    "pillow__l2rgb_read.bmp": (Reason.TOO_LARGE, "header"),
    "pillow__not_enough_data.jp2": (Reason.CORRUPT, "header"),
    "pillow__png_decompression_dos.png": (Reason.CORRUPT, "header"),
    "pillow__seek_too_large.tif": (Reason.CORRUPT, "header"),
    "pillow__test-ole-file.doc": (Reason.NOT_AN_IMAGE, "header"),
    "pillow__truncated_end_chunk.png": (Reason.TRUNCATED, "pixels"),
    "pillow__truncated_jpeg.jpg": (Reason.TRUNCATED, "pixels"),
    "pillow__ultrahdr.jpg": (Reason.TRUNCATED, "pixels"),
    "pillow__unknown_compression_method.png": (Reason.CORRUPT, "header"),
    "pillow__zero_width.gif": (Reason.CORRUPT, "header"),
}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> ItemError:
    with pytest.raises(ItemError) as caught:
        decode(data, limits)
    return caught.value


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_zeros(width: int, height: int) -> bytes:
    """A black one-bit PNG, small however large the picture."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", FORMATS)
def test_every_listed_format_is_probed_and_decoded(kind: str) -> None:
    picture = draw(2, (48, 40))
    data = saved(picture, kind, sizes=[(48, 40)])  # sizes: of an ICO, which has several
    assert probe(data, LIMITS) == ImageInfo(48, 40, kind)
    decoded = decode(data, LIMITS)
    assert (decoded.mode, decoded.size) == ("RGB", (48, 40))
    assert np.abs(np.asarray(decoded, float) - np.asarray(picture, float)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_turned_as_its_exif_says_and_probe_reports_the_turned_size(
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


def test_exif_behind_the_pixels_of_a_png_counts_in_both() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    plain = saved(draw(0, (64, 24)), "PNG")
    data = plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]
    assert decode(data, LIMITS).size == (24, 64)
    assert probe(data, LIMITS) == ImageInfo(24, 64, "PNG")


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM" * 9])
def test_a_damaged_exif_block_costs_no_picture(exif: bytes) -> None:
    data = saved(draw(1), "JPEG", exif=exif)
    assert decode(data, LIMITS).size == (48, 40)
    assert probe(data, LIMITS) == ImageInfo(48, 40, "JPEG")


def test_the_pixel_ceiling_is_judged_from_the_header() -> None:
    """A 400-megapixel PNG of 48 kB is refused; with a higher ceiling its header is read."""
    bomb = png_of_zeros(20_000, 20_000)
    assert len(bomb) < 50_000
    with pytest.raises(ItemError) as caught:
        probe(bomb, LIMITS)
    assert caught.value.reason is Reason.TOO_LARGE
    assert refusal(bomb).reason is Reason.TOO_LARGE
    assert probe(bomb, ImageLimits(400_000_000, 1 << 20, 2.0)).width == 20_000


@pytest.mark.parametrize(("height", "fits"), [(10, True), (11, False), (19, False), (40, False)])
def test_the_pixel_ceiling_is_exact(height: int, fits: bool) -> None:
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
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Reason.UNSUPPORTED, "mmindex[heif]"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", Reason.NOT_AN_IMAGE, "isom"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", Reason.CORRUPT, "AVIF"),
        (b"RIFF\4\0\0\0WEBP", Reason.CORRUPT, "WEBP"),
        (b"\x89PNG\r\n\x1a\n", Reason.CORRUPT, "PNG"),
    ],
)
def test_other_bytes_under_an_image_name_are_named_for_what_they_are(
    data: bytes, reason: Reason, word: str
) -> None:
    error = refusal(data)
    assert error.reason is reason
    assert word in error.detail
    assert "\n" not in error.detail
    with pytest.raises(ItemError):
        probe(data, LIMITS)


def test_a_cut_off_photo_passes_the_header_and_fails_at_its_pixels() -> None:
    noise = Image.effect_noise((200, 200), 80)
    data = saved(noise, "JPEG")[:-2000]
    assert probe(data, LIMITS) == ImageInfo(200, 200, "JPEG")
    assert refusal(data).reason is Reason.TRUNCATED


def test_a_refusal_says_the_same_on_every_run() -> None:
    """Pillow's own text would name a memory address."""
    details = {refusal(b"nothing known").detail for _ in range(3)}
    assert len(details) == 1


def test_decoding_leaves_no_trace_in_the_process(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """No output of libtiff or of Pillow's logger, no warning, Pillow's own limit as before."""
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    good = saved(draw(4), "TIFF", compression="tiff_lzw")
    for data in (good[:-40] + bytes(40), good.replace(b"\x03\0\x01\0", b"\xff\xff\x01\0"), b"II*\0"):
        with pytest.raises(ItemError):
            decode(data, LIMITS)
    assert decode(good, LIMITS).size == (48, 40)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert before == Image.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)


def small_files() -> list[bytes]:
    picture = draw(7, (20, 13))
    kinds = [saved(picture, kind) for kind in FORMATS]
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return [
        *kinds,
        saved(picture, "PNG", exif=exif.tobytes()),
        saved(picture, "JPEG", exif=exif.tobytes(), progressive=True),
        saved(picture.convert("P"), "PNG", transparency=3),
        saved(picture, "TIFF", compression="tiff_lzw"),
        saved(picture, "TIFF", compression="jpeg"),
        saved(picture, "GIF", save_all=True, append_images=[draw(8, (20, 13))]),
        saved(picture, "WEBP", save_all=True, append_images=[draw(8, (20, 13))]),
        saved(picture, "MPO", save_all=True, append_images=[draw(8, (20, 13))]),
    ]


FILES = small_files()


@st.composite
def damaged_files(pick: st.DrawFn) -> bytes:
    data = bytearray(pick(st.sampled_from(FILES)))
    for place, value in pick(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)
    ):
        data[place] = value
    return bytes(data[: pick(st.integers(0, len(data)) | st.just(len(data)))])


@given(damaged_files())
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_give_a_picture_or_a_reason_and_nothing_else(data: bytes) -> None:
    limits = ImageLimits(max_pixels=1_000_000, max_bytes=1 << 20, max_aspect=200.0)
    for read in (probe, decode):
        try:
            read(data, limits)
        except ItemError as error:
            assert isinstance(error.reason, Reason)
            assert "\n" not in error.detail
            assert " at 0x" not in error.detail


def awkward_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    return ((path.name, path.read_bytes()) for path in sorted(folder.iterdir()))


def test_each_awkward_real_file_is_decoded_or_refused_for_the_expected_reason(
    real_photos: Path,
) -> None:
    expected = dict(REFUSED)
    seen = 0
    for name, data in awkward_files(real_photos / "awkward" / "files"):
        seen += 1
        reason, when = expected.pop(name, (None, "never"))
        found = None
        try:
            info = probe(data, LIMITS)
            assert when != "header", name
            assert decode(data, LIMITS).size == (info.width, info.height), name
        except ItemError as error:
            found = error.reason
        assert found == reason, name
    assert seen == 82
    assert not expected


def test_real_photos_decode_to_what_plain_pillow_gives(real_photos: Path) -> None:
    photos = sorted((real_photos / "coco_val2017" / "val2017").iterdir())[:20]
    for path in photos:
        with Image.open(path) as image:
            assert decode(path.read_bytes(), LIMITS).tobytes() == image.convert("RGB").tobytes()
