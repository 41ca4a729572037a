"""A corpus that changes every night: every command uses the current content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.modality import Modality
from mmindex.insight.dedup import near_duplicates
from mmindex.runs.run import RunSummary
from mmindex.search.filters import ids_of, select_images
from mmindex.search.golden import check_golden
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import open_snapshot
from mmindex.upkeep.forget import forget
from support.fakestore import fast_folder, run_build, write_photos

COUNT = 60


@pytest.fixture
def folder():
    with fast_folder() as made:
        yield made


def built(folder: Path, images: dict[str, int], captions=None, **values) -> RunSummary:
    write_photos(folder / "photos", images, captions)
    values = {"limits__max_removed": 1.0, "index__kind": "ivfpq", **values}
    return run_build(folder / "store", folder / "photos", **values)


def images_of(numbers) -> dict[str, int]:
    return {f"{number:03d}.jpg": number for number in numbers}


def side_of(summary: RunSummary, side: str) -> tuple[str, int, int]:
    report = summary.report.reports[f"index {side}"]
    return report["action"], report["added"], report["removed"]


def names_of(folder: Path, side: Modality) -> set[str]:
    """Return the keys that a search with k equal to the corpus finds."""
    version = open_snapshot(folder / "store")
    searcher = Searcher(version, side, threads=1)
    query = np.zeros((1, searcher.dim), dtype=np.float32)
    query[0, 0] = 1.0
    _, ids = searcher.search(query, 1_000)
    return set(searcher.keys(ids[ids >= 0]))


def table_keys(folder: Path, table: str) -> set[str]:
    version = open_snapshot(folder / "store")
    return set(version.table(table, ["key"])["key"].to_pylist())


def test_a_week_of_changes(folder):
    """First unchanged; then images are added, removed and replaced, and a caption changes."""
    first = built(folder, images_of(range(COUNT)))
    assert side_of(first, "image") == ("trained", COUNT, 0)
    assert not built(folder, images_of(range(COUNT))).published

    added = built(folder, images_of(range(COUNT + 3)))
    assert side_of(added, "image") == ("extended", 3, 0)
    assert side_of(added, "text") == ("extended", 6, 0)

    removed = built(folder, images_of(range(1, COUNT + 3)))
    assert side_of(removed, "image") == ("extended", 0, 1)
    assert side_of(removed, "text") == ("extended", 0, 2)
    assert removed.manifest.indexes["image"].rows == COUNT + 3

    images = images_of(range(1, COUNT + 3))
    replaced = built(folder, images | {"001.jpg": 200})
    assert side_of(replaced, "image") == ("extended", 1, 1)

    captions = {name: [f"drawing {n}", f"a square {n}"] for name, n in images.items()}
    captions["005.jpg"] = ["something else entirely"]
    said = built(folder, images | {"001.jpg": 200}, captions)
    assert side_of(said, "text")[0] == "extended"
    assert side_of(said, "image")[:2] == ("kept", 0)

    for side, table in ((Modality.IMAGE, "images"), (Modality.TEXT, "captions")):
        assert names_of(folder, side) == table_keys(folder, table)
    layout = open_snapshot(folder / "store").layout
    assert check_golden(layout) == ()


def test_stages_run_one_by_one_extend_the_last_index(folder):
    """Versions of ``crawl`` and ``encode`` have no indexes, but the version before them has."""
    built(folder, images_of(range(COUNT)))
    for wanted in (("crawl",), ("encode",), ("crawl", "encode")):
        built(folder, images_of(range(1, COUNT + 3)), wanted=wanted)
    last = built(folder, images_of(range(1, COUNT + 3)), wanted=("index",))
    assert side_of(last, "image") == ("extended", 3, 1)
    assert side_of(last, "text") == ("extended", 6, 2)
    for side, table in ((Modality.IMAGE, "images"), (Modality.TEXT, "captions")):
        assert names_of(folder, side) == table_keys(folder, table)


def test_an_index_with_forgotten_vectors_is_not_extended(folder):
    built(folder, images_of(range(COUNT)))
    built(folder, images_of(range(COUNT + 1)), wanted=("crawl",))
    forget(folder / "store", ["folder/photos/007.jpg"], "forget")
    (folder / "photos" / "007.jpg").unlink()
    built(folder, images_of(n for n in range(COUNT) if n != 7), wanted=("crawl", "encode"))
    last = built(folder, images_of(n for n in range(COUNT) if n != 7), wanted=("index",))
    assert side_of(last, "image") == ("trained", COUNT - 1, 0)


def test_removed_images_are_in_no_evaluation_group_or_filter(folder):
    """Every image has two names at first, so that some names are removed but vectors stay."""
    twice = {f"again-{number}.jpg": number for number in range(COUNT)}
    built(folder, images_of(range(COUNT)) | {"x.jpg": 300, "y.jpg": 301} | twice)
    built(folder, images_of(range(3, COUNT)) | {"y.jpg": 301}, index__retrain_at=1.0)
    version = open_snapshot(folder / "store")
    made = version.manifest
    info = made.indexes["image"]
    assert info.n == COUNT - 2
    assert info.rows == COUNT + 2
    live = table_keys(folder, "images")
    rows = select_images(version, "width > 0")
    ids = ids_of(version, Modality.IMAGE, rows)
    searcher = Searcher(version, Modality.IMAGE, threads=1)
    assert set(searcher.keys(ids)) == live
    known = {f"{number:03d}.jpg" for number in range(3, COUNT)} | {"y.jpg"}
    for group in near_duplicates(version, 0.5):
        assert {member.image_id.rpartition("/")[2] for member in group.members} <= known
    evaluation = made.evaluation
    assert evaluation is not None
    assert evaluation["images"] == COUNT - 2
    fresh = folder / "fresh"
    whole = built(fresh, images_of(range(3, COUNT)) | {"y.jpg": 301}).manifest.evaluation
    assert whole is not None
    for figure in ("text_to_image", "image_to_text"):
        assert evaluation[figure] == whole[figure]


def test_a_corpus_without_captions_is_measured_without_removed_images(folder):
    built(folder, images_of(range(COUNT)), {}, index__kind="exact")
    made = built(folder, images_of(range(4, COUNT)), {}, index__kind="exact").manifest
    assert "removed/image" in [ref.name for ref in made.objects]
    assert made.evaluation is not None
    assert made.evaluation["index_recall@10"] == {"image": 100.0, "text": None}
    assert names_of(folder, Modality.IMAGE) == table_keys(folder, "images")
