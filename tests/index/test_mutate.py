"""Vectors are removed from and added to FAISS indexes; the codes equal those of new indexes."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from mmindex.core.errors import InternalError
from mmindex.index import faissio
from mmindex.index.faissio import find_candidates, ivf_part
from support.faiss_forms import DIM, FAST_SCAN, FORMS, NEW, POOL, N, blocks_of, trained

pytestmark = pytest.mark.slow
REFUSED = ["PQ8x4fs", "SQ8", "Flat", "HNSW8", "IDMap,Flat", "IVF16,FlatDedup", "PCAR16,SQ8"]


def stored(index):
    """Return every id with its list and its code."""
    ivf = ivf_part(index)
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    found = {}
    for number in range(ivf.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
        if isinstance(lists, faiss.BlockInvertedLists):
            whole = -(-size // lists.n_per_block) * lists.block_size
            data = faiss.rev_swig_ptr(lists.get_codes(number), whole)
            data = data.reshape(-1, lists.block_size)
            codes = [lists.packer.unpack_1(data, place) for place in range(size)]
        else:
            data = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            codes = data.reshape(size, lists.code_size)
        for name, code in zip(ids.tolist(), codes, strict=True):
            assert name not in found
            found[name] = (number, code.tobytes())
    return found


@pytest.mark.parametrize("form", FORMS)
def test_an_index_changed_in_place_equals_a_newly_filled_one(form):
    """Also after many rounds; without the workaround, a few per cent would have wrong codes."""
    rng = np.random.default_rng(1)
    index = trained(form)
    empty = faiss.serialize_index(index)
    index.add_with_ids(POOL[:N].astype(np.float32), np.arange(N))
    live = np.arange(N)
    for first in range(N, N + NEW, 60):
        gone = np.sort(rng.choice(live, 100, replace=False))
        fresh = np.arange(first, first + 60)
        index = faiss.deserialize_index(faiss.serialize_index(index))
        assert not faissio.why_not_changeable(index)
        faissio.remove_vectors(index, gone, first)
        faissio.add_vectors(index, blocks_of(fresh), 1)
        live = np.concatenate([np.setdiff1d(live, gone), fresh])
    same = faiss.deserialize_index(empty)
    same.add_with_ids(POOL[live].astype(np.float32), live)
    assert stored(index) == stored(same)
    assert index.ntotal == len(live)
    queries = POOL[:50].astype(np.float32)
    found = find_candidates(index, queries, len(live), 16)
    assert set(np.unique(found)) <= {-1, *live.tolist()}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_of_a_removed_vector_stays_in_the_file(form):
    """An emptied index equals the empty index, byte for byte."""
    index = trained(form)
    empty = faiss.serialize_index(index)
    index.add_with_ids(POOL[:N].astype(np.float32), np.arange(N))
    faissio.remove_vectors(index, np.arange(0, N, 2), N)
    faissio.remove_vectors(index, np.arange(1, N, 2), N)
    assert faiss.serialize_index(index).tobytes() == empty.tobytes()


@pytest.mark.parametrize("form", FAST_SCAN)
def test_bits_after_the_end_of_a_list_are_zero(form):
    index = trained(form)
    index.add_with_ids(POOL[:N].astype(np.float32), np.arange(N))
    faissio.remove_vectors(index, np.arange(0, N, 7), N)
    lists = faiss.downcast_InvertedLists(ivf_part(index).invlists)
    ends = 0
    for number in range(lists.nlist):
        size = lists.list_size(number)
        whole = -(-size // lists.n_per_block)
        data = faiss.rev_swig_ptr(lists.get_codes(number), whole * lists.block_size)
        data = data.reshape(-1, lists.block_size)
        for place in range(size, whole * lists.n_per_block):
            assert not lists.packer.unpack_1(data, place).any()
            ends += 1
    assert ends


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_change_gives_the_same_bytes(threads):
    index = trained(FORMS[0])
    index.add_with_ids(POOL[:N].astype(np.float32), np.arange(N))
    before = faiss.serialize_index(index)
    made = []
    for _ in range(2):
        index = faiss.deserialize_index(before)
        faissio.remove_vectors(index, np.arange(0, N, 5), N)
        faissio.add_vectors(index, blocks_of(np.arange(N, N + NEW)), threads)
        made.append(faiss.serialize_index(index).tobytes())
    assert made[0] == made[1]


@pytest.mark.parametrize("form", REFUSED)
def test_forms_that_shift_ids_or_cannot_remove_are_refused(form):
    index = faiss.index_factory(DIM, form, faiss.METRIC_INNER_PRODUCT)
    assert "cannot remove vectors" in faissio.why_not_changeable(index)


def test_a_missing_id_is_a_bug():
    index = trained("IVF16,Flat")
    index.add_with_ids(POOL[:100].astype(np.float32), np.arange(100))
    with pytest.raises(InternalError, match="1 of 2"):
        faissio.remove_vectors(index, np.array([5, 150]), 200)
