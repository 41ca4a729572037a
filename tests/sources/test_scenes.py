"""Drawn scenes as a source: written once in parts, read in constant memory, reused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.scenes import captions, draw, encode, make_scene
from mmindex.sources.kinds import scenes as scenes_source
from support.corpora import crawl_specs, items, new_store, rows_of, source_events


def test_scenes_are_drawn_with_their_captions(tmp_path: Path) -> None:
    objects = new_store(tmp_path)
    report = crawl_specs(objects, "scenes:12@3")
    images, texts = rows_of(objects, report)
    assert [row["image_id"] for row in images] == [f"scenes/3/{n:012d}" for n in range(12)]
    assert {row["source"] for row in images} == {"scenes/3"}
    assert {row["split"] for row in images} == {"all"}
    scene = make_scene(3, 11)
    assert [row["text"] for row in texts[-5:]] == [caption.text for caption in captions(scene)]
    found = items(source_events("scenes:12@3", layout=objects.layout))
    assert found["scenes/3/000000000011"].read() == encode(draw(scene))


def test_parts_are_written_once_and_a_larger_corpus_starts_with_the_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes_source, "PART_SCENES", 10)
    objects = new_store(tmp_path)
    small = crawl_specs(objects, "scenes:12@3")
    parts = objects.layout.downloads_dir / "scenes-v1-3"
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*.zip")}
    assert len(before) == 2
    assert crawl_specs(objects, "scenes:12@3").corpus_fingerprint == small.corpus_fingerprint
    assert {path: path.stat().st_mtime_ns for path in parts.rglob("*.zip")} == before
    large = crawl_specs(objects, "scenes:25@3")
    keys = [[row["key"] for row in rows_of(objects, one)[0]] for one in (small, large)]
    assert keys[1][:12] == keys[0]
    assert (large.images.rows, large.captions.rows) == (25, 125)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
