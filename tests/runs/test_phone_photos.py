"""A folder of phone photos: HEIC with orientation, location, profile and more images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from mmindex.core.config import LimitsConfig
from mmindex.media.images import ImageLimits, decode
from support.command import mmindex, mmindex_json
from support.images import draw

R = TiffImagePlugin.IFDRational
TURNS = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def phone_photo(number: int) -> tuple[bytes, Image.Image]:
    """Return a photo as a phone stores it (4:2:0, every fifth with 10 bits), and it upright."""
    upright, orientation = draw(number, (160, 120)), tuple(TURNS)[number % 4]
    turn = TURNS[orientation]
    sensor = upright if turn is None else upright.transpose(turn)
    if number % 5:
        file = pillow_heif.from_pillow(sensor)
    else:
        wide = np.asarray(sensor).astype(np.uint16) << 8
        file = pillow_heif.from_bytes("RGB;16", sensor.size, wide.tobytes())
    file.add_from_pillow(sensor.convert("L").resize((40, 40)))  # like a depth map
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = orientation, "Apple", "iPhone 14 Pro"
    exif.get_ifd(0x8769)[36867] = f"2023:06:{number % 28 + 1:02} 12:00:00"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (R(48), R(8), R(15)), "E", (R(11), R(34), R(number))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    file.save(
        buffer, exif=exif.tobytes(), icc_profile=profile, quality=90, chroma=420, primary_index=0
    )
    return buffer.getvalue(), upright


@pytest.mark.slow
def test_fifty_photos_of_a_phone_are_indexed_and_found(tmp_path: Path) -> None:
    folder, limits = tmp_path / "DCIM", ImageLimits.of(LimitsConfig())
    folder.mkdir()
    for number in range(50):
        data, upright = phone_photo(number)
        (folder / f"IMG_{number:04}.HEIC").write_bytes(data)
        shown = np.asarray(decode(data, limits), float)
        assert np.abs(shown - np.asarray(upright, float)).mean() < 6
    store = tmp_path / "store"
    (built,) = mmindex_json(
        "build", "--store", store, "--source", f"folder:{folder}", "--model", "photos"
    )
    assert (built["counts"]["indexed"], built["counts"]["quarantined"]) == (50, 0)
    asked = ("--columns", "taken,camera,lat,format,width", "--with-location", "-k", "50")
    hits = mmindex_json("query", "a boat", "--store", store, *asked)[0]["hits"]
    assert len(hits) == 50
    columns = hits[0]["columns"]
    assert (columns["format"], columns["camera"]) == ("HEIF", "Apple iPhone 14 Pro")
    assert columns["width"] == 160
    assert round(columns["lat"], 3) == 48.138
    page = tmp_path / "page.html"
    mmindex("query", "a boat", "--store", store, "--html", page)
    assert page.read_text("utf-8").count("data:image/jpeg") == 10
