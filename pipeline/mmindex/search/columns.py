"""Read columns of the images table for hits.

All output of image rows is read here, so that locations are included only on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import UsageError, did_you_mean
from mmindex.core.records import LOCATION_COLUMNS, NamedHit
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

H = TypeVar("H", bound=NamedHit)

_DESCENDING: Final = ":desc"


@dataclass(frozen=True, slots=True)
class Order:
    """A column to sort hits by; with ``descending``, the largest value comes first."""

    column: str
    descending: bool = False


def output_columns(snapshot: Snapshot, *, with_location: bool = False) -> list[str]:
    """Return the columns of the images table that are allowed in output."""
    with snapshot.open_parquet("images") as file:
        names: list[str] = file.schema_arrow.names
    return names if with_location else [name for name in names if not _tells_place(name)]


def check_columns(
    snapshot: Snapshot, names: Sequence[str], *, with_location: bool = False
) -> tuple[str, ...]:
    """Check that the images table has these columns, and that they are allowed in output.

    Raises:
        UsageError: a column is missing or not allowed; the message lists the available columns.
    """
    known = output_columns(snapshot, with_location=with_location)
    for name in names:
        if name in known:
            continue
        if _tells_place(name) and name in output_columns(snapshot, with_location=True):
            raise UsageError(
                f"column {name!r} contains the locations of photos",
                "pass `with_location` to include it in output; conditions can always use it",
            )
        raise UsageError(
            f"no column {name!r}{did_you_mean(name, known)}", f"columns: {', '.join(known)}"
        )
    return tuple(names)


def image_rows(
    snapshot: Snapshot,
    image_ids: Iterable[str],
    names: Sequence[str] | None = None,
    *,
    with_location: bool = False,
) -> pa.Table:
    """Return the allowed columns of the rows with these ids, in the order of the table.

    Args:
        snapshot: the version.
        image_ids: ids of images.
        names: the columns, see :func:`check_columns`; ``image_id`` is added in front if it is
            missing. None: all.
        with_location: also allow location columns.
    """
    if names is None:
        names = output_columns(snapshot, with_location=with_location)
    else:
        check_columns(snapshot, names, with_location=with_location)
        names = list(dict.fromkeys(("image_id", *names)))
    return _rows(snapshot, image_ids, names)


def image_columns(
    snapshot: Snapshot,
    image_ids: Iterable[str],
    names: Sequence[str],
    *,
    with_location: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return the values of some columns by image id; None for missing values.

    Raises:
        UsageError: as :func:`check_columns`.
    """
    check_columns(snapshot, names, with_location=with_location)
    return _values(snapshot, image_ids, names)


def read_order(snapshot: Snapshot, text: str) -> Order:
    """Parse ``COLUMN`` or ``COLUMN:desc``. Location columns are allowed, as in conditions.

    Raises:
        UsageError: there is no such column; the message lists the columns.
    """
    known = output_columns(snapshot, with_location=True)
    descending = text.endswith(_DESCENDING) and text not in known
    column = text.removesuffix(_DESCENDING) if descending else text
    [column] = check_columns(snapshot, [column], with_location=True)
    return Order(column, descending)


def sorted_hits(snapshot: Snapshot, hits: Sequence[H], order: Order) -> tuple[H, ...]:
    """Sort hits by a column; hits without a value come last. Ranks do not change."""
    values = _values(snapshot, [hit.image_id for hit in hits], [order.column])
    found = [(values[hit.image_id][order.column], hit) for hit in hits]
    there = [(_comparable(value), hit) for value, hit in found if _is_value(value)]
    there.sort(key=lambda one: one[0], reverse=order.descending)
    return (*(hit for _, hit in there), *(hit for value, hit in found if not _is_value(value)))


def _is_value(value: Any) -> bool:
    return value is not None and value == value  # NaN has no position in an order


def _comparable(value: Any) -> Any:
    """Return a key that is comparable with all others in the column: lists can contain nulls."""
    if isinstance(value, list):
        return [(one is None, 0 if one is None else one) for one in value]
    return value


def _tells_place(name: str) -> bool:
    return name.lower() in LOCATION_COLUMNS


def _values(
    snapshot: Snapshot, image_ids: Iterable[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    table = _rows(snapshot, image_ids, list(dict.fromkeys(("image_id", *names))))
    columns = [contents(table[name]) for name in names]
    return {
        key: dict(zip(names, row, strict=True))
        for key, *row in zip(contents(table["image_id"]), *columns, strict=True)
    }


def _rows(snapshot: Snapshot, image_ids: Iterable[str], names: Sequence[str]) -> pa.Table:
    """Read some columns of the rows with these ids; only row groups with such rows are read."""
    wanted = pa.array({one.encode("utf-8", "surrogatepass") for one in image_ids}, pa.binary())
    with snapshot.open_parquet("images") as file:
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        parts = [schema.empty_table()]
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["image_id"])["image_id"]
            mask = pc.is_in(ids.cast(pa.binary()), value_set=wanted)
            if pc.any(mask).as_py():
                rows = file.read_row_group(group, columns=list(names)).select(list(names))
                parts.append(rows.filter(mask))
    return pa.concat_tables(parts)
