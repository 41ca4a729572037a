"""Videos in folders: their frames are indexed, found, opened and forgotten like images."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.core.records import ItemError, Reason
from mmindex.crawl import reading, videos
from mmindex.crawl.metadata import PhotoRules
from mmindex.crawl.stage import crawl
from mmindex.crawl.videos import VideoProber
from mmindex.media import kinds
from mmindex.media.images import ImageLimits
from mmindex.media.uris import open_indexed
from mmindex.pages.page import thumb
from mmindex.pages.places import place_of
from mmindex.search.named import open_image
from support.corpora import crawl_specs, jpeg, new_store, rows_of, write_files, write_zip
from support.fakestore import run_build
from support.forgetting import assert_nowhere, image_ids, opened
from support.video_files import dies_or_hangs, is_second, write_video

LIMITS = ImageLimits.of(LimitsConfig())


def crawl_folder(place: Path, interval: float = 2.0):
    objects = new_store(place / "store")
    source = SourceConfig(spec=f"folder:{place}/f")
    rules = PhotoRules(video_interval=interval)
    return objects, crawl(objects, [source], LimitsConfig(), photos=rules)


def aged(path: Path) -> Path:
    """Make it old enough to be remembered as unchanged."""
    os.utime(path, ns=(time.time_ns() - 10**10,) * 2)
    return path


def test_frames_are_images_with_a_time_and_open_again_exactly(tmp_path: Path) -> None:
    write_files(tmp_path / "f", {"a.jpg": jpeg(1), "b/clip.txt": "one\ntwo\n"})
    path = write_video(tmp_path / "f" / "b" / "clip.mp4")
    objects, report = crawl_folder(tmp_path)
    images, captions = rows_of(objects, report)
    frames = [row for row in images if row["time_s"] is not None]
    assert [row["image_id"] for row in frames] == [
        f"folder/f/b/clip.mp4#t={at}" for at in ("1.0", "3.0", "5.0")
    ]
    assert [row["uri"] for row in frames] == [f"{path}#t={at}" for at in ("1.0", "3.0", "5.0")]
    first = frames[0]
    assert (first["format"], first["width"], first["height"]) == ("MP4", 96, 64)
    assert (first["folder"], first["filename"], first["duration_s"]) == ("b", "clip.mp4", 6.0)
    assert first["size_bytes"] == path.stat().st_size
    assert len({row["key"] for row in images}) == 4
    for row in frames:
        image = open_image(row["uri"])
        assert is_second(image, int(row["time_s"]))
        assert open_indexed(row["uri"], row["key"], LIMITS).tobytes() == image.tobytes()
        assert thumb(row["uri"]).width == 96
    middle = [row["caption_id"] for row in captions]
    assert middle == [f"folder/f/b/clip.mp4#t=3.0#{n}" for n in (0, 1)]
    assert report.seen == 4


def test_pages_show_the_time_and_link_to_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 1)
    place = place_of(f"{path}#t=3725.0", "id", tmp_path / "page.html")
    assert (place.name, place.href) == ("clip.mp4 1:02:05", "./clip.mp4#t=3725.0")


def test_unchanged_videos_are_not_opened_again_even_with_another_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").mkdir()
    aged(write_video(tmp_path / "f" / "a.mp4"))
    _, first = crawl_folder(tmp_path)
    monkeypatch.setattr(VideoProber, "probe", None)
    monkeypatch.setattr(reading, "video_key", None)
    _, again = crawl_folder(tmp_path)
    assert (again.details["read"], again.details["unchanged"]) == (0, 1)
    assert again.corpus_fingerprint == first.corpus_fingerprint
    _, finer = crawl_folder(tmp_path, 1.0)
    assert finer.images.rows == 6


def test_copies_of_a_video_have_the_keys_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    data = write_video(tmp_path / "f" / "a.mp4").read_bytes()
    (tmp_path / "f" / "b.mp4").write_bytes(data)
    images, _ = rows_of(*crawl_folder(tmp_path))
    keys = [row["key"] for row in images]
    assert keys[:3] == keys[3:]


def test_broken_videos_are_quarantined_with_a_reason(tmp_path: Path) -> None:
    write_files(
        tmp_path / "f",
        {"a.jpg": jpeg(1), "empty.mp4": b"", "html.mov": b"<html>", "z.avi": b"RIFF"},
    )
    _, report = crawl_folder(tmp_path)
    found = {Path(entry.uri).name: entry.reason for entry in report.quarantined}
    assert found == {
        "empty.mp4": Reason.EMPTY, "html.mov": Reason.CORRUPT, "z.avi": Reason.CORRUPT
    }  # fmt: skip


@pytest.mark.slow
def test_a_video_that_kills_or_blocks_its_process_affects_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_video(tmp_path / "a.mp4", 1))
    with VideoProber(LIMITS) as prober:
        assert prober.probe(path).width == 96
        with monkeypatch.context() as patched:
            patched.setattr(videos, "_probe", dies_or_hangs)
            patched.setattr(videos, "_TIMEOUT_S", 3.0)
            for bad in ("die", "hang"):
                with pytest.raises(ItemError) as caught:
                    prober.probe(bad)
                assert caught.value.reason is Reason.DECODER_DIED
        assert prober.probe(path).width == 96


def test_without_the_extra_videos_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "f", {"a.jpg": jpeg(1), "b.cr2": b"x", "c.jxl": b"x"})
    write_video(tmp_path / "f" / "a.mp4", 1)
    monkeypatch.setattr(kinds, "_has", lambda _: False)
    _, report = crawl_folder(tmp_path)
    assert report.not_read == {".mp4": 1, ".cr2": 1, ".jxl": 1}
    assert kinds.remedy(report.not_read).startswith("install mmindex[jxl,raw,video] to read ")


def test_videos_inside_archives_are_counted(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", 1).read_bytes()
    write_zip(tmp_path / "f.zip", {"a.jpg": jpeg(1), "a.mp4": data})
    report = crawl_specs(new_store(tmp_path / "store"), f"folder:{tmp_path}/f.zip")
    assert (report.images.rows, report.not_read) == (1, {".mp4": 1})


@pytest.mark.parametrize("by", ["path", "id", "frame"])
def test_forgetting_a_video_removes_all_its_frames(tmp_path: Path, by: str) -> None:
    from mmindex.upkeep.forget import forget
    from mmindex.upkeep.forget_names import find_ids

    folder = tmp_path / "photos"
    write_files(folder, {f"{n}.jpg": jpeg(n) for n in range(12)})
    path = aged(write_video(folder / "clip.mp4", 30))
    run_build(tmp_path / "store", folder)
    frames = {f"folder/photos/clip.mp4#t={at}" for at in ("5.0", "15.0", "25.0")}
    assert frames <= image_ids(tmp_path)
    name = {"path": str(path), "id": "folder/photos/clip.mp4", "frame": f"{path}#t=15.0"}[by]
    ids = find_ids(tmp_path / "store", [name], None)
    gone = {"folder/photos/clip.mp4#t=15.0"} if by == "frame" else frames
    assert set(ids) == gone
    forget(tmp_path / "store", ids, "20260101T000000-forget")
    assert image_ids(tmp_path) & frames == frames - gone
    if by != "frame":
        assert_nowhere(tmp_path / "store", b"clip.mp4")
    run_build(tmp_path / "store", folder)
    assert image_ids(tmp_path) & frames == frames - gone
    layout, _ = opened(tmp_path)
    if by != "frame":
        assert b"clip.mp4" not in layout.stamps_file.read_bytes()
