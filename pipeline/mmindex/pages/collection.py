"""Summary of a corpus: dates, folders, sizes, formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.store.objects import valid_text
from mmindex.store.snapshot import Snapshot

_MOST_ROWS: Final = 10
# If almost every image has a different value, counts are useless; this number takes 100 MB.
_MOST_KINDS: Final = 1_000_000
# Megapixels: a thumbnail, a screen, a phone of 2010, a modern camera, more.
_SIZES: Final = (0.0, 0.3, 1.0, 4.0, 12.0, 30.0)
# The type that a column must have to be counted, because sources can add columns of any type.
_OPTIONAL: Final[Mapping[str, Callable[[Any], bool]]] = {
    "taken": pa.types.is_timestamp,
    "camera": pa.types.is_string,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a count; ``share``: in percent of the longest bar."""

    label: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Count:
    """The number of images of each kind; ``more`` kinds with ``rest`` images are not shown.

    ``unknown``: images without a value.
    """

    title: str
    rows: tuple[Row, ...]
    more: int = 0
    rest: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Collection:
    """The counts of a corpus, without those that are unknown or have too many values."""

    images: int
    size_bytes: int
    counts: tuple[Count, ...]


def collection(snapshot: Snapshot) -> Collection:
    """Count the images in one pass over the required columns.

    Raises:
        DataError: the table is damaged.
    """
    with snapshot.open_parquet("images") as file:
        schema = file.schema_arrow
    optional = [name for name, fits in _OPTIONAL.items() if _has(schema, name, fits)]
    columns = ["image_id", "width", "height", "format", "size_bytes", *optional]
    tally: dict[str, Counter[Any]] = {}
    images = size_bytes = 0
    for batch in snapshot.batches("images", columns):
        images += len(batch)
        size_bytes += pc.sum(batch["size_bytes"]).as_py() or 0
        for name, values in _kinds(batch, optional).items():
            counter = tally.setdefault(name, Counter())
            if len(counter) <= _MOST_KINDS:
                counter.update(_counted(values))
    tally = {name: counter for name, counter in tally.items() if len(counter) <= _MOST_KINDS}
    return Collection(images, size_bytes, tuple(_shown(tally)))


def _has(schema: pa.Schema, name: str, fits: Callable[[Any], bool]) -> bool:
    return name in schema.names and fits(schema.field(name).type)


def _kinds(batch: pa.RecordBatch, optional: list[str]) -> dict[str, pa.Array]:
    """Return the kind of each image, by the name of the count."""
    pixels = pc.multiply(batch["width"].cast(pa.int64()), batch["height"].cast(pa.int64()))
    classes = np.searchsorted(_SIZES, pixels.to_numpy() / 1e6, side="right") - 1
    kinds = {
        "format": valid_text(batch["format"]),
        "pixels": pa.array(classes),
        # Like folder_of(), with the name of the source: two sources can have equal folder names.
        "folder": pc.replace_substring_regex(valid_text(batch["image_id"]), "/[^/]*$", ""),
    }
    if "taken" in optional:
        kinds["taken"] = pc.year(batch["taken"])
    if "camera" in optional:
        kinds["camera"] = valid_text(batch["camera"])
    return kinds


def _counted(values: pa.Array) -> dict[Hashable, int]:
    found = pc.value_counts(values)
    pairs = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    return dict(pairs)


def _shown(tally: Mapping[str, Counter[Any]]) -> list[Count]:
    titles = {"taken": "Taken in", "folder": "Folders", "camera": "Cameras", "format": "Formats"}
    shown = [
        _most_frequent(title, tally[name], newest=name == "taken")
        for name, title in titles.items()
        if name in tally
    ]
    sizes = sorted(tally.get("pixels", Counter()).items())
    most = max((count for _, count in sizes), default=1)
    rows = tuple(Row(_megapixels(one), count, 100 * count / most) for one, count in sizes)
    return [count for count in (*shown, Count("Megapixels", rows)) if count.rows]


def _most_frequent(title: str, found: Counter[Any], *, newest: bool) -> Count:
    """Return the most frequent kinds, or the newest years."""
    unknown = found.get(None, 0) + found.get("", 0)
    known = [(one, count) for one, count in found.items() if one not in (None, "")]
    known.sort(key=lambda pair: -pair[0] if newest else (-pair[1], pair[0]))
    shown, hidden = known[:_MOST_ROWS], known[_MOST_ROWS:]
    most = max((count for _, count in shown), default=1)
    rows = tuple(Row(str(one), count, 100 * count / most) for one, count in shown)
    return Count(title, rows, len(hidden), sum(count for _, count in hidden), unknown)


def _megapixels(number: int) -> str:
    low = _SIZES[number]
    if number + 1 == len(_SIZES):
        return f"over {low:g}"
    high = _SIZES[number + 1]
    return f"{low:g} – {high:g}" if low else f"up to {high:g}"
