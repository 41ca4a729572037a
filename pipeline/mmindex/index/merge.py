"""Merge an index that was filled from a part of the vectors into another, list by list.

Both come from the same trained, empty index. If the parts are merged in the order of their ids,
the result is byte-identical to an index that one process filled.

Two faults of faiss 1.15 for fast-scan lists (4 bits, blocks of 32 codes), both covered by tests:

- ``merge_from`` copies too many blocks to a list that ends with a full block, and writes beyond
  the end of its memory. These lists are appended to here.
- It leaves bits behind the end of a list, with which ``add_with_ids`` later combines new codes.
  They are cleared after each merge.
"""

from __future__ import annotations

from typing import Any

import faiss

from mmindex.core.errors import InternalError
from mmindex.index.faissio import clear_behind_ends, ivf_part


def merge(index: Any, part: Any) -> None:
    """Move the vectors of ``part`` to the end of ``index``; they keep their ids.

    Do not use ``part`` afterwards.

    Args:
        index: a CPU index for which :func:`mmindex.index.faissio.why_not_changeable` is empty.
        part: an index from the same training.

    Raises:
        InternalError: the two indexes have different structures.
    """
    ivf: Any = ivf_part(index)
    other: Any = ivf_part(part)
    if ivf is None or type(ivf) is not type(other) or ivf.nlist != other.nlist:
        raise InternalError("parts of an index differ in their form")
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    if isinstance(lists, faiss.BlockInvertedLists):
        added = faiss.downcast_InvertedLists(other.invlists)
        for number in range(int(lists.nlist)):
            if int(added.list_size(number)):
                _append(lists, added, number)
        ivf.ntotal += other.ntotal
        clear_behind_ends(index)
    else:
        ivf.merge_from(other, 0)
    index.ntotal = ivf.ntotal  # a transform in front of it has its own count


def _append(lists: Any, added: Any, number: int) -> None:
    """Append one list to the list with the same number."""
    size, more = int(lists.list_size(number)), int(added.list_size(number))
    per_block, block_bytes = int(lists.n_per_block), int(lists.block_size)
    whole, rest = divmod(size, per_block)
    if rest:
        lists.add_entries(number, more, added.get_ids(number), added.get_codes(number))
        return
    lists.resize(number, size + more)
    new_bytes = -(-more // per_block) * block_bytes
    codes = faiss.rev_swig_ptr(lists.get_codes(number), whole * block_bytes + new_bytes)
    codes[whole * block_bytes :] = faiss.rev_swig_ptr(added.get_codes(number), new_bytes)
    ids = faiss.rev_swig_ptr(lists.get_ids(number), size + more)
    ids[size:] = faiss.rev_swig_ptr(added.get_ids(number), more)
