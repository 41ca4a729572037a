"""Hits have probabilities, which change neither ranks nor scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.core.errors import DataError, NoInputError
from mmindex.core.modality import Modality
from mmindex.core.records import Hit, all_weak
from mmindex.search.calibration import CONTEXT, Calibration, read_calibrations, share_logits
from mmindex.search.hits import Limit
from mmindex.search.parts import Part, Question
from mmindex.search.query import Session
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import Snapshot
from support.calibrating import DIM, CaptionEncoder, calibrated, captioned, unit
from support.clustered import clustered
from support.index_stores import indexed
from support.stores import reopened

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
PLAIN = Calibration(
    asked=TEXT,
    to=IMAGE,
    temperature=0.05,
    answered=(-10.0, 20.0),
    chosen=(0.0, 1.0),
    best=0.5,
    gap=0.1,
    flat=0.4,
    queries=100,
    images=50,
)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return calibrated(captioned(tmp_path_factory.mktemp("store") / "s", 300))


def session_of(snapshot: Snapshot) -> Session:
    return Session(snapshot, lambda: CaptionEncoder(snapshot))


def plain(hits: tuple[Hit, ...]) -> list[tuple[int, float, str]]:
    return [(hit.rank, hit.score, hit.id) for hit in hits]


@pytest.mark.parametrize("limit", [Limit(1), Limit(10), Limit(80), Limit(10, distinct=True)])
def test_ranks_and_scores_are_those_without_a_calibration(
    snapshot: Snapshot, limit: Limit, tmp_path: Path
) -> None:
    texts = [f"caption {n}" for n in range(0, 600, 40)]
    judged = session_of(snapshot).texts(texts, IMAGE, limit)
    before = session_of(captioned(tmp_path / "s", 300)).texts(texts, IMAGE, limit)
    for one, other in zip(judged, before, strict=True):
        assert plain(one.hits) == plain(other.hits)
        assert all(hit.probability is None and hit.weak is None for hit in other.hits)
        assert all(0 <= hit.probability <= 1 for hit in one.hits)  # type: ignore[operator]
        falling = [hit.probability for hit in one.hits]
        assert falling == sorted(falling, reverse=True)  # type: ignore[type-var]


def test_the_number_of_hits_does_not_change_their_probabilities(snapshot: Snapshot) -> None:
    session = session_of(snapshot)
    many, few = (session.text("caption 7", IMAGE, Limit(k)).hits for k in (120, 3))
    assert [hit.probability for hit in many[:3]] == [hit.probability for hit in few]
    distinct = session.text("caption 7", IMAGE, Limit(3, distinct=True)).hits
    assert distinct[0].probability == few[0].probability


def test_good_keeps_the_hits_that_are_not_weak(snapshot: Snapshot) -> None:
    session = session_of(snapshot)
    for number in range(0, 600, 60):
        every = session.text(f"caption {number}", IMAGE, Limit(20)).hits
        good = session.text(f"caption {number}", IMAGE, Limit(20, good=True)).hits
        assert good == tuple(hit for hit in every if not hit.weak)


def test_only_single_texts_and_images_of_the_other_side_are_judged(snapshot: Snapshot) -> None:
    session = session_of(snapshot)
    assert session.text("caption 1", TEXT, Limit(3)).hits[0].probability is None
    captions = session.image("id/1", TEXT, Limit(3)).hits
    assert captions[0].probability is not None
    assert session.image("id/1", IMAGE, Limit(3)).hits[0].probability is None
    vector = Part(IMAGE, "a vector", unit(np.ones((1, DIM)))[0])
    assert session.ask(Question((vector,)), IMAGE, Limit(3)).hits[0].weak is None


def test_good_without_a_calibration_is_an_error(snapshot: Snapshot) -> None:
    with pytest.raises(NoInputError, match="weak hits are not known"):
        session_of(snapshot).image("id/1", IMAGE, Limit(3, good=True))
    with pytest.raises(NoInputError, match="weak hits are not known"):
        session_of(snapshot).text("caption 1", TEXT, Limit(3, good=True))


def test_a_damaged_calibration_is_reported_as_any_object(tmp_path: Path) -> None:
    snapshot = calibrated(captioned(tmp_path / "s", 300))
    ref = snapshot.manifest.require("calibration")
    path = snapshot.layout.object(ref.sha256)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=ref.sha256[:12]):
        session_of(reopened(snapshot)).text("caption 1", IMAGE, Limit(3))


def test_an_older_version_has_no_calibrations(tmp_path: Path) -> None:
    assert read_calibrations(captioned(tmp_path / "s", 60)) == ()


def test_equal_scores_share_the_probability() -> None:
    context = np.array([[0.8] * 4 + [-np.inf] * (CONTEXT - 4)])
    found = PLAIN.probabilities(context, context)[0]
    answered = 1 / (1 + np.exp(10 - 20 * 0.8))
    np.testing.assert_allclose(found[:4], answered / 4)
    assert (found[4:] == 0).all()


def test_a_hit_is_weak_by_the_best_score_or_by_its_distance() -> None:
    context = np.array([[0.8, 0.6, 0.4], [0.55, 0.46, 0.44], [0.49, 0.48, 0.3]])
    weak = PLAIN.weak(context, context)
    assert weak.tolist() == [[False, False, True], [False, False, True], [True, True, True]]


@pytest.mark.parametrize("scores", [[1.0], [-1.0, -1.0], [0.0] * 50, [1.0, -1.0], []])
def test_any_scores_give_finite_probabilities(scores: list[float]) -> None:
    context = np.full((1, CONTEXT), -np.inf)
    context[0, : len(scores)] = scores
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(share_logits(np.array([scores or [0.0]]), context, 0.005)).all()
        assert np.isfinite(PLAIN.probabilities(context, context)).all()
    assert PLAIN.judge((), context[0]) == ()


def test_no_hits_are_not_weak_hits() -> None:
    assert not all_weak([])
    assert all_weak([Hit(1, 0.1, "a", "/a", None, "a", weak=True)])
    assert not all_weak([Hit(1, 0.1, "a", "/a", None, "a")])


@pytest.mark.parametrize("kind", ["exact", "ivfpq", "PQ24x4fs"])
def test_more_columns_do_not_change_the_first_ones(kind: str, tmp_path: Path) -> None:
    rows = clustered(4_200, 48)
    snapshot = indexed(tmp_path, rows[:4_000], IndexConfig(kind=kind, threads=1))
    searcher = Searcher(snapshot, "image", threads=1)
    queries = rows[4_000:].astype(np.float32)
    allowed = np.arange(0, 4_000, 3)
    for ids in (None, allowed, allowed[:4]):
        for k in (1, 10, 70):
            scores, found = searcher.search(queries, k, ids)
            more_scores, more = searcher.search(queries, k, ids, context=CONTEXT)
            assert more.shape[1] == max(k, CONTEXT)
            np.testing.assert_array_equal(more[:, :k], found)
            np.testing.assert_array_equal(more_scores[:, :k], scores)
            assert (np.diff(np.nan_to_num(more_scores, neginf=-9.0), axis=1) <= 0).all()
