"""Read, verify, write, search and change FAISS indexes.

Two edge cases in faiss 1.15, both covered by tests:

- ``remove_ids`` moves the last code of a list into the gap and leaves its bits after the end. Array
  lists are truncated when written. Fast-scan lists (4 bits, blocks of 32) keep the bits, and
  ``add_with_ids`` later combines the new code with them by OR: a few per cent of the added vectors
  would get a wrong code. The bits after the end of each list are therefore cleared here, which also
  ensures that the file contains no removed vectors.
- Indexes without lists shift the ids after a gap, or cannot remove vectors: they are trained again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, InternalError, os_errors
from mmindex.core.modality import Modality
from mmindex.index.exact import faiss_settings, widen
from mmindex.store.manifest import IndexInfo, ObjectRef
from mmindex.store.objects import REPAIR_HINT, Objects
from mmindex.store.publish import StagedFile

Int64 = NDArray[np.int64]

# Centres with codes: the number of centres that are compared exactly, for each list to probe. With
# clustered vectors, half of the probed lists are the nearest ones with 1, and all of them with 4.
_CENTRES_A_PROBE = 3.0

# Index types whose removal and addition were verified for each code.
_EXTENDABLE = (
    faiss.IndexIVFPQFastScan,
    faiss.IndexIVFRaBitQFastScan,
    faiss.IndexIVFPQ,
    faiss.IndexIVFFlat,
    faiss.IndexIVFScalarQuantizer,
)


def write_index(objects: Objects, modality: Modality, index: Any) -> ObjectRef:
    """Write an index as the object ``index/<modality>``.

    ``faiss.write_index(path)`` reports success on a full disk although the end of the file is
    missing, so all data is written through our own file object, whose errors pass through faiss.

    Raises:
        StorageError: the disk is full or writing failed.
    """

    def fill(staged: StagedFile) -> int:
        faiss.write_index(index, faiss.PyCallbackIOWriter(staged.write))
        return int(index.ntotal)

    return objects.write(f"index/{modality}", fill)


def read_index(objects: Objects, ref: ObjectRef, info: IndexInfo) -> Any:
    """Load an index and verify its bytes through the file handle that faiss reads.

    A faiss file has no checksum: most damage would silently change answers.

    Raises:
        DataError: it is missing, damaged, or not the index in ``info``.
    """
    path = objects.unverified_path(ref)
    where = f"{path} ({ref.name})"
    with os_errors(path), path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != ref.sha256:
            raise DataError(f"{where}: damaged (sha256 differs)", REPAIR_HINT)
        file.seek(0)
        try:
            index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
        except RuntimeError as error:
            raise DataError(
                f"{where}: faiss {faiss.__version__} cannot read it: {error}"
            ) from error
    found = (index.d, index.ntotal, index.metric_type)
    if found != (info.dim, info.n, faiss.METRIC_INNER_PRODUCT):
        raise DataError(
            f"{where}: dimensions, vectors, metric are {found}, not"
            f" {(info.dim, info.n, faiss.METRIC_INNER_PRODUCT)}",
            REPAIR_HINT,
        )
    return index


def ivf_part(index: Any) -> Any | None:
    """Return the inverted-file index inside ``index`` with its own type, or None."""
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else faiss.downcast_index(ivf)


def parameters_of(index: Any, nprobe: int, selector: Any | None = None) -> Any | None:
    """Return the search parameters for an index. To create them takes as long as a short search.

    Args:
        index: a CPU index.
        nprobe: lists to probe, if the index has lists.
        selector: a faiss IDSelector, only for indexes with lists (others may reject or ignore it);
            only ids that it selects are found.
    """
    if ivf_part(index) is None:
        if selector is not None:
            raise InternalError("a selector for an index without lists")
        return None
    centres = None
    if coded_centres(index) is not None:
        centres = faiss.IndexRefineSearchParameters(k_factor=_CENTRES_A_PROBE)
    parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector, quantizer_params=centres)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=parameters)
    return parameters


def find_candidates(
    index: Any,
    queries: NDArray[np.float32],
    count: int,
    nprobe: int,
    parameters: Any | None = None,
) -> Int64:
    """Return ids of likely neighbours, in the approximate order of the index.

    Args:
        index: a CPU index.
        queries: float32 (q, dim), C order.
        count: the number per query.
        nprobe: lists to probe, if the index has lists.
        parameters: from :func:`parameters_of`; None: those for ``nprobe``.

    Returns:
        int64 (q, count); -1 if the probed lists contain fewer.
    """
    if parameters is None:
        parameters = parameters_of(index, nprobe)
    _, ids = index.search(queries, count, params=parameters)
    found: Int64 = ids
    return found


def coded_centres(index: Any) -> Any | None:
    """Return the quantizer of an index if its list centres have codes, or None."""
    ivf = ivf_part(index)
    quantizer = None if ivf is None else faiss.downcast_index(ivf.quantizer)
    return quantizer if isinstance(quantizer, faiss.IndexRefine) else None


def why_not_changeable(index: Any) -> str:
    """Return why faiss cannot change this index in place; empty if it can."""
    inner = index
    if isinstance(index, faiss.IndexPreTransform):
        inner = faiss.downcast_index(index.index)
    if type(inner) not in _EXTENDABLE:  # a subclass may keep more than lists
        return f"{type(inner).__name__} cannot remove vectors"
    lists = faiss.downcast_InvertedLists(inner.invlists)
    if not isinstance(lists, faiss.ArrayInvertedLists | faiss.BlockInvertedLists):
        return f"{type(lists).__name__} cannot remove vectors"
    return ""


def remove_vectors(index: Any, ids: Int64, rows: int) -> None:
    """Remove ids from an index that can be changed (:func:`why_not_changeable`).

    Args:
        index: a CPU index.
        ids: int64, without duplicates, all in the index.
        rows: number of ids in use.

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
    clear_behind_ends(index)


def add_vectors(
    index: Any, blocks: Iterable[tuple[Int64, NDArray[np.float16]]], threads: int
) -> None:
    """Add vectors in blocks of (int64 (m,) ids, float16 (m, dim))."""
    with faiss_settings(threads, index.d):
        for ids, block in blocks:
            index.add_with_ids(widen(block), ids)


def clear_behind_ends(index: Any) -> None:
    """Zero the bytes after the last code of fast-scan lists."""
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
    """Return the bits of the first 0, 1, ... codes of a block: uint8 (codes + 1, block bytes)."""
    packer = lists.packer
    ones = np.full(packer.code_size, 0xFF, dtype=np.uint8)
    masks = np.zeros((int(lists.n_per_block) + 1, int(lists.block_size)), dtype=np.uint8)
    for place in range(int(lists.n_per_block)):
        block = np.zeros((1, masks.shape[1]), dtype=np.uint8)
        packer.pack_1(ones, place, block)
        masks[place + 1] = masks[place] | block[0]
    return masks
