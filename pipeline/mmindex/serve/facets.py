"""Filter choices of a version: the values of columns with few distinct values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.search.columns import output_columns
from mmindex.serve.live import Served
from mmindex.store.objects import contents

_MOST: Final = 200  # number of values of a column to choose from
_MOST_COLUMNS: Final = 24
_FIRST: Final = ("folder", "split", "source", "format", "camera")
# Columns that name single images, have their own fields, or have nothing to choose.
_NEVER: Final = frozenset({
    "image_id", "key", "uri", "filename", "title", "description", "width", "height", "size_bytes",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facets:
    """The columns of a version, and the most frequent values of some columns.

    Attributes:
        columns: name and Arrow type.
        values: the most frequent values of columns with few values, in alphabetical order.
    """

    columns: dict[str, pa.DataType]
    values: dict[str, list[str]] = field(default_factory=dict)

    def condition(self, name: str, value: str) -> str:
        """Return the SQL condition that a column has a value, for the type of the column."""
        column = '"' + name.replace('"', '""') + '"'
        text = "'" + value.replace("'", "''") + "'"
        kind = self.columns.get(name)
        if kind is not None and pa.types.is_list(kind):
            return f"list_contains({column}, {text})"
        if name == "folder":
            return f"({column} = {text} or starts_with({column}, {text[:-1]}/'))"
        return f"{column} = {text}"

    def has(self, name: str, kind: str) -> bool:
        """Return whether a column exists and has a type."""
        return name in self.columns and str(self.columns[name]).startswith(kind)


def facets(served: Served) -> Facets:
    """Determine the filter choices; computed once per version."""
    return served.once("facets", lambda: _facets(served))


def _facets(served: Served) -> Facets:
    names = output_columns(served.snapshot)
    with served.snapshot.open_parquet("images") as file:
        columns = {one.name: one.type for one in file.schema_arrow}
        offered = [name for name in names if name not in _NEVER and _has_choice(columns[name])]
        offered.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
        counts: dict[str, Counter[str]] = {name: Counter() for name in offered}
        for batch in file.iter_batches(columns=offered):
            for name in list(counts):
                counts[name].update(_counted(batch[name]))
                if len(counts[name]) > _MOST and name not in _FIRST:
                    del counts[name]
    values = {
        name: sorted(value for value, _ in count.most_common(_MOST))
        for name, count in counts.items()
        if len(count) > 1
    }
    return Facets(columns, dict(islice(values.items(), _MOST_COLUMNS)))


def _has_choice(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return bool(pa.types.is_string(kind.value_type))
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _counted(column: pa.Array) -> dict[str, int]:
    """Count the values of a column, as text; for lists, count their items."""
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    found = pc.value_counts(flat)
    texts, numbers = contents(found.field(0)), found.field(1).to_pylist()
    return {
        str(text).lower() if isinstance(text, bool) else str(text): number
        for text, number in zip(texts, numbers, strict=True)
        if text is not None and text != ""
    }
