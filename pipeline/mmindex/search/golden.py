"""Golden answers: a few query vectors stored with the answers of the index after the build.

``mmindex check`` repeats these queries, so it also finds an index that is intact but returns other
answers (with another faiss, on another machine).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.search.searcher import Searcher
from mmindex.store.layout import Layout
from mmindex.store.manifest import ObjectRef
from mmindex.store.snapshot import Snapshot, published

GOLDEN_K = 10
# The tolerance for cosines of the same float16 vectors, which other kernels sum in another order.
_SCORE_TOLERANCE = 1e-4


def write_golden(snapshot: Snapshot, modality: Modality, queries: NDArray[np.float32]) -> ObjectRef:
    """Search with ``queries`` (float32 (q, dim), unit length) and store them with their answers."""
    scores, ids = Searcher(snapshot, modality).search(queries, GOLDEN_K)
    schema = _schema(queries.shape[1])
    table = pa.table(
        {
            "query": pa.FixedSizeListArray.from_arrays(pa.array(queries.ravel()), queries.shape[1]),
            "ids": list(ids),
            "scores": list(scores),
        },
        schema=schema,
    )
    return snapshot.objects.write_table(f"golden/{modality}", schema, [table])


def _schema(dim: int) -> pa.Schema:
    return pa.schema(
        {
            "query": pa.list_(pa.float32(), dim),
            "ids": pa.list_(pa.int64()),
            "scores": pa.list_(pa.float32()),
        }
    )


def check_golden(layout: Layout) -> tuple[str, ...]:
    """Repeat the golden queries of the published version.

    Returns:
        one line for each modality with changed answers; empty if there are none.
    """
    snapshot = published(layout)
    if snapshot is None:
        return ()
    problems = []
    for modality in snapshot.manifest.indexes:
        try:
            changed = _changed(snapshot, modality)
        except DataError as error:
            problems.append(error.message)
            continue
        if changed:
            problems.append(f"{modality} index: {changed} golden queries return other answers")
    return tuple(problems)


def _changed(snapshot: Snapshot, modality: Modality) -> int:
    manifest = snapshot.manifest
    if manifest.find(f"golden/{modality}") is None:
        raise DataError(f"version {manifest.version} has no golden/{modality}")
    table = snapshot.table(f"golden/{modality}")
    dim = snapshot.index(modality).dim
    queries = table["query"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    scores, ids = Searcher(snapshot, modality).search(queries, GOLDEN_K)
    same = [
        np.array_equal(old, new) and np.allclose(old_scores, new_scores, atol=_SCORE_TOLERANCE)
        for old, new, old_scores, new_scores in zip(
            table["ids"].to_pylist(), ids, table["scores"].to_pylist(), scores, strict=True
        )
    ]
    return same.count(False)
