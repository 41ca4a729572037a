"""Golden answers: an intact index with different answers is also detected."""

import msgspec
import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.search.golden import check_golden, write_golden
from mmindex.store import versions
from support.clustered import clustered
from support.index_stores import indexed

VECTORS = clustered(200, 16)
BACKWARDS = range(len(VECTORS) - 1, -1, -1)


def publish(snapshot, golden=()):
    made = snapshot.manifest
    versions.publish_version(
        snapshot.objects, msgspec.structs.replace(made, objects=(*made.objects, *golden))
    )
    return snapshot.layout


def answers_of(snapshot):
    return write_golden(snapshot, "image", VECTORS[:5].astype(np.float32))


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_the_same_index_returns_its_golden_answers(kind, tmp_path):
    snapshot = indexed(tmp_path, VECTORS, IndexConfig(kind=kind, threads=1))
    assert check_golden(publish(snapshot, [answers_of(snapshot)])) == ()


def test_answers_that_changed_are_counted(tmp_path):
    snapshot = indexed(tmp_path, VECTORS, IndexConfig())
    other = indexed(tmp_path, VECTORS, IndexConfig(), order=BACKWARDS)
    layout = publish(snapshot, [answers_of(other)])
    assert check_golden(layout) == ("image index: 5 golden queries return other answers",)


def test_a_version_without_its_golden_answers_is_a_problem(tmp_path):
    [problem] = check_golden(publish(indexed(tmp_path, VECTORS, IndexConfig())))
    assert "golden/image" in problem


def test_a_store_without_a_version_has_no_problems(tmp_path):
    assert check_golden(versions.create_layout(tmp_path / "store")) == ()
