"""Frames of videos: their times, their names, and hostile files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError, Reason
from mmindex.media import kinds, video
from mmindex.media.images import ImageLimits, decode
from mmindex.media.uris import key_of, open_indexed, read_uri, split_uri
from mmindex.media.video import (
    frame_key,
    frame_times,
    frame_uri,
    probe_video,
    read_frame,
    split_frame,
    video_key,
)
from support.video_files import is_second, write_video

LIMITS = ImageLimits.of(LimitsConfig())
CODECS = {
    "a.mp4": "mpeg4",
    "b.mkv": "mpeg4",
    "c.avi": "mpeg4",
    "d.webm": "libvpx",
    "e.mov": "mpeg4",
    "f.mpg": "mpeg2video",
    "g.MTS": "mpeg2video",
}


def refusal(path: Path, limits: ImageLimits = LIMITS) -> ItemError:
    with pytest.raises(ItemError) as caught:
        probe_video(str(path), limits)
    return caught.value


@pytest.mark.parametrize("name", CODECS)
def test_every_container_gives_the_image_of_each_time(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name.lower(), codec=CODECS[name]).rename(tmp_path / name)
    info = probe_video(str(path), LIMITS)
    assert (info.width, info.height) == (96, 64)
    assert info.duration_s == pytest.approx(6, abs=0.5)
    for time_s in (0.0, 0.5, 2.5, 3.8, 4.2, 5.5):
        assert is_second(read_frame(str(path), time_s, LIMITS), int(time_s)), time_s


def test_a_frame_is_named_by_video_and_time_and_read_as_bytes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip #1!.zip!.mp4")
    uri = frame_uri(str(path), 2.5)
    assert uri == f"{path}#t=2.5"
    assert split_frame(uri) == (str(path), 2.5)
    assert split_uri(uri) == (str(path), None)
    data = read_uri(uri)
    assert is_second(decode(data, LIMITS), 2)
    key = key_of(uri, data)
    assert key == frame_key(video_key(str(path)), 2.5)
    assert open_indexed(uri, key, LIMITS).tobytes() == decode(data, LIMITS).tobytes()
    write_video(path, 5)
    with pytest.raises(ItemError, match="changed"):
        open_indexed(uri, key, LIMITS)


def test_names_that_only_look_like_frames_are_unchanged(tmp_path: Path) -> None:
    assert split_frame("/a/b.jpg#t=1.0") == ("/a/b.jpg#t=1.0", None)
    assert split_frame("/a/b.mp4#t=x") == ("/a/b.mp4#t=x", None)
    odd = tmp_path / "a.mp4#t=1"
    odd.write_bytes(b"here")
    assert read_uri(str(odd)) == b"here"


def test_a_name_that_is_not_text_works_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    odd = os.fsencode(tmp_path) + b"/\xff.mp4"
    path.rename(os.fsdecode(odd))
    uri = frame_uri(f"file://{tmp_path}/%FF.mp4", 1.5)
    assert is_second(decode(read_uri(uri), LIMITS), 1)


def test_times_are_the_middles_of_equal_parts() -> None:
    assert frame_times(60, 10) == [5.0, 15.0, 25.0, 35.0, 45.0, 55.0]
    assert frame_times(3, 10) == [1.5]
    assert frame_times(0.04, 10) == [0.0]
    assert frame_times(0, 10) == [0.0]
    many = frame_times(36_000, 1)
    assert (len(many), len(set(many)), many[-1]) == (200, 200, 35_910.0)


def test_the_key_of_a_large_video_is_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert video_key(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(video, "_WHOLE_BYTES", 1_000)
    monkeypatch.setattr(video, "_BLOCK_BYTES", 64)
    path.write_bytes(path.read_bytes())
    before = video_key(str(path))
    assert before != hashlib.sha256(path.read_bytes()).hexdigest()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert video_key(str(path)) != before


def test_the_metadata_of_phones_is_read(tmp_path: Path) -> None:
    tags = {
        "com.apple.quicktime.creationdate": "2023-06-01T12:30:00+0200",
        "com.apple.quicktime.location.ISO6709": "+48.1374+011.5755+519.000/",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 14",
    }
    fields = probe_video(str(write_video(tmp_path / "a.mov", 1, tags=tags)), LIMITS).fields
    assert fields == {
        "taken": datetime(2023, 6, 1, 12, 30),
        "taken_offset": "+02:00",
        "lat": 48.1374,
        "lon": 11.5755,
        "camera": "Apple iPhone 14",
    }


def test_limits_apply_before_decoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert refusal(path, dataclasses.replace(LIMITS, max_pixels=100)).reason is Reason.TOO_LARGE
    assert refusal(path, dataclasses.replace(LIMITS, max_aspect=1.1)).reason is Reason.TOO_THIN


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mp4", b"", Reason.EMPTY),
        ("a.mp4", b"no video", Reason.CORRUPT),
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", Reason.CORRUPT),
        ("a.mkv", b"ffconcat version 1.0\nfile /etc/passwd\n", Reason.CORRUPT),
        ("a.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(5_000), Reason.CORRUPT),
    ],
)
def test_a_file_that_is_not_a_video_is_refused(
    tmp_path: Path, name: str, content: bytes, reason: Reason
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path).reason is reason


def test_a_playlist_never_opens_what_it_names(tmp_path: Path) -> None:
    inner = write_video(tmp_path / "inner.mp4")
    for text in (f"ffconcat version 1.0\nfile '{inner}'\n", f"#EXTM3U\n#EXTINF:6,\n{inner}\n"):
        path = tmp_path / "outer.mp4"
        path.write_text(text)
        refusal(path)


def test_damaged_videos_affect_only_themselves_and_take_little_time(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv").read_bytes()
    path = tmp_path / "b.mkv"
    began = time.monotonic()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = whole[:length] + os.urandom(64) + whole[length + 64 :]
        for content in (whole[:length], damaged):
            path.write_bytes(content)
            for time_s in (0.0, 5.5):
                try:
                    image = read_frame(str(path), time_s, LIMITS)
                except ItemError:
                    continue
                assert image.size == (96, 64)
    assert time.monotonic() - began < 60


def test_a_truncated_video_is_distinguished_from_its_last_image(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ItemError) as caught:
        read_frame(str(path), 9.5, LIMITS)
    assert caught.value.reason is Reason.TRUNCATED


def test_audio_files_have_no_images(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8_000)
        samples = np.zeros((1, 800), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 8_000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    assert refusal(path).reason is Reason.NOT_AN_IMAGE


def test_without_the_package_the_refusal_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(kinds, "_has", lambda _: False)
    error = refusal(path)
    assert (error.reason, "mmindex[video]" in error.detail) == (Reason.UNSUPPORTED, True)


def test_a_portrait_video_is_rotated(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 1)
    upright = tmp_path / "b.mp4"
    # The track's matrix (ISO/IEC 14496-12, 8.3.2): a quarter to the right, as phones write it.
    plain = b"".join(n.to_bytes(4, "big") for n in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(
        (n & 0xFFFFFFFF).to_bytes(4, "big")
        for n in (0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    )
    data = path.read_bytes()
    at = data.index(plain, data.index(b"tkhd"))
    upright.write_bytes(data[:at] + turned + data[at + len(plain) :])
    info = probe_video(str(upright), LIMITS)
    assert (info.width, info.height) == (64, 96)
    assert isinstance(read_frame(str(upright), 0.5, LIMITS), Image.Image)
