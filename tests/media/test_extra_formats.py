"""Formats of optional packages: camera RAW files and JPEG XL."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError, Reason
from mmindex.media import kinds
from mmindex.media.images import ImageLimits, decode, probe
from support.image_files import saved
from support.images import draw
from support.raw_files import dng

LIMITS = ImageLimits.of(LimitsConfig())
ORIENTATION = 0x0112
# The position of a red corner at the top left, by EXIF orientation.
CORNERS = {1: (0, 0), 3: (1, 1), 6: (1, 0), 8: (0, 1)}


def red_corner(size: tuple[int, int] = (1200, 800)) -> Image.Image:
    image = Image.new("RGB", size, "navy")
    image.paste("red", (0, 0, size[0] // 3, size[1] // 3))
    return image


def corner_of_red(image: Image.Image) -> tuple[int, int]:
    w, h = image.size
    found = [
        (x, y)
        for x in (0, 1)
        for y in (0, 1)
        if image.getpixel((5 + x * (w - 10), 5 + y * (h - 10)))[0] > 200
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("preview", ["large", "small", "none", "turned"])
def test_a_raw_file_is_rotated_once_with_any_preview(orientation: int, preview: str) -> None:
    sensor = red_corner()
    previews = {"large": sensor, "small": sensor.resize((300, 200)), "none": None}
    if preview == "turned":  # as some cameras store it
        turn = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}.get(orientation)
        if turn is None:
            pytest.skip("not told from one that is not turned")
        previews["turned"] = sensor.transpose(turn)
    data = dng(sensor, orientation, previews[preview])
    info, image = probe(data, LIMITS), decode(data, LIMITS)
    upright = (800, 1200) if orientation in (6, 8) else (1200, 800)
    assert (info.width, info.height, info.format) == (*upright, "RAW")
    assert corner_of_red(image) == CORNERS[orientation]
    developed = preview in ("small", "none")
    assert image.size == (tuple(side // 2 for side in upright) if developed else upright)
    assert info.fields["taken"] == datetime(2023, 6, 1, 12, 30)


def test_the_limits_apply_to_raw_files_before_developing() -> None:
    data = dng(red_corner())
    small = dataclasses.replace(LIMITS, max_pixels=1_000)
    for open_it in (probe, decode):
        with pytest.raises(ItemError) as caught:
            open_it(data, small)
        assert caught.value.reason is Reason.TOO_LARGE


def test_a_damaged_raw_file_is_refused_or_read() -> None:
    data = dng(red_corner((120, 80)), preview=red_corner((1200, 800)))
    for length in range(0, len(data), 997):
        damaged = data[:length] + bytes(40) + data[length + 40 :]
        for piece in (data[:length], damaged):
            with contextlib.suppress(ItemError):
                decode(piece, LIMITS)


def test_jpeg_xl_is_read_with_its_metadata_and_its_own_orientation() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # ISO/IEC 18181-2: the codestream's counts, and libjxl has applied it
    exif[271], exif[272] = "Acme", "Acme Two"
    data = saved(red_corner(), "JXL", exif=exif.tobytes())
    info = probe(data, LIMITS)
    assert (info.width, info.height, info.format) == (1200, 800, "JXL")
    assert info.fields["camera"] == "Acme Two"
    assert corner_of_red(decode(data, LIMITS)) == (0, 0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_jpeg_xl_of_every_mode_becomes_rgb(mode: str) -> None:
    data = saved(draw(1, (64, 48)).convert(mode), "JXL", lossless=True)
    expected = draw(1, (64, 48)).convert(mode).convert("RGB")
    assert decode(data, LIMITS).tobytes() == expected.tobytes()


def test_a_cut_off_jpeg_xl_is_refused() -> None:
    data = saved(draw(1, (320, 240)), "JXL")
    for length in range(2, len(data) - 1, 211):
        with pytest.raises(ItemError) as caught:
            decode(data[:length], LIMITS)
        assert caught.value.reason in (Reason.CORRUPT, Reason.TRUNCATED)


@pytest.mark.parametrize(("kind", "extra"), [("RAW", "raw"), ("JXL", "jxl")])
def test_without_the_package_the_refusal_names_the_extra(
    kind: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(red_corner(), kind)
    monkeypatch.setattr(kinds, "_has", lambda _: False)
    for open_it in (probe, decode):
        with pytest.raises(ItemError, match=rf"mmindex\[{extra}\]") as caught:
            open_it(data, LIMITS)
        assert caught.value.reason is Reason.UNSUPPORTED


def test_a_scan_with_a_small_image_first_stays_a_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    draw(1, (64, 48)).save(path, tiffinfo={254: 1, 271: "Scanner"})
    assert probe(path.read_bytes(), LIMITS).format == "TIFF"


def test_the_remedy_names_every_extra_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kinds.remedy([".cr2", ".mp4", ".txt"]) == ""
    monkeypatch.setattr(kinds, "_has", lambda _: False)
    told = kinds.remedy([".cr2", ".mp4", ".txt"])
    assert told == "install mmindex[raw,video] to read camera RAW files and videos"
    assert kinds.remedy([".txt", ".zip"]) == ""
    assert ".cr2" not in kinds.image_extensions()
