"""Unit vectors on disk: float16 (n, dim), C order, memory-mapped, checked block by block.

A ``vectors`` object is raw float16, or 8 bits a number (:mod:`mmindex.store.sq8`), which its bytes
for each row tell; whoever reads it gets float16. Beside it stands a ``digests`` object: the sha256
of each 1-MiB block, which is itself verified whole when the reader opens. So opening costs nothing
in n, and no block is used before it was checked. Segments make that a nightly change appends.

Rows that were removed stay where they are, so that ids never move; a ``removed`` object lists them,
and whatever walks the vectors does not meet them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, InternalError
from mmindex.core.modality import Modality
from mmindex.store import sq8
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.publish import StagedFile
from mmindex.store.segment import BLOCK_BYTES, Segment

Float16 = NDArray[np.float16]
Int64 = NDArray[np.int64]
_COPIED_ROWS = 65_536
REMOVED_SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False)])


def write_segment(
    objects: Objects,
    modality: Modality,
    number: int,
    dim: int,
    blocks: Iterable[Float16],
    refine: str = "fp16",
) -> tuple[ObjectRef, ObjectRef]:
    """Write one segment of vectors and its block digests.

    Args:
        objects: where to write.
        modality: ``image`` or ``text``.
        number: position of the segment among the modality's segments, from 0.
        dim: number of columns.
        blocks: float16 (any, dim) arrays, C order, any sizes.
        refine: ``fp16``, or ``sq8`` to round them to 8 bits; few dimensions stay float16.

    Returns:
        the references of the ``vectors`` and of the ``digests`` object.
    """
    hasher = _BlockHasher()
    rounds = refine == "sq8" and dim >= sq8.LEAST_DIM

    def fill(staged: StagedFile) -> int:
        rows = 0
        for block in blocks:
            if block.dtype != np.float16 or block.ndim != 2 or block.shape[1] != dim:
                raise InternalError(f"vectors: got {block.dtype} {block.shape}, dim is {dim}")
            if not len(block):
                continue  # a memoryview of nothing cannot be cast
            stored = sq8.pack(block) if rounds else np.ascontiguousarray(block)
            data = stored.data.cast("B")
            staged.write(data)
            hasher.update(data)
            rows += len(block)
        return rows

    vectors = objects.write(f"vectors/{modality}/{number:05d}", fill)
    digests = hasher.finish()

    def fill_digests(staged: StagedFile) -> int:
        staged.write(b"".join(digests))
        return len(digests)

    return vectors, objects.write(f"digests/{modality}/{number:05d}", fill_digests)


def write_removed(objects: Objects, modality: Modality, removed: Int64) -> tuple[ObjectRef, ...]:
    """Write which rows are removed: int64, ascending; nothing where none is."""
    if not len(removed):
        return ()
    table = pa.table([pa.array(removed)], schema=REMOVED_SCHEMA)
    return (objects.write_table(f"removed/{modality}", REMOVED_SCHEMA, [table]),)


class _BlockHasher:
    """Cuts a byte stream into blocks of ``BLOCK_BYTES`` and hashes each."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._hash = hashlib.sha256()
        self._room = BLOCK_BYTES

    def update(self, data: memoryview) -> None:
        while data.nbytes:
            part = data[: self._room]
            self._hash.update(part)
            self._room -= part.nbytes
            data = data[part.nbytes :]
            if not self._room:
                self._close_block()

    def _close_block(self) -> None:
        self._digests.append(self._hash.digest())
        self._hash = hashlib.sha256()
        self._room = BLOCK_BYTES

    def finish(self) -> list[bytes]:
        if self._room != BLOCK_BYTES:
            self._close_block()
        return self._digests


