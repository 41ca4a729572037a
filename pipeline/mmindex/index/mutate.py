"""Taking vectors out of a FAISS index and putting others in, without training it again.

Two edges of faiss 1.15, both covered by tests:

- ``remove_ids`` moves a list's last code into the gap and leaves that code's bits behind the end.
  Array lists are cut there when written. Fast-scan lists (4 bits, blocks of 32) keep the bits, and
  ``add_with_ids`` later ORs the new code onto them: a few per cent of what is added would be stored
  under a wrong code. So the bits behind each list's end are cleared here. That also makes sure
  that nothing of a removed vector stays in the file.
- Indexes without lists shift the ids behind a gap, or cannot remove at all: they are built anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import InternalError
from mmindex.index.exact import faiss_settings, widen
from mmindex.index.faissio import ivf_part

Int64 = NDArray[np.int64]

# Forms whose removal and addition were verified, code by code.
_EXTENDABLE = (
    faiss.IndexIVFPQFastScan,
    faiss.IndexIVFPQ,
    faiss.IndexIVFFlat,
    faiss.IndexIVFScalarQuantizer,
)


def why_not(index: Any) -> str:
    """Why faiss cannot change this index in place; empty where it can."""
    inner = index
    if isinstance(index, faiss.IndexPreTransform):
        inner = faiss.downcast_index(index.index)
    if type(inner) not in _EXTENDABLE:  # a subclass may keep more than lists
        return f"{type(inner).__name__} cannot take vectors out"
    lists = faiss.downcast_InvertedLists(inner.invlists)
    if not isinstance(lists, faiss.ArrayInvertedLists | faiss.BlockInvertedLists):
        return f"{type(lists).__name__} cannot take vectors out"
    return ""


def remove(index: Any, ids: Int64, rows: int) -> None:
    """Take ids out of an index that :func:`why_not` has nothing against.

    Args:
        index: a CPU index.
        ids: int64, each once and in the index.
        rows: number of ids given out.

    Raises:
        InternalError: an id was not in the index.
    """
    if len(ids):
        mask = np.zeros(rows, dtype=np.bool_)
        mask[ids] = True
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        removed = index.remove_ids(selector)
        if removed != len(ids):
            raise InternalError(f"{removed} of {len(ids)} ids were in the index")
    _clear_behind_ends(index)


def add(
    index: Any,
    blocks: Iterable[tuple[Int64, NDArray[np.float16]]],
    threads: int,
) -> None:
    """Put vectors in: blocks of (int64 (m,) ids, float16 (m, dim))."""
    with faiss_settings(threads, index.d):
        for ids, block in blocks:
            index.add_with_ids(widen(block), ids)


def _clear_behind_ends(index: Any) -> None:
    """Zero what fast-scan lists hold behind their last code."""
    ivf = ivf_part(index)
    lists = faiss.downcast_InvertedLists(ivf.invlists) if ivf is not None else None
    if not isinstance(lists, faiss.BlockInvertedLists):
        return
    masks = _code_masks(lists)
    for number in range(int(lists.nlist)):
        whole, rest = divmod(int(lists.list_size(number)), int(lists.n_per_block))
        if rest:
            size = int(lists.block_size)
            codes = faiss.rev_swig_ptr(lists.get_codes(number), (whole + 1) * size)
            codes[whole * size :] &= masks[rest]


def _code_masks(lists: Any) -> NDArray[np.uint8]:
    """The bits of a block's first 0, 1, 2, ... codes: uint8 (codes + 1, bytes of a block)."""
    packer = lists.packer
    ones = np.full(packer.code_size, 0xFF, dtype=np.uint8)
    masks = np.zeros((int(lists.n_per_block) + 1, int(lists.block_size)), dtype=np.uint8)
    for place in range(int(lists.n_per_block)):
        block = np.zeros((1, masks.shape[1]), dtype=np.uint8)
        packer.pack_1(ones, place, block)
        masks[place + 1] = masks[place] | block[0]
    return masks
