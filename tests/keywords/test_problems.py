"""``check`` compares the keyword index with the tables."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import mmindex
from mmindex.core.errors import NoInputError
from mmindex.keywords.build import keyword_problems
from mmindex.keywords.names import SEGMENTS, SUMMARY
from mmindex.keywords.postings import SegmentBuilder, segment_name, write_segment
from mmindex.keywords.summary import Summary, read_summary, write_summary
from mmindex.store.manifest import ObjectRef
from mmindex.store.snapshot import Snapshot, open_snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    root = tmp_path_factory.mktemp("check") / "store"
    mmindex.build(root, sources=["scenes:20"], workers=0)
    return open_snapshot(root)


def with_part(snapshot: Snapshot, ref: ObjectRef) -> Snapshot:
    """The version with another object of the same name."""
    manifest = snapshot.manifest
    objects = tuple(ref if one.name == ref.name else one for one in manifest.objects)
    assert objects != manifest.objects
    return Snapshot(snapshot.objects, msgspec.structs.replace(manifest, objects=objects))


def test_an_index_as_built_has_no_problems(snapshot: Snapshot) -> None:
    assert list(keyword_problems(snapshot)) == []


def test_words_of_other_texts_are_a_problem(snapshot: Snapshot) -> None:
    ref = write_segment(snapshot.objects, 0, SegmentBuilder().table(), "other texts")
    assert ref.name == segment_name(0)
    assert ref.name.startswith(SEGMENTS)
    assert list(keyword_problems(with_part(snapshot, ref))) == [
        f"{ref.name} was built from other texts",
        "the numbers of words of the images differ from the postings",
    ]


def test_other_lengths_are_a_problem(snapshot: Snapshot) -> None:
    summary = read_summary(snapshot)
    ref = write_summary(
        snapshot.objects, Summary(summary.inputs, summary.weights, summary.lengths + np.uint32(1))
    )
    assert ref.name == SUMMARY
    [problem] = keyword_problems(with_part(snapshot, ref))
    assert "numbers of words" in problem


def test_an_index_of_another_version_is_refused(snapshot: Snapshot) -> None:
    summary = read_summary(snapshot)
    ref = write_summary(snapshot.objects, Summary("other", summary.weights, summary.lengths))
    with pytest.raises(NoInputError, match="older version"):
        list(keyword_problems(with_part(snapshot, ref)))
