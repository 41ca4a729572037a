"""Small embedding shards of nightly changes are merged without losing anything."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmindex.encode import compact
from mmindex.encode.compact import MOST_SMALL, to_rewrite
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.versions import open_layout
from support.fakestore import fast_folder, run_build, write_photos

UNIT = 4


def built(folder: Path, numbers: range, broken: dict[str, bytes] | None = None, **values):
    photos = {f"{number:03d}.jpg": number for number in numbers}
    write_photos(folder / "photos", photos, {"000.jpg": ["one", "two"]}, broken)
    values = {"encode__shard_rows": UNIT, "limits__max_removed": 1.0, **values}
    return run_build(folder / "store", folder / "photos", **values)


def torn_jpeg() -> bytes:
    """An image with a valid header whose pixels end in the middle."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[: len(data) // 2]


def objects_of(folder: Path) -> Objects:
    return Objects(open_layout(folder / "store"))


def vectors_of(objects: Objects, manifest: Manifest, side: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for ref in manifest.named(f"embeddings/{side}/"):
        table = objects.read_table(ref)
        rows = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        for key, row in zip(table["key"].to_pylist(), rows, strict=True):
            assert key not in found
            found[key] = row.tobytes()
    return found


def sizes(manifest: Manifest, side: str = "image") -> list[int]:
    return [ref.rows for ref in manifest.named(f"embeddings/{side}/")]


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40),
    st.integers(1, 12),
)
def test_merged_shards_are_not_merged_again(shards, unit):
    rows = [max(pair) for pair in shards]
    live = [min(pair) for pair in shards]
    chosen = to_rewrite(rows, live, unit)
    left = [n for n in range(len(rows)) if n not in chosen]
    total = sum(live[n] for n in chosen)
    new = [unit] * (total // unit) + [total % unit] * (total % unit > 0)
    assert not to_rewrite([*(rows[n] for n in left), *new], [*(live[n] for n in left), *new], unit)


def test_small_shards_of_many_nights_are_merged():
    with fast_folder() as folder:
        built(folder, range(UNIT))
        before = None
        for night in range(1, MOST_SMALL + 1):
            before = built(folder, range(UNIT + night)).manifest
        assert sizes(before) == [UNIT] + [1] * MOST_SMALL
        summary = built(folder, range(UNIT + MOST_SMALL + 1))
        made = summary.manifest
        assert sizes(made) == [UNIT, UNIT, UNIT, 1]
        assert summary.report.reports["encode"]["compacted_shards"] == MOST_SMALL + 1
        assert summary.report.reports["encode"]["encoded_images"] == 1
        objects = objects_of(folder)
        old, new = (vectors_of(objects, one, "image") for one in (before, made))
        assert {key: new[key] for key in old} == old
        names = [ref.name for ref in made.named("embeddings/image/")]
        assert names == sorted(names)
        assert names[0] == "embeddings/image/00000"
        assert int(names[1][-5:]) > MOST_SMALL
        assert not built(folder, range(UNIT + MOST_SMALL + 1)).published


def test_a_mostly_unused_shard_is_rewritten_without_unused_rows():
    with fast_folder() as folder:
        first = built(folder, range(12)).manifest
        same = built(folder, range(2, 12)).manifest
        assert sizes(same) == [4, 4, 4]  # half of the first one is still needed
        made = built(folder, range(3, 12)).manifest
        assert sizes(made) == [4, 4, 1]
        objects = objects_of(folder)
        old, new = (vectors_of(objects, one, "image") for one in (first, made))
        assert len(new) == 9
        assert new.items() <= old.items()
        assert made.indexes["image"].n == 9
        assert not built(folder, range(3, 12)).published


def test_what_failed_is_not_tried_again_after_its_shard_is_gone():
    with fast_folder() as folder:
        broken = {"bad.jpg": torn_jpeg()}
        first = built(folder, range(3), broken)
        assert first.report.reports["encode"]["failed"] == 1
        second = built(folder, range(2, 3), broken)
        assert second.report.reports["encode"]["compacted_shards"] == 1
        third = built(folder, range(2, 3), broken)
        assert not third.published
        assert third.report.reports["encode"]["failed"] == 1
        assert third.report.reports["encode"]["encoded_images"] == 0


def test_the_same_nights_give_the_same_shards():
    made = []
    for _ in range(2):
        with fast_folder() as folder:
            for night in range(MOST_SMALL + 3):
                summary = built(folder, range(UNIT + night))
            refs = summary.manifest.named("embeddings/")
            made.append([(ref.name, ref.sha256) for ref in refs])
    assert made[0] == made[1]


def stop_after(calls):
    publish, left = compact.ShardWriter.publish, [calls]

    def counted(writer):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return publish(writer)

    return counted


def test_a_run_killed_while_compacting_changes_nothing_for_the_next(monkeypatch):
    """No version lists its shards; the next run writes the same bytes again."""
    with fast_folder() as folder:
        for night in range(MOST_SMALL + 1):
            built(folder, range(UNIT + night))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(compact.ShardWriter, "publish", stop_after(2))
            built(folder, range(UNIT + MOST_SMALL + 1))
        summary = built(folder, range(UNIT + MOST_SMALL + 1))
        assert sizes(summary.manifest) == [UNIT, UNIT, UNIT, 1]
        vectors = vectors_of(objects_of(folder), summary.manifest, "image")
        assert len(vectors) == UNIT + MOST_SMALL + 1
