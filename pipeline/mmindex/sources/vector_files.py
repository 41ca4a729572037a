"""Files of vectors from other programs: ``.npy`` arrays, and list columns of Parquet files.

Vectors become rows of float16 with length 1, as in a store. Rows that already have this length
(within 0.5 %) keep their values; other rows are scaled. A row's key is the sha256 of the result,
so that a changed vector is a changed image.
"""

from __future__ import annotations

import hashlib
import os
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmindex.core.errors import DataError, first_lines, from_os_error, os_errors

# Rows held at once: 8,192 x 1,024 float64 are 64 MiB.
BLOCK_ROWS: Final = 8_192
MAX_DIM: Final = 65_536
_FLOAT_BYTES: Final = (2, 4, 8)
# Names of the column of image vectors, best first; otherwise the only column of float lists.
_COLUMNS: Final = ("vector", "embedding", "image_embedding", "img_emb", "emb")
# A store allows squared lengths within 2 %; rounding to float16 uses a part of that.
_TOLERANCE: Final = 0.01

# NumPy's header parser lets these errors of Python's parser through; headers have at most 10,000
# bytes.
_HEADER_ERRORS: Final = (
    ValueError,
    EOFError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
)

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Units:
    """Vectors of length 1.

    Attributes:
        vectors: float16 (n, dim); rows that are not good are zero.
        good: bool (n,), whether the row is finite and not zero.
        scaled: bool (n,), whether a good row did not have length 1.
    """

    vectors: NDArray[np.float16]
    good: NDArray[np.bool_]
    scaled: NDArray[np.bool_]

    def keys(self) -> list[str]:
        """Return the key of each row in hex: the sha256 of its little-endian float16."""
        little = self.vectors.astype("<f2", copy=False)
        return [hashlib.sha256(row).hexdigest() for row in little]


