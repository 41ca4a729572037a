"""Text queries with a correction of hubness, with everything else that a query can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import mmindex
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.models.encoder import Float32
from mmindex.search.hits import Limit
from mmindex.search.hubness import HUBNESS, read_hubness
from mmindex.search.opened import Opened
from mmindex.search.query import Session
from mmindex.store.snapshot import Snapshot, open_snapshot
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget
from mmindex.upkeep.rollback import rollback
from support.fakestore import fake_model
from support.models import FakeEncoder
from support.vectors import write_clip_retrieval, write_npy

ROWS, DIM, HUBS, COPIES = 400, 64, 20, 30
ALL = Limit(ROWS)
ASKED = [f"caption {n}" for n in range(HUBS, HUBS + 25)]


def vectors() -> tuple[Float32, Float32]:
    """Images and captions of unit length.

    The first images are near to all captions, and the last ones are almost equal to those before.
    """
    rng = np.random.default_rng(5)
    common = rng.normal(size=DIM)
    images = rng.normal(size=(ROWS, DIM))
    texts = images + 0.1 * rng.normal(size=(ROWS, DIM)) + rng.normal(size=(ROWS, DIM)) + common
    images[:HUBS] += 2.5 * common
    images[-COPIES:] = images[-2 * COPIES : -COPIES] + 0.003 * rng.normal(size=(COPIES, DIM))
    sides = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts))
    first, second = (side.astype(np.float16).astype(np.float32) for side in sides)
    return first, second


@dataclass(slots=True)
class Speaker(FakeEncoder):
    """A model that returns the stored vector of a caption."""

    dim: int = DIM

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        found: Float32 = vectors()[1][[int(text.removeprefix("caption ")) for text in texts]]
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def build(root: Path, **settings: str) -> None:
    with fake_model(Speaker()):
        mmindex.build(root, [f"embeddings:{root.parent / 'v'}"], **settings)


def write(folder: Path) -> Path:
    place = write_clip_retrieval(folder / "v", rows=ROWS)
    for side, found in zip(("img", "text"), vectors(), strict=True):
        write_npy(place / f"{side}_emb" / f"{side}_emb_0.npy", found.astype(np.float16))
    return folder / "s"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write(tmp_path_factory.mktemp("hubs"))
    build(root, hubness="auto")
    return root


def answers(root: Path, limit: Limit, where: str | None = None) -> list[tuple[Hit, ...]]:
    with Session(Opened(open_snapshot(root), Speaker)) as session:
        found = session.filtered(where).texts(ASKED, Modality.IMAGE, limit)
    return [one.hits for one in found]


def named(number: int) -> str:
    return f"embeddings/v/{number:09d}"


def ids(found: Sequence[Hit]) -> list[str]:
    return [hit.image_id for hit in found]


def biases(snapshot: Snapshot) -> dict[str, float]:
    found = read_hubness(snapshot)
    assert found is not None
    at = snapshot.row_ids(Modality.IMAGE)
    names = snapshot.table("images", ["image_id"])["image_id"].to_pylist()
    return dict(zip(names, found.bias[at].tolist(), strict=True))


def test_hits_have_cosines_and_are_ranked_by_cosine_minus_bias(store: Path) -> None:
    bias = biases(open_snapshot(store))
    for found in answers(store, ALL):
        values = [hit.score - bias[hit.image_id] for hit in found]
        assert len(found) == ROWS
        assert values == pytest.approx(sorted(values, reverse=True), abs=2e-6)
        scores = [hit.score for hit in found]
        assert scores != sorted(scores, reverse=True)
        assert [hit.rank for hit in found] == [*range(1, ROWS + 1)]


def test_a_lowest_score_leaves_out_hits_and_keeps_the_order(store: Path) -> None:
    for found, whole in zip(answers(store, Limit(ROWS, 0.3)), answers(store, ALL), strict=True):
        kept = [hit for hit in whole if hit.score >= 0.3]
        assert 0 < len(kept) < ROWS
        assert ids(found) == ids(kept)


def test_a_lowest_score_can_leave_nothing(store: Path) -> None:
    assert answers(store, Limit(5, 0.999)) == [()] * len(ASKED)


def test_a_condition_leaves_out_hits_and_keeps_the_order(store: Path) -> None:
    some = answers(store, Limit(20), "width % 3 = 0")  # the width is 100 + the number of the row
    allowed = {named(number) for number in range(ROWS) if (100 + number) % 3 == 0}
    for found, whole in zip(some, answers(store, ALL), strict=True):
        assert ids(found) == [one for one in ids(whole) if one in allowed][:20]


def test_distinct_leaves_out_near_duplicates_of_better_hits(store: Path) -> None:
    distinct = answers(store, Limit(ROWS, distinct=True))
    for found, whole in zip(distinct, answers(store, ALL), strict=True):
        kept = ids(found)
        assert len(kept) == ROWS - COPIES
        # The better one of each pair stays, and the order of the others does not change.
        order = {one: place for place, one in enumerate(ids(whole))}
        assert [order[one] for one in kept] == sorted(order[one] for one in kept)
        for number in range(ROWS - COPIES, ROWS):
            pair = sorted((named(number), named(number - COPIES)), key=order.__getitem__)
            assert pair[0] in kept
            assert pair[1] not in kept
        assert sum(hit.copies or 0 for hit in found) == COPIES


def test_good_leaves_out_weak_hits(store: Path) -> None:
    left_out = 0
    for found, whole in zip(answers(store, Limit(30, good=True)), answers(store, Limit(30)),
                            strict=True):  # fmt: skip
        assert all(hit.probability is not None for hit in whole)
        assert ids(found) == [hit.image_id for hit in whole if not hit.weak]
        left_out += len(whole) - len(found)
    assert left_out


@pytest.mark.slow
def test_forgotten_images_leave_the_correction(tmp_path: Path) -> None:
    root = write(tmp_path)
    build(root, hubness="auto")
    before = biases(open_snapshot(root))
    gone = [named(number) for number in range(0, ROWS, 4)]
    forget(root, gone, "20260101T000000-forget")
    after = biases(open_snapshot(root))
    assert after.keys() == before.keys() - {*gone}
    assert after != {name: before[name] for name in after}  # of the captions that are left
    for found in answers(root, ALL):
        assert len(found) == ROWS - len(gone)
        assert not {*gone} & {*ids(found)}
    assert check(root, full=True).problems == ()


@pytest.mark.slow
def test_the_correction_goes_with_the_version(tmp_path: Path) -> None:
    root = write(tmp_path)
    build(root)
    plain = answers(root, ALL)
    for found in plain:
        scores = [hit.score for hit in found]
        assert scores == sorted(scores, reverse=True)
    build(root, hubness="auto")
    corrected = answers(root, ALL)
    assert [ids(found) for found in corrected] != [ids(found) for found in plain]
    for number, (expected, has) in enumerate([(plain, False), (corrected, True)], start=1):
        rollback(root, number, f"20260101T00000{number}-back")
        assert (open_snapshot(root).manifest.find(HUBNESS) is not None) == has
        assert answers(root, ALL) == expected
