"""Parts of an index are merged as if one process had filled it."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from mmindex.core.errors import InternalError
from mmindex.index import faissio
from mmindex.index.merge import merge
from support.faiss_forms import FORMS, NEW, POOL, N, blocks_of, trained

pytestmark = pytest.mark.slow
STEP = 500


def filled(form, cuts):
    """An index whose parts end at ``cuts``, filled in blocks of 500."""
    index = trained(form)
    for first, stop in zip([0, *cuts], [*cuts, N], strict=True):
        part = trained(form)
        for at in range(first, stop, STEP):
            ids = np.arange(at, min(at + STEP, stop))
            part.add_with_ids(POOL[ids].astype(np.float32), ids)
        merge(index, part)
    return index


def data_of(index):
    return faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cuts", [[], [1_500], [500, 1_000, 1_500, 2_000, 2_500], [0, 500]])
def test_merged_parts_have_the_bytes_of_one_go(form, cuts):
    assert data_of(filled(form, cuts)) == data_of(filled(form, []))


@pytest.mark.parametrize("form", ["IVF1,PQ8x4fs", "PCAR16,IVF1,PQ8x4fsr", "IVF1,RaBitQfs"])
@pytest.mark.parametrize("sizes", [(32, 32), (64, 5), (31, 33, 1), (32, 1, 31, 64), (1, 1, 62)])
def test_lists_that_end_with_a_full_block_are_appended_to(form, sizes):
    """A case in which faiss's own merge writes beyond the end of the list's memory."""
    index, whole, first = trained(form), trained(form), 0
    for size in sizes:
        part = trained(form)
        ids = np.arange(first, first + size)
        for one in (part, whole):
            one.add_with_ids(POOL[ids].astype(np.float32), ids)
        merge(index, part)
        first += size
    assert data_of(index) == data_of(whole)
    assert index.ntotal == first


@pytest.mark.parametrize("form", FORMS)
def test_after_a_merge_vectors_are_removed_and_added_as_in_an_index_filled_afresh(form):
    merged, fresh = filled(form, [500, 1_000, 2_500]), filled(form, [])
    queries = POOL[::50].astype(np.float32)
    for index in (merged, fresh):
        faissio.remove_vectors(index, np.arange(0, N, 3), N)
        faissio.add_vectors(index, blocks_of(np.arange(N, N + NEW)), 1)
        faissio.remove_vectors(index, np.arange(1, N, 30), N)
    answers = [faissio.find_candidates(one, queries, 20, 16) for one in (merged, fresh)]
    assert np.array_equal(*answers)
    assert data_of(merged) == data_of(fresh)


def test_parts_of_another_form_are_refused():
    with pytest.raises(InternalError, match="differ"):
        merge(trained("IVF16,Flat"), trained("IVF16,SQ8"))
