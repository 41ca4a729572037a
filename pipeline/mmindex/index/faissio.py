"""Between FAISS and the store: verified reading, counted writing, one way to ask for candidates."""

from __future__ import annotations

import hashlib
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, InternalError, os_errors
from mmindex.core.modality import Modality
from mmindex.store.manifest import IndexInfo, ObjectRef
from mmindex.store.objects import REPAIR_HINT, Objects
from mmindex.store.publish import StagedFile


def write_index(objects: Objects, modality: Modality, index: Any) -> ObjectRef:
    """Write an index as the object ``index/<modality>``.

    ``faiss.write_index(path)`` reports success on a full disk with the file's tail missing, so
    every byte goes through our own counted file, whose errors pass through faiss.

    Raises:
        StorageError: the disk is full or writing failed.
    """

    def fill(staged: StagedFile) -> int:
        faiss.write_index(index, faiss.PyCallbackIOWriter(staged.write))
        return int(index.ntotal)

    return objects.write(f"index/{modality}", fill)


def read_index(objects: Objects, ref: ObjectRef, info: IndexInfo) -> Any:
    """Load an index whose bytes were verified through the very handle that faiss reads from.

    A faiss file carries no checksum: unverified, most damage would change answers in silence.

    Raises:
        DataError: missing, damaged, or not the index that ``info`` describes.
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
    """The inverted-file index inside ``index``, with its own type, or None where there is none."""
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else faiss.downcast_index(ivf)


def find_candidates(
    index: Any,
    queries: NDArray[np.float32],
    count: int,
    nprobe: int,
    selector: Any | None = None,
) -> NDArray[np.int64]:
    """Ids of likely neighbours, in the index's own, approximate order.

    Args:
        index: a CPU index.
        queries: float32 (q, dim), C order.
        count: how many for each query.
        nprobe: lists to probe, where the index has lists.
        selector: a faiss IDSelector, for indexes with lists only (others may refuse or ignore
            it); only ids that it lets through come back.

    Returns:
        int64 (q, count); -1 where the probed lists hold fewer.
    """
    parameters = None
    if ivf_part(index) is not None:
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        if isinstance(index, faiss.IndexPreTransform):
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    elif selector is not None:
        raise InternalError("a selector for an index without lists")
    _, ids = index.search(queries, count, params=parameters)
    found: NDArray[np.int64] = ids
    return found