class Vectors:
    """The vectors of one modality, by row number; row i belongs to faiss id i.

    Attributes:
        n: number of rows, removed ones included: ids are below it.
        dim: number of columns.
        removed: int64, the removed rows, ascending.
    """

    def __init__(self, objects: Objects, manifest: Manifest, modality: Modality) -> None:
        """Map the segments.

        Raises:
            DataError: a segment is missing, has another size, or its digests are damaged.
        """
        info = manifest.indexes[modality]
        self._map_all(objects, manifest.objects, modality, info.dim)
        if (self.n, self.live) != (info.rows, info.n):
            raise DataError(
                f"{modality} vectors: {self.n} rows, {self.live} of them live; the index has"
                f" {info.rows} and {info.n}"
            )

    @property
    def live(self) -> int:
        """How many rows are not removed."""
        return self.n - len(self.removed)

    def live_ids(self) -> Int64:
        """The rows that are not removed, ascending: int64 (live,)."""
        return np.delete(np.arange(self.n, dtype=np.int64), self.removed)

    @classmethod
    def of_refs(
        cls, objects: Objects, refs: Sequence[ObjectRef], modality: Modality, dim: int
    ) -> Vectors:
        """Map segments that no manifest lists yet; ``refs`` holds them, digests, removed rows.

        Raises:
            DataError: a segment is missing, has another size, or its digests are damaged.
        """
        vectors = cls.__new__(cls)
        vectors._map_all(objects, refs, modality, dim)
        return vectors

    def _map_all(
        self, objects: Objects, refs: Sequence[ObjectRef], modality: Modality, dim: int
    ) -> None:
        self.dim = dim
        self._segments: list[Segment] = []
        by_name = {ref.name: ref for ref in refs}
        first = 0
        for ref in refs:
            if ref.name.startswith(f"vectors/{modality}/"):
                digests = by_name.get(ref.name.replace("vectors/", "digests/", 1))
                self._segments.append(self._map(objects, ref, digests, first))
                first += ref.rows
        self.n = first
        self.removed = _read_removed(objects, by_name.get(f"removed/{modality}"), first)
        self._starts = np.array([segment.first for segment in self._segments], dtype=np.int64)

    def _map(
        self, objects: Objects, ref: ObjectRef, digest_ref: ObjectRef | None, first: int
    ) -> Segment:
        if digest_ref is None:
            raise DataError(f"{ref.name}: the manifest lists no digests for it")
        digests = objects.path(digest_ref).read_bytes()
        return Segment.of_file(objects.unverified_path(ref), ref, self.dim, digests, first)

    def take(self, ids: Int64) -> Float16:
        """The vectors of these rows: float16 (len(ids), dim), in the order asked.

        Raises:
            DataError: a block that holds one of them is damaged.
            IndexError: an id is negative or not below ``n``.
        """
        if len(ids) and (ids.min() < 0 or ids.max() >= self.n):
            raise IndexError(f"ids must be in 0..{self.n - 1}")
        if len(self._segments) == 1:
            out = self._segments[0].rows(ids)
        else:
            out = np.empty((len(ids), self.dim), dtype=np.float16)
            owners = np.searchsorted(self._starts, ids, side="right") - 1
            for number in np.unique(owners).tolist():
                segment, mine = self._segments[number], owners == number
                out[mine] = segment.rows(ids[mine] - segment.first)
        return out

    def whole(self) -> Float16:
        """All live vectors by id: float16 (live, dim), read-only, verified.

        A view of the file where one float16 segment without removed rows holds them, else a copy.

        Raises:
            DataError: a block is damaged.
        """
        if len(self._segments) == 1 and not len(self.removed):
            segment = self._segments[0]
            if len(segment.matrix):
                rows = segment.part(0, len(segment.matrix))
                rows.flags.writeable = False
                return rows
        out = np.empty((self.live, self.dim), dtype=np.float16)
        start = 0
        for _, part in self.blocks(_COPIED_ROWS):
            out[start : start + len(part)] = part
            start += len(part)
        out.flags.writeable = False
        return out

    def let_go(self) -> None:
        """Take all pages out of this process: a sample touches them all over the files."""
        for segment in self._segments:
            segment.let_go()

    def blocks(self, rows: int) -> Iterator[tuple[Int64, Float16]]:
        """Stream ``(ids (m,), float16 (m, dim))`` with m <= ``rows``: live rows by id, verified."""
        for segment in self._segments:
            for start in range(0, len(segment.matrix), rows):
                stop = min(start + rows, len(segment.matrix))
                yield from self._live_part(segment, start, stop)
                segment.let_go()

    def _live_part(
        self, segment: Segment, start: int, stop: int
    ) -> Iterator[tuple[Int64, Float16]]:
        ids = np.arange(segment.first + start, segment.first + stop)
        part = segment.part(start, stop)
        low, high = np.searchsorted(self.removed, (ids[0], ids[-1] + 1))
        if low == high:
            yield ids, part
        elif high - low < len(ids):
            dead = self.removed[low:high] - ids[0]
            yield np.delete(ids, dead), np.delete(part, dead, axis=0)


def _read_removed(objects: Objects, ref: ObjectRef | None, rows: int) -> Int64:
    if ref is None:
        return np.empty(0, dtype=np.int64)
    removed: Int64 = objects.read_table(ref, ["id"])["id"].to_numpy()
    sound = len(removed) and removed[0] >= 0 and removed[-1] < rows
    if not sound or (np.diff(removed) <= 0).any():
        raise DataError(f"{ref.name}: not ascending rows below {rows}")
    return removed
