"""Vector search in one side of a published version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, ModelMismatchError, UsageError
from mmindex.core.modality import Modality
from mmindex.index.exact import (
    block_rows,
    exact_search,
    faiss_settings,
    rerank,
    thread_count,
)
from mmindex.index.faissio import find_candidates, ivf_part, parameters_of, read_index
from mmindex.index.gpu import GpuInfo, fits_search, to_gpu
from mmindex.index.tune import candidate_count
from mmindex.store.snapshot import Snapshot

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Up to this number of allowed ids, all are scanned: exact, in 10 ms at 512 dimensions.
_SCAN_UP_TO = 20_000
# Queries per step: their candidates take a few MiB, for a batch of any size.
_BATCH = 1_024


class Searcher:
    """Searches the vectors of one modality.

    Attributes:
        info: how the index was built and is searched.
        n: number of searchable vectors.
        rows: number of ids; more than ``n`` if vectors were removed.
        dim: number of dimensions.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        modality: Modality,
        *,
        gpu: GpuInfo | None = None,
        threads: int | None = None,
    ) -> None:
        """Open and verify the index.

        Args:
            snapshot: the version to search.
            modality: ``image`` or ``text``.
            gpu: search on these GPUs if they support the index; None: CPU.
            threads: for faiss; None: one per core.

        Raises:
            NoInputError: the version has no such index.
            DataError: the index or its ids are missing or damaged, or do not match the manifest.
        """
        self.info = info = snapshot.index(modality)
        self.n, self.rows, self.dim = info.n, info.rows, info.dim
        self._snapshot = snapshot
        self._threads = thread_count(threads)
        self._vectors = snapshot.vectors(modality)
        self._index: Any | None = None
        self._lists: Any | None = None
        self._on_gpu: Any | None = None
        self._known: tuple[int, Any | None] | None = None  # nprobe and the parameters for it
        if not info.exact:
            ref = snapshot.manifest.find(f"index/{modality}")
            if ref is None:
                raise DataError(f"the manifest lists no {modality} index", "run `mmindex check`")
            self._index = read_index(snapshot.objects, ref, info)
            self._lists = ivf_part(self._index)
            self._on_gpu = self._gpu_form(gpu)

    def _gpu_form(self, gpu: GpuInfo | None) -> Any | None:
        """Return the copy on the GPUs; None for indexes that need a CPU (4-bit fast scan)."""
        quantizer = getattr(self._lists, "pq", None)
        if gpu is None or quantizer is None or quantizer.nbits != 8:
            return None
        return to_gpu(self._index, int(quantizer.M), self.info.nprobe)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        ids: NDArray[np.int64] | None = None,
        *,
        context: int = 0,
    ) -> tuple[Float32, Int64]:
        """Find the k best vectors for each query.

        Candidates come from the index; scores are always exact (float32 with the stored float16
        vectors). If the index returns too few candidates for a query, all vectors are scanned.

        Args:
            queries: float32 (q, dim), unit length.
            k: number of hits; it can exceed the number of vectors.
            ids: search only these ids (in any order, without duplicates); removed ids are never
                found; None: all.
            context: return up to this many columns, with further candidates that were scored; the
                first k do not depend on it.

        Returns:
            float32 (q, max(k, context)) cosine similarities and int64 ids of the same shape, best
            first, equal scores by lower id; filled with -inf and -1 at the end.

        Raises:
            ModelMismatchError: the queries have other dimensions than the index.
            DataError: a query is not finite, or a block of vectors is damaged.
            UsageError: k is below 1, or an allowed id does not exist.
        """
        queries = self._checked(queries)
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        allowed = None if ids is None else self._allowed(ids)
        columns = max(k, context)
        scores = np.full((len(queries), columns), -np.inf, dtype=np.float32)
        found = np.full((len(queries), columns), -1, dtype=np.int64)
        # Columns beyond the size of the corpus are padding.
        most = self.n if allowed is None else len(allowed)
        k, width = min(k, most), min(columns, most)
        for start in range(0, len(queries) if width else 0, _BATCH):
            here = slice(start, start + _BATCH)
            part = self._search(queries[here], k, width, allowed)
            some = part[0].shape[1]
            scores[here, :some], found[here, :some] = part
        return scores, found

    def _checked(self, queries: NDArray[np.float32]) -> Float32:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ModelMismatchError(
                f"queries have shape {queries.shape}, but the index has {self.dim} dimensions",
                "encode queries with the model of the index (`mmindex status` shows it)",
            )
        if not np.isfinite(queries).all():
            raise DataError("a query vector is not finite")
        return np.ascontiguousarray(queries, dtype=np.float32)

    def _allowed(self, ids: NDArray[np.int64]) -> Int64:
        ascending = bool((ids[1:] > ids[:-1]).all())
        allowed: Int64 = (ids if ascending else np.unique(ids)).astype(np.int64)
        if len(allowed) and (allowed[0] < 0 or allowed[-1] >= self.rows):
            raise UsageError(f"allowed ids must be in 0..{self.rows - 1}")
        removed = self._vectors.removed
        if len(removed):
            allowed = allowed[~np.isin(allowed, removed, assume_unique=True)]
        return allowed

    def _search(
        self, queries: Float32, k: int, width: int, allowed: Int64 | None
    ) -> tuple[Float32, Int64]:
        """Find k vectors, and up to ``width`` columns of what was scored for them."""
        count = candidate_count(k, self.info.k_factor)
        if self._index is None or self._scan_is_better(count, allowed):
            return self._scan(queries, width, allowed)
        # faiss uses one thread per query; other threads would be started, but have no work.
        with faiss_settings(min(self._threads, len(queries)), self.dim):
            candidates = self._candidates(queries, count, allowed)
        width = min(width, max(k, count))
        scores, ids = rerank(self._vectors.take, queries, candidates, width, self._threads)
        short = np.flatnonzero(ids[:, k - 1] < 0)
        if len(short):
            scores[short], ids[short] = self._scan(queries[short], width, allowed)
        return scores, ids

    def _scan_is_better(self, count: int, allowed: Int64 | None) -> bool:
        if allowed is None:
            return count * 2 >= self.n
        # Only indexes with lists all support the filters of faiss.
        few = len(allowed) <= max(_SCAN_UP_TO, count * 2)
        return few or self._lists is None

    def _candidates(self, queries: Float32, count: int, allowed: Int64 | None) -> Int64:
        nprobe = self.info.nprobe
        if allowed is None:
            if self._on_gpu is not None and fits_search(count, nprobe):
                _, ids = self._on_gpu.search(queries, count)
                return np.asarray(ids, dtype=np.int64)
            return find_candidates(self._index, queries, count, nprobe, self._usual(nprobe))
        # GPU kernels ignore selectors, so this always runs on the CPU. The remaining neighbours are
        # farther away, so the number of probed lists grows as the number of ids falls.
        mask = np.zeros(self.rows, dtype=bool)
        mask[allowed] = True
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        every = int(self._lists.nlist) if self._lists is not None else 1
        wider = min(-(-nprobe * self.n // len(allowed)), every)
        parameters = parameters_of(self._index, wider, selector)
        return find_candidates(self._index, queries, count, wider, parameters)

    def _usual(self, nprobe: int) -> Any | None:
        """Return the parameters for searches without a filter, which are created once."""
        known = self._known
        if known is None or known[0] != nprobe:
            known = self._known = (nprobe, parameters_of(self._index, nprobe))
        return known[1]

    def _scan(self, queries: Float32, k: int, allowed: Int64 | None) -> tuple[Float32, Int64]:
        if allowed is None:
            blocks = self._vectors.blocks(block_rows(self.dim))
            return exact_search(blocks, queries, k, self._threads)
        return exact_search(self._some(allowed), queries, k, self._threads)

    def _some(self, allowed: Int64) -> Iterator[tuple[Int64, NDArray[np.float16]]]:
        step = block_rows(self.dim)
        for start in range(0, len(allowed), step):
            part = allowed[start : start + step]
            yield part, self._vectors.take(part)

    def keys(self, ids: NDArray[np.int64] | Sequence[int]) -> list[str]:
        """Return the keys of ids, in the same order.

        Raises:
            UsageError: an id does not exist, including -1, which means "no hit".
            DataError: an id was removed.
        """
        return self._snapshot.keys_at(self.info.modality, np.asarray(ids, dtype=np.int64))
