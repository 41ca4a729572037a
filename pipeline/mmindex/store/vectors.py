"""Unit vectors on disk: float16 (n, dim), C order, memory-mapped, verified block by block.

A ``vectors`` object has raw float16 or 8-bit values (see below), which the number of bytes per row
shows; readers always get float16. A ``digests`` object has the sha256 of each 1-MiB block; it is
verified as a whole when the reader opens. Opening therefore takes the same time for any n, and no
block is used before it is verified. Each nightly change appends a segment.

Removed rows stay in the file, so that ids never change. A ``removed`` object lists them, and
iteration over the vectors skips them.

**8-bit values** need half the bytes of float16, for nearly exact re-ranking. A row has its values
divided by its own scale (the largest absolute value / 127) and rounded, followed by the scale as
float32. Nothing is trained, so rows can be added later, and rounded values do not change when they
are read and written again.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, InternalError, os_errors
from mmindex.core.modality import Modality
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.publish import StagedFile

BLOCK_BYTES = 1 << 20  # hashing a block takes about 1 ms, the longest delay of a cold look-up
DIGEST_BYTES = 32
REMOVED_SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False)])

Float16 = NDArray[np.float16]
Int64 = NDArray[np.int64]
_COPIED_ROWS = 65_536
Bytes = NDArray[np.uint8]

_LEVELS = 127
_SCALE_BYTES = 4
_ROWS_AT_ONCE = 4_096  # rows to round per step: a few MiB of float32
# With fewer dimensions, the scales outweigh the savings, and the row size would be ambiguous.
_LEAST_SQ8_DIM = 16


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
        objects: the store's objects.
        modality: ``image`` or ``text``.
        number: position of the segment among the modality's segments, from 0.
        dim: number of columns.
        blocks: float16 (any, dim) arrays, C order, any sizes.
        refine: ``fp16``, or ``sq8`` to round to 8 bits; vectors of few dimensions stay float16.

    Returns:
        The references of the ``vectors`` and the ``digests`` object.
    """
    hasher = _BlockHasher()
    rounds = refine == "sq8" and dim >= _LEAST_SQ8_DIM

    def fill(staged: StagedFile) -> int:
        rows = 0
        for block in blocks:
            if block.dtype != np.float16 or block.ndim != 2 or block.shape[1] != dim:
                raise InternalError(f"vectors: got {block.dtype} {block.shape}, dim is {dim}")
            if not len(block):
                continue  # an empty memoryview cannot be cast
            stored = pack_sq8(block) if rounds else np.ascontiguousarray(block)
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
    """Write the list of removed rows: int64, ascending; no object if the list is empty."""
    if not len(removed):
        return ()
    table = pa.table([pa.array(removed)], schema=REMOVED_SCHEMA)
    return (objects.write_table(f"removed/{modality}", REMOVED_SCHEMA, [table]),)


class _BlockHasher:
    """Split a byte stream into blocks of ``BLOCK_BYTES`` and hash each."""

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


def _sq8_row_bytes(dim: int) -> int:
    return dim + _SCALE_BYTES


def pack_sq8(rows: Float16) -> Bytes:
    """Round float16 (m, dim) to uint8 (m, dim + 4)."""
    out = np.empty((len(rows), _sq8_row_bytes(rows.shape[1])), dtype=np.uint8)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        wide = rows[part].astype(np.float32)
        scales = np.abs(wide).max(axis=1, keepdims=True) / np.float32(_LEVELS)
        scales[scales == 0.0] = 1.0  # a row of zeros, which replaces a removed one
        out[part, :-_SCALE_BYTES] = np.rint(wide / scales).astype(np.int8).view(np.uint8)
        out[part, -_SCALE_BYTES:] = scales.view(np.uint8)
    return out


def unpack_sq8(rows: Bytes) -> Float16:
    """Convert uint8 (m, dim + 4) to float16 (m, dim)."""
    scales = np.ascontiguousarray(rows[:, -_SCALE_BYTES:]).view(np.float32)
    numbers = rows[:, :-_SCALE_BYTES].view(np.int8)
    return (numbers * scales).astype(np.float16)


