"""What there is to choose from in a version: folders, splits, cameras, the span of dates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.serve.live import Served
from mmindex.store.objects import contents

_MOST: Final = 200  # values offered of one column
_CHOICES: Final = ("folder", "split", "source", "format", "camera")


@dataclass(frozen=True, slots=True)
class Facets:
    """The columns of a version, and the most frequent values of some.

    Attributes:
        columns: name and Arrow type.
        values: of columns with a choice: values, the most frequent first.
    """

    columns: dict[str, pa.DataType]
    values: dict[str, list[str]] = field(default_factory=dict)

    def has(self, name: str, kind: str) -> bool:
        """Whether a column is there, and of a type."""
        return name in self.columns and str(self.columns[name]).startswith(kind)


def facets(served: Served) -> Facets:
    """What there is to choose from; found out once for each version."""
    return served.once("facets", lambda: _facets(served))


def _facets(served: Served) -> Facets:
    with served.snapshot.open_parquet("images") as file:
        schema = file.schema_arrow
        columns = {one.name: one.type for one in schema}
        wanted = [name for name in _CHOICES if columns.get(name) == pa.string()]
        counts: dict[str, Counter[str]] = {name: Counter() for name in wanted}
        for batch in file.iter_batches(columns=wanted):
            for name in wanted:
                found = pc.value_counts(batch[name])
                texts, numbers = contents(found.field(0)), found.field(1).to_pylist()
                for text, number in zip(texts, numbers, strict=True):
                    if text:
                        counts[name][text] += number
    values = {
        name: sorted(value for value, _ in count.most_common(_MOST))
        for name, count in counts.items()
        if len(count) > 1
    }
    return Facets(columns, values)
