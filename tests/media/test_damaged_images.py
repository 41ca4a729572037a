"""Damaged and awkward files result in an image or in a reason from the closed list."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError, Reason
from mmindex.media.images import FORMATS, ImageLimits, decode, probe
from support.image_files import saved
from support.images import draw

LIMITS = ImageLimits.of(LimitsConfig())
ORIENTATION = 0x0112
# Every refusal among the awkward files, and whether the header already shows it. The others are
# images. `made-here` and the first words of the names state where the files come from.
REFUSED = {
    "flick30k-xet-pointer__1000092795.jpg": (Reason.NOT_AN_IMAGE, "header"),
    "libvips__blankpage.pdf": (Reason.NOT_AN_IMAGE, "header"),
    "libvips__blankpage.pdf__named.jpg": (Reason.NOT_AN_IMAGE, "header"),
    "libvips__logo.svg": (Reason.UNSUPPORTED, "header"),
    "libvips__logo.svg__named.png": (Reason.UNSUPPORTED, "header"),
    "libvips__truncated.gif": (Reason.TRUNCATED, "pixels"),
    "libvips__truncated.svgz": (Reason.NOT_AN_IMAGE, "header"),
    "made-here__zero-byte.jpg": (Reason.EMPTY, "header"),
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


def small_files() -> list[bytes]:
    image = draw(7, (20, 13))
    kinds = [saved(image, kind) for kind in FORMATS]
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return [
        *kinds,
        saved(image, "PNG", exif=exif.tobytes()),
        saved(image, "JPEG", exif=exif.tobytes(), progressive=True),
        saved(image.convert("P"), "PNG", transparency=3),
        saved(image, "TIFF", compression="tiff_lzw"),
        saved(image, "TIFF", compression="jpeg"),
        saved(image, "GIF", save_all=True, append_images=[draw(8, (20, 13))]),
        saved(image, "WEBP", save_all=True, append_images=[draw(8, (20, 13))]),
        saved(image, "MPO", save_all=True, append_images=[draw(8, (20, 13))]),
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
def test_damaged_bytes_result_in_an_image_or_a_reason(data: bytes) -> None:
    limits = ImageLimits(max_pixels=1_000_000, max_bytes=1 << 20, max_aspect=200.0)
    refusals = []
    for read in (probe, decode):
        try:
            read(data, limits)
        except ItemError as error:
            refusals.append(error)
    for refused in refusals:
        assert isinstance(refused.reason, Reason)
        assert "\n" not in refused.detail
        assert " at 0x" not in refused.detail


def test_each_awkward_real_file_is_decoded_or_refused_for_the_expected_reason(
    real_photos: Path,
) -> None:
    expected = dict(REFUSED)
    seen = 0
    for path in sorted((real_photos / "awkward" / "files").iterdir()):
        name, data = path.name, path.read_bytes()
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
