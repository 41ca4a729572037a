"""Look up the rows of a table by key or id, in processes that answer many queries.

A scan of a table takes longer than a search in a million vectors. The keys of all rows therefore
stay in memory with their order (40 bytes per row). The texts of a table that is not too large also
stay in memory. From larger tables, only the row groups with wanted rows are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.store.keys import KEY_BYTES, binary_keys, read_keys
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects, contents

Int64 = NDArray[np.int64]

# Largest size of the texts of a table in memory: about 2 million images with an id and a path.
_MOST_TEXT: Final = 256 << 20


class Rows:
    """The rows of one table; several threads can use it.

    Args:
        objects: the store's objects.
        table: ``images`` or ``captions``.
        columns: the columns of texts to keep in memory, in addition to the keys.
    """

    def __init__(self, objects: Objects, table: ObjectRef, columns: Sequence[str]) -> None:
        self._objects = objects
        self._table = table
        self._keys = read_keys(objects, table)
        self._by_key = np.argsort(self._keys, kind="stable")
        self._texts = self._read(columns)
        self._orders: dict[str, Int64] = {}
        self._lock = Lock()

    def select(
        self,
        columns: Sequence[str],
        column: str,
        values: Collection[str],
        only: NDArray[np.bool_] | None = None,
    ) -> Iterator[tuple[Any, ...]] | None:
        """Return the rows whose ``column`` is in ``values``, in table order, as tuples.

        Args:
            columns: the columns to return.
            column: the column to compare.
            values: the wanted values.
            only: bool (rows,), the rows to search; None: all.

        Returns:
            The rows; None if they cannot be found by this column without reading the table.
        """
        if column == "key":
            rows = self._with_keys(values)
        elif column in self._texts:
            rows = self._with_texts(column, values)
        else:
            return None
        rows = np.sort(rows)
        if only is not None:
            rows = rows[only[rows]]
        return self._tuples(rows, columns)

    def _with_keys(self, values: Collection[str]) -> Int64:
        wanted = binary_keys(list(values))
        low = np.searchsorted(self._keys, wanted, "left", self._by_key)
        high = np.searchsorted(self._keys, wanted, "right", self._by_key)
        spans = zip(low.tolist(), high.tolist(), strict=True)
        return np.concatenate([self._by_key[start:stop] for start, stop in spans])

    def _with_texts(self, column: str, values: Collection[str]) -> Int64:
        texts, order = self._texts[column], self._order(column)

        def text_at(row: Any) -> bytes:
            found: bytes = texts[int(row)].as_py()
            return found

        rows: list[int] = []
        for value in values:
            wanted = value.encode("utf-8", "surrogatepass")
            place = bisect_left(order, wanted, key=text_at)
            while place < len(order) and text_at(order[place]) == wanted:
                rows.append(int(order[place]))
                place += 1
        return np.array(rows, dtype=np.int64)

    def _order(self, column: str) -> Int64:
        """Return the rows in the order of a column, which is sorted on first use."""
        with self._lock:
            if column not in self._orders:
                found = pc.sort_indices(self._texts[column]).to_numpy()
                self._orders[column] = found.astype(np.int64)
            return self._orders[column]

    def _tuples(self, rows: Int64, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        values: dict[str, list[Any]] = {}
        if "key" in columns:
            raw = self._keys.view(np.uint8).reshape(-1, KEY_BYTES)
            values["key"] = [raw[row].tobytes().hex() for row in rows.tolist()]
        others = [name for name in columns if name not in values]
        if all(name in self._texts for name in others):
            places = pa.array(rows.tolist(), pa.int64())
            for name in others:
                found = self._texts[name].take(places).to_pylist()
                values[name] = [str(one, "utf-8", "surrogatepass") for one in found]
        else:
            part = self._objects.take(self._table, others, rows)
            values |= {name: contents(part[name]) for name in others}
        return zip(*(values[name] for name in columns), strict=True)

    def _read(self, columns: Sequence[str]) -> dict[str, Any]:
        """Read text columns as bytes; return nothing if they are too large."""
        with self._objects.open_parquet(self._table) as file:
            parts: dict[str, list[Any]] = {name: [] for name in columns}
            size = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(columns))
                size += table.nbytes
                if size > _MOST_TEXT:
                    return {}
                for name in columns:
                    parts[name] += table[name].cast(pa.large_binary()).chunks
        empty = pa.array([], pa.large_binary())
        return {name: pa.concat_arrays([empty, *chunks]) for name, chunks in parts.items()}