@dataclass(slots=True)
class Segment:
    """Rows of vectors in one file.

    Attributes:
        first: id of its first row.
        matrix: float16 (n, dim), or uint8 (n, dim + 4) as packed by :func:`pack_sq8`.
        raw: the file's bytes.
        mapping: the mapping that ``raw`` is a view of; None if the file is empty.
        digests: sha256 of each block.
        where: its file and name, for messages.
    """

    first: int
    matrix: NDArray[Any]
    raw: NDArray[np.uint8]
    mapping: mmap.mmap | None
    digests: bytes
    where: str
    checked: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.checked = np.zeros(len(self.digests) // DIGEST_BYTES, dtype=bool)

    @classmethod
    def of_file(cls, path: Path, ref: ObjectRef, dim: int, digests: bytes, first: int) -> Segment:
        """Map a file after checking its size.

        Raises:
            DataError: its size is neither that of float16 nor that of packed rows, or the number of
                digests differs from the number of blocks.
        """
        plain = ref.bytes == ref.rows * dim * 2
        packed = dim >= _LEAST_SQ8_DIM and ref.bytes == ref.rows * _sq8_row_bytes(dim)
        blocks = -(-ref.bytes // BLOCK_BYTES)
        if len(digests) != blocks * DIGEST_BYTES or not (plain or packed):
            raise DataError(f"{ref.name}: size and digests do not match")
        mapping = None
        if ref.bytes:
            with os_errors(path), path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        raw = np.frombuffer(mapping or b"", dtype=np.uint8)
        matrix: NDArray[Any] = raw.view(np.float16) if plain else raw
        matrix = matrix.reshape(ref.rows, dim if plain else _sq8_row_bytes(dim))
        return cls(first, matrix, raw, mapping, digests, f"{path} ({ref.name})")

    def rows(self, rows: NDArray[np.int64]) -> Float16:
        """Return some rows of the segment: float16 (len(rows), dim), a copy.

        Raises:
            DataError: a block with one of them is damaged.
        """
        row_bytes = self.matrix.strides[0]
        first = rows * row_bytes // BLOCK_BYTES
        last = ((rows + 1) * row_bytes - 1) // BLOCK_BYTES
        # A row is far smaller than a block, so it is in one block or two neighbours.
        touched = np.concatenate([first, last])
        unchecked = touched[~self.checked[touched]]
        if len(unchecked):
            self._check(np.unique(unchecked).tolist())
        return _unpacked(self.matrix[rows])

    def part(self, start: int, stop: int) -> Float16:
        """Return consecutive rows: float16 (stop - start, dim).

        Raises:
            DataError: a block with one of them is damaged.
        """
        row_bytes = self.matrix.strides[0]
        blocks = range(start * row_bytes // BLOCK_BYTES, (stop * row_bytes - 1) // BLOCK_BYTES + 1)
        self._check(blocks)
        return _unpacked(self.matrix[start:stop])

    def let_go(self) -> None:
        """Release the file's pages from this process; a full scan would keep all of them resident.

        They stay in the system's cache and return on the next access.
        """
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    def _check(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if self.checked[block]:
                continue
            data = self.raw[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            expected = self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]
            if hashlib.sha256(data.data).digest() != expected:
                raise DataError(
                    f"{self.where}: block {block} is damaged", "run `mmindex check --full`"
                )
            self.checked[block] = True


def _unpacked(rows: NDArray[Any]) -> Float16:
    return unpack_sq8(rows) if rows.dtype == np.uint8 else rows


class Vectors:
    """The vectors of one modality, by row number; row i belongs to faiss id i.

    Attributes:
        n: number of rows, including removed ones; all ids are below it.
        dim: number of columns.
        removed: int64, the removed rows, ascending.
    """

    def __init__(
        self, objects: Objects, refs: Sequence[ObjectRef], modality: Modality, dim: int
    ) -> None:
        """Map the segments among ``refs``, which include their digests and removed rows.

        Raises:
            DataError: a segment is missing, has another size, or its digests are damaged.
        """
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

    @property
    def live(self) -> int:
        """The number of rows that are not removed."""
        return self.n - len(self.removed)

    def live_ids(self) -> Int64:
        """Return the rows that are not removed, ascending: int64 (live,)."""
        return np.delete(np.arange(self.n, dtype=np.int64), self.removed)

    def _map(
        self, objects: Objects, ref: ObjectRef, digest_ref: ObjectRef | None, first: int
    ) -> Segment:
        if digest_ref is None:
            raise DataError(f"{ref.name}: the manifest lists no digests for it")
        digests = objects.path(digest_ref).read_bytes()
        return Segment.of_file(objects.unverified_path(ref), ref, self.dim, digests, first)

    def take(self, ids: Int64) -> Float16:
        """Return the vectors of these rows: float16 (len(ids), dim), in the order of ``ids``.

        Raises:
            DataError: a block with one of them is damaged.
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
        """Return all live vectors by id: float16 (live, dim), read-only, verified.

        A view of the file if there is one float16 segment without removed rows; otherwise a copy.

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
        """Release all pages from this process; a sample touches pages in all files."""
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
