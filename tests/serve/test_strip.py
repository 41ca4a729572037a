"""Metadata is removed from an image file, and its pixels are kept."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageCms, PngImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from mmindex.media.strip import CannotStripError, strip_metadata
from mmindex.serve.thumbs import ThumbCache
from support.images import draw

MARK = b"a secret place"


def tagged(form: str, **options) -> bytes:
    exif = Image.Exif()
    exif[Base.ImageDescription] = MARK.decode()
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] = (48.0, 8.0, 0.0)
    exif[Base.Orientation] = options.pop("orientation", 1)
    buffer = io.BytesIO()
    draw(3, (64, 48)).save(buffer, form, exif=exif.tobytes(), **options)
    return buffer.getvalue()


def pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGB").tobytes()


# Created once, because it contains the time of its creation.
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_texts_and_locations_are_removed_and_pixels_and_profile_kept(form: str) -> None:
    options = {"icc_profile": PROFILE}
    if form == "JPEG":
        options |= {"comment": MARK, "xmp": b"<x>" + MARK, "progressive": True}
    elif form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", MARK.decode())
        info.add_itxt("XML:com.adobe.xmp", MARK.decode())
        options["pnginfo"] = info
    else:
        options |= {"xmp": b"<x>" + MARK, "lossless": True}
    data = tagged(form, **options)
    assert MARK in data
    clean = strip_metadata(data, form)
    assert clean is not None
    assert MARK not in clean
    assert pixels(clean) == pixels(data)
    with Image.open(io.BytesIO(clean)) as image:
        assert image.info["icc_profile"] == PROFILE
        assert not dict(image.getexif())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_only_the_orientation_of_exif_is_kept(orientation: int) -> None:
    clean = strip_metadata(tagged("JPEG", orientation=orientation), "JPEG", orientation)
    assert clean is not None
    with Image.open(io.BytesIO(clean)) as image:
        expected = {} if orientation == 1 else {Base.Orientation: orientation}
        assert dict(image.getexif()) == expected


def test_data_after_the_image_is_removed() -> None:
    data = tagged("JPEG")
    clean = strip_metadata(data + b"more " + MARK + data, "MPO")
    assert clean == strip_metadata(data, "JPEG")


def test_other_formats_and_rotated_pngs_are_not_handled() -> None:
    assert strip_metadata(b"GIF89a", "GIF") is None
    assert strip_metadata(tagged("PNG", orientation=6), "PNG", 6) is None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_never_accepted(form: str) -> None:
    data = tagged(form)
    whole = strip_metadata(data, form)
    for length in (*range(64), *range(64, len(data), 37)):
        try:
            clean = strip_metadata(data[:length], form)
        except CannotStripError:
            continue
        assert clean is not None
        assert MARK not in clean
        assert clean == whole or form == "WEBP"


def test_thumbnails_stay_within_their_bound(tmp_path) -> None:
    cache = ThumbCache(tmp_path / "c", 1_000)
    keys = [f"{n:064x}" for n in range(20)]
    for key in keys:
        cache.put(key, b"x" * 100)
    assert cache.bytes == 1_000
    assert cache.get(keys[0]) is None
    assert cache.get(keys[-1]) == b"x" * 100
    assert sum(path.stat().st_size for path in (tmp_path / "c").glob("??/*")) == 1_000
    again = ThumbCache(tmp_path / "c", 1_000)
    assert again.bytes == 1_000
    assert sorted(again.keys()) == sorted(keys[-10:])


def test_a_half_written_thumbnail_is_removed_and_nothing_else(tmp_path) -> None:
    """The folder can belong to somebody, and contain a folder with a name of two letters."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / f".{'0' * 32}").write_bytes(b"half")
    own = tmp_path / "ab" / "letter.txt"
    own.write_text("mine")
    (tmp_path / "cd" / "folder").mkdir(parents=True)
    assert ThumbCache(tmp_path, 10).bytes == 0
    assert list((tmp_path / "ab").iterdir()) == [own]


def jpeg_segments(data: bytes) -> list[int]:
    """Return the markers before the data of the image."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        found.append(data[at + 1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found


def test_previews_and_unknown_segments_of_a_jpeg_are_left_out() -> None:
    buffer = io.BytesIO()
    draw(3, (64, 48)).save(buffer, "JPEG")
    plain = buffer.getvalue()
    at = 4 + int.from_bytes(plain[4:6], "big")
    preview = b"SECRET" * 8  # 4 x 4 pixels of three bytes
    jfif = b"\xff\xe0" + (16 + len(preview)).to_bytes(2, "big") + plain[6:18] + b"\4\4" + preview
    extension = b"\xff\xf7\0\x08SECRET"
    found = strip_metadata(plain[:2] + jfif + extension + plain[at:], "JPEG")
    assert found is not None
    assert b"SECRET" not in found
    assert 0xF7 not in jpeg_segments(found)
    with Image.open(io.BytesIO(found)) as ours, Image.open(io.BytesIO(plain)) as first:
        assert ours.tobytes() == first.tobytes()


def test_frames_of_a_webp_keep_only_their_pixels() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    data = buffer.getvalue()
    at = data.index(b"ANMF")
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    hidden = b"junk\6\0\0\0SECRET"
    frame = b"ANMF" + (size + len(hidden)).to_bytes(4, "little") + data[at + 8 : at + 8 + size]
    body = data[8:at] + frame + hidden + data[at + 8 + size :]
    found = strip_metadata(b"RIFF" + len(body).to_bytes(4, "little") + body, "WEBP")
    assert found is not None
    assert b"SECRET" not in found
    with Image.open(io.BytesIO(found)) as ours:
        assert ours.n_frames == 2
