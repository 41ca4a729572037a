"""The best and worst queries, and speeds, of a real store of coloured images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.evaluate.directions import Direction
from mmindex.evaluate.history import MOST_VERSIONS, past_versions
from mmindex.evaluate.speed import measure_speed
from mmindex.evaluate.stage import Measured, measure
from mmindex.pages.showcase import best_queries, showcase, worst_queries
from mmindex.store import versions
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store


def direction(ranks: list[int], images: list[int], lead: list[float]) -> Direction:
    n = len(ranks)
    return Direction(
        rows=np.arange(n),
        images=np.array(images),
        ranks=np.array(ranks),
        index_ranks=np.array(ranks),
        right_row=np.arange(n),
        right_score=np.array(lead),
        wrong_id=np.zeros(n, dtype=np.int64),
        wrong_score=np.zeros(n),
        index_recall=None,
        sampled=False,
    )


def test_best_are_first_by_the_largest_lead_and_worst_the_farthest_down() -> None:
    asked = direction([1, 1, 9, 4, 1], [0, 1, 2, 3, 4], [0.1, 0.3, -0.2, -0.1, 0.2])
    assert best_queries(asked, 2).tolist() == [1, 4]
    assert worst_queries(asked, 5).tolist() == [2, 3]


def test_no_two_queries_of_one_image_are_shown() -> None:
    asked = direction([7, 8, 2], [5, 5, 6], [0, 0, 0])
    assert worst_queries(asked, 3).tolist() == [1, 2]


@pytest.fixture
def store(tmp_path: Path) -> Snapshot:
    """Five images of five colours; the caption of image 1 (green) says red."""
    paths = write_pngs(tmp_path / "p", 5)
    images = {f"i{n}": path for n, path in enumerate(paths)}
    captions = [(image_id, f"a {COLOURS[n]} square") for n, image_id in enumerate(images)]
    captions[1] = ("i1", "a red half \ud83d of a thing")
    image_store(tmp_path / "s", images, captions, FakeEncoder())
    return open_snapshot(tmp_path / "s")


def measured(store: Snapshot) -> Measured:
    return measure(store, EvaluateConfig())


def test_the_worst_query_is_shown_with_its_own_image_and_the_first_hit(
    store: Snapshot,
) -> None:
    found = measured(store)
    assert found.text_to_image is not None
    shown = showcase(store, found.corpus, found.text_to_image, to_image=True, count=3)
    [worst] = shown.worst
    assert worst.query.text == "a red half \ud83d of a thing"
    assert (worst.right.id, worst.rank > 1) == ("i1", True)
    assert worst.wrong is not None
    assert worst.wrong.id == "i0"
    assert worst.wrong.score > worst.right.score
    assert worst.right.thumb is not None
    assert worst.right.thumb.address.startswith("data:image/jpeg")
    assert len(shown.best) == 3
    assert all(one.rank == 1 for one in shown.best)
    assert worst.query.text not in [one.query.text for one in shown.best]


def test_images_ask_for_captions_in_the_other_direction(store: Snapshot) -> None:
    found = measured(store)
    assert found.image_to_text is not None
    shown = showcase(store, found.corpus, found.image_to_text, to_image=False, count=1)
    [worst] = shown.worst
    assert (worst.query.id, worst.right.id) == ("i1", "i1#0")
    assert worst.right.text == "a red half \ud83d of a thing"
    assert worst.query.thumb is not None


def test_exact_search_is_a_single_point_with_full_recall(store: Snapshot) -> None:
    found = measured(store)
    assert found.corpus.captions is not None
    asked = found.corpus.captions.vectors
    speed = measure_speed(store, Modality.IMAGE, asked, 0)
    [point] = speed.points
    assert (point.recall, point.chosen, point.cost_ms, speed.batch) == (100.0, True, None, 5)
    assert point.queries_per_s > 0


def test_the_newest_versions_are_shown_oldest_first(store: Snapshot) -> None:
    manifest = store.manifest
    for number in range(2, MOST_VERSIONS + 4):
        manifest = msgspec.structs.replace(manifest, version=number, parent=number - 1)
        versions.publish_version(store.objects, manifest)
    found = past_versions(replace(store, manifest=manifest), measured(store).evaluation)
    assert [past.version for past in found] == list(range(4, MOST_VERSIONS + 4))
    assert found[0].evaluation is None
    assert found[-1].evaluation is not None