def unit_vectors(rows: Floats) -> Units:
    """Scale vectors (n, dim) to length 1; good float16 vectors of length 1 are not changed."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        single = rows.astype(np.float32)
        squares = np.einsum("ij,ij->i", single, single, dtype=np.float32)
        good = np.abs(squares - 1.0) < _TOLERANCE
        others = np.flatnonzero(~good)
        if len(others):
            # Divided by the largest value first, as float64, so that squares do not overflow.
            wide = rows[others].astype(np.float64)
            wide /= np.abs(wide).max(axis=1, keepdims=True)
            wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
            single[others] = wide
            good[others] = np.isfinite(wide).all(axis=1)
            single[~good] = 0.0
    scaled = np.zeros(len(rows), np.bool_)
    scaled[others] = good[others]
    return Units(single.astype(np.float16), good, scaled)


@dataclass(frozen=True, slots=True)
class NpyFile:
    """A ``.npy`` array of floats (rows, dim).

    Attributes:
        path: the file.
        rows: the number of vectors.
        dim: the number of dimensions.
        dtype: float16, float32 or float64, in any byte order.
        fortran: whether it is stored column by column.
        offset: the position of the first value.
    """

    path: Path
    rows: int
    dim: int
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    def blocks(self, most: int = BLOCK_ROWS) -> Iterator[Floats]:
        """Yield the vectors in order, (n, dim) each, with ``most`` rows in all but the last.

        Raises:
            DataError: the file has become shorter.
        """
        # Read, not memory-mapped: if the file shrinks, this raises an error instead of a signal.
        for start in range(0, self.rows, most):
            count = min(most, self.rows - start)
            if self.fortran:
                columns = [
                    self._values(place * self.rows + start, count) for place in range(self.dim)
                ]
                yield np.stack(columns, axis=1)
            else:
                yield self._values(start * self.dim, count * self.dim).reshape(count, self.dim)

    def _values(self, first: int, count: int) -> Floats:
        with os_errors(self.path):
            values = np.fromfile(
                self.path,
                self.dtype,
                count,
                offset=self.offset + first * self.dtype.itemsize,
            )
        if len(values) != count:
            raise DataError(f"{self.path}: it became shorter while it was read")
        return values


@dataclass(frozen=True, slots=True)
class ParquetVectors:
    """A Parquet file with a column of float lists.

    Attributes:
        path: the file.
        rows: the number of rows.
        dim: the number of dimensions; 0 if no row has a list.
        column: the column.
    """

    path: Path
    rows: int
    dim: int
    column: str

    def blocks(self, most: int = BLOCK_ROWS) -> Iterator[Floats]:
        """Yield the vectors in order; see :meth:`NpyFile.blocks`.

        Null lists, lists with another number of values, and lists with nulls become NaN.
        """
        held: list[Floats] = []
        count = 0
        for values in self._batches(most):
            rest = values
            while count + len(rest) >= most:
                cut = most - count
                yield np.concatenate([*held, rest[:cut]])
                held, count, rest = [], 0, rest[cut:]
            held.append(rest)
            count += len(rest)
        if count:
            yield np.concatenate(held)

    def _batches(self, most: int) -> Iterator[Floats]:
        with parquet_errors(self.path), open_parquet(self.path) as file:
            for batch in file.iter_batches(min(most, BLOCK_ROWS), columns=[self.column]):
                yield _list_rows(batch.column(0), self.dim or 1)


def _list_rows(lists: Any, dim: int) -> Floats:
    """Return lists as (n, dim); NaN for lists that are null or have another length."""
    whole = pc.fill_null(pc.equal(pc.list_value_length(lists), dim), False)
    values = pc.list_flatten(lists.filter(whole))
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    flat = values.to_numpy(zero_copy_only=False)
    rows: Floats = np.full((len(lists), dim), np.nan, dtype=flat.dtype)
    rows[whole.to_numpy(zero_copy_only=False)] = flat.reshape(-1, dim)
    return rows


VectorFile = NpyFile | ParquetVectors


def open_npy(path: Path) -> NpyFile:
    """Read the header of a ``.npy`` file; its values are never unpickled.

    Raises:
        DataError: it is damaged, or not a table of floats.
        NoInputError: there is no such file.
    """
    with os_errors(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            shape, fortran, dtype = _read_header(file)
        except _HEADER_ERRORS as error:
            raise DataError(f"{path}: not a .npy file: {first_lines(error)}") from error
        offset = file.tell()
    if dtype.kind != "f" or dtype.itemsize not in _FLOAT_BYTES:
        raise DataError(
            f"{path}: it has the type {dtype}; vectors must be float16, float32 or float64",
            "objects are not loaded, because that can run code: save it as a float array"
            if dtype.hasobject
            else "save it with `numpy.save(PATH, array.astype('float32'))`",
        )
    if len(shape) != 2 or min(shape) < 0:  # rows and columns
        raise DataError(f"{path}: it has the shape {shape}; vectors must be (rows, dimensions)")
    rows, dim = shape
    expected = offset + rows * dim * dtype.itemsize
    if size != expected:
        raise DataError(f"{path}: {size:,} bytes; its header says {expected:,}", "copy it again")
    _check_dim(path, dim)
    return NpyFile(path, rows, dim, dtype, fortran, offset)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format is not for plain numbers")


def open_vector_parquet(path: Path) -> ParquetVectors | None:
    """Find the column of vectors in a Parquet file; None if it has no column of float lists.

    Raises:
        DataError: it is damaged, or several columns could contain the vectors.
        NoInputError: there is no such file.
    """
    with parquet_errors(path), open_parquet(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        found = [field.name for field in schema if _holds_vectors(field.type)]
        named = [name for name in _COLUMNS if name in found]
        if not found:
            return None
        if not named and len(found) > 1:
            raise DataError(
                f"{path}: several columns have lists of numbers: {', '.join(found)[:200]}",
                f"rename the column of vectors to {_COLUMNS[0]!r}",
            )
        column = (named or found)[0]
        dim = _list_size(file, column)
    if rows and dim:
        _check_dim(path, dim)
    return ParquetVectors(path, rows, dim, column)


def _list_size(file: pq.ParquetFile, column: str) -> int:
    """Return the length of the lists: as declared, or that of the first list; 0 if there is none.

    If lengths vary, only the first list is read.
    """
    kind = file.schema_arrow.field(column).type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in file.iter_batches(64, columns=[column]):
        lengths = pc.list_value_length(batch.column(0))
        lengths = lengths.filter(pc.greater(lengths, 0))
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def _holds_vectors(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and bool(pa.types.is_floating(kind.value_type))


def _check_dim(path: Path, dim: int) -> None:
    if not 1 <= dim <= MAX_DIM:
        raise DataError(f"{path}: its vectors have {dim} dimensions; 1 to {MAX_DIM} are allowed")


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file from another program; page checksums are verified if present."""
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Convert the errors of reading a Parquet file to :class:`MmindexError`."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged: {first_lines(error)}") from error
    except OSError as error:
        if error.errno is None:  # raised by Arrow for damaged bytes
            raise DataError(f"{path}: damaged: {first_lines(error)}") from error
        raise from_os_error(error, path) from error
