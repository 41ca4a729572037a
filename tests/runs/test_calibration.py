"""A version keeps its calibration while its index stays the same, and gets a new one with it."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmindex
from mmindex.core.modality import Modality
from mmindex.runs.run import run
from mmindex.runs.settings import settings
from mmindex.search.calibration import CALIBRATION, read_calibrations
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.snapshot import open_snapshot
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget

pytestmark = pytest.mark.slow


def current(root: Path) -> Manifest:
    found = versions.read_current(Layout(root))
    assert found is not None
    return found


def test_a_calibration_lives_as_long_as_the_index_that_it_was_fitted_to(tmp_path: Path) -> None:
    root = tmp_path / "store"
    mmindex.build(root, sources=["scenes:120"], workers=0)
    first = current(root)
    assert first.require(CALIBRATION).rows == 2
    assert first.evaluation is not None
    assert first.evaluation["reliability"]["text_to_image"]["queries"] > 0

    mmindex.build(root, sources=["scenes:120"], workers=0)  # nothing changed
    run(root, settings(root, None, {}), "index-alone", ["index"])
    assert current(root) == first

    with mmindex.open(root) as index:
        [best] = index.search("a red boat", k=1)
        assert best.probability is not None
        assert best.weak is not None
        gone = index.search("a red boat", k=3)[1].id

    forget(root, [gone], "forgotten")
    after = current(root)
    assert after.require(CALIBRATION) != first.require(CALIBRATION)
    assert after.evaluation is not None
    assert check(root, full=True).problems == ()

    mmindex.build(root, sources=["scenes:90"], max_removed=1.0, workers=0)  # another corpus
    run(root, settings(root, None, {}), "index-again", ["index"])
    known = read_calibrations(open_snapshot(root))
    assert [one.asked for one in known] == [Modality.TEXT, Modality.IMAGE]

    mmindex.build(root, sources=["scenes:30"], max_removed=1.0, workers=0)
    assert current(root).find(CALIBRATION) is None
