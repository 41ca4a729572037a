"""Composed queries: the vector is that of the formula, and weights have their effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.core.errors import UsageError
from mmindex.search.fusion import AWAY, fuse, parse_weights, part_weights


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


EAST, NORTH = unit(1, 0, 0), unit(0, 1, 0)


def test_equal_parts_are_averaged():
    fused = fuse(np.stack([EAST, NORTH]), part_weights(2, 0, None))
    assert fused == pytest.approx([2**-0.5, 2**-0.5, 0])
    assert fused.dtype == np.float32


def test_weights_pull_the_query():
    # 3 east + 1 north has length sqrt(10).
    fused = fuse(np.stack([EAST, NORTH]), part_weights(2, 0, [0.75, 0.25]))
    assert fused == pytest.approx([3 / 10**0.5, 1 / 10**0.5, 0])


def test_unwanted_parts_push_the_query_away():
    fused = fuse(np.stack([EAST, NORTH]), part_weights(1, 1, None))
    assert fused == pytest.approx(unit(1, -AWAY, 0))


def test_a_single_part_is_unchanged():
    vector = unit(0.1, 0.2, 0.3)
    assert fuse(vector[None], part_weights(1, 0, [7.0])) is not None
    assert fuse(vector[None], part_weights(1, 0, [7.0])).tobytes() == vector.tobytes()


def test_only_ratios_of_weights_matter_however_small():
    fused = fuse(np.stack([EAST, NORTH]), part_weights(2, 0, [3e-320, 1e-320]))
    assert fused == pytest.approx([0.9487, 0.3162, 0], abs=1e-3)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 1e7])
def test_a_weight_is_a_positive_number_of_sensible_size(bad):
    with pytest.raises(UsageError, match="must be positive and at most"):
        part_weights(2, 1, [1.0, bad, 1.0])


def test_parts_that_cancel_out_are_refused():
    with pytest.raises(UsageError, match="cancel"):
        fuse(np.stack([EAST, EAST]), (1.0, -1.0))


@pytest.mark.parametrize(
    ("wanted", "unwanted", "given_", "expected"),
    [
        (1, 0, None, (1.0,)),
        (2, 0, None, (0.5, 0.5)),
        (4, 2, None, (0.25, 0.25, 0.25, 0.25, -AWAY / 2, -AWAY / 2)),
        (2, 1, [0.6, 0.4], (0.6, 0.4, -AWAY)),
        (2, 1, [3.0, 1.0, 0.2], (3.0, 1.0, -0.2)),
    ],
)
def test_weights_are_one_for_each_part_or_one_for_each_wanted_part(
    wanted, unwanted, given_, expected
):
    assert part_weights(wanted, unwanted, given_) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wanted", "unwanted", "given_"),
    [
        (2, 0, [1.0]),
        (1, 0, [1.0, 1.0]),
        (2, 2, [1, 1, 1]),
        (1, 0, [-1.0]),
        (1, 0, [0.0]),
        (1, 0, [float("nan")]),
        (1, 0, [float("inf")]),
    ],
)
def test_weights_that_do_not_fit_are_refused(wanted, unwanted, given_):
    with pytest.raises(UsageError, match="`weights"):
        part_weights(wanted, unwanted, given_)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1;2", "0.5,"])
def test_weights_that_are_not_numbers_are_refused(text):
    with pytest.raises(UsageError, match="`weights"):
        parse_weights(text)


def test_weights_are_read_from_text():
    assert parse_weights("0.6, 0.4") == (0.6, 0.4)


@given(
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
    unwanted=st.integers(0, 3),
    scale=st.floats(0.1, 100),
)
def test_ranking_is_that_of_the_weighted_sum_of_cosines(seed, weights, unwanted, scale):
    """One search with the fused vector ranks like adding the scores of many searches."""
    rng = np.random.default_rng(seed)
    count = len(weights) + unwanted
    parts = rng.normal(size=(count, 32)).astype(np.float32)
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    corpus = rng.normal(size=(50, 32))
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    factors = part_weights(len(weights), unwanted, weights)
    fused = fuse(parts, factors)
    summed = (np.array(factors) @ parts) @ corpus.T
    length = np.linalg.norm(np.array(factors) @ parts)
    assert corpus @ fused == pytest.approx(summed / length, abs=1e-5)
    assert np.linalg.norm(fused) == pytest.approx(1, abs=1e-6)
    # Only ratios matter.
    again = fuse(parts, [factor * scale for factor in factors])
    assert again == pytest.approx(fused, abs=1e-6) or count == 1
