"""Columns of the images table for the hits of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import UsageError, did_you_mean
from mmindex.core.records import Hit
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot


def check_columns(snapshot: Snapshot, names: Sequence[str]) -> tuple[str, ...]:
    """Check that the images table has these columns.

    Raises:
        UsageError: it has not; the message names those that it has.
    """
    with snapshot.open_parquet("images") as file:
        known = file.schema_arrow.names
    for name in names:
        if name not in known:
            raise UsageError(
                f"no column {name!r}{did_you_mean(name, known)}", f"columns: {', '.join(known)}"
            )
    return tuple(names)


def image_columns(
    snapshot: Snapshot, image_ids: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Values of some columns by image id; None where an image has none."""
    wanted = pa.array({one.encode("utf-8", "surrogatepass") for one in image_ids}, pa.binary())
    found: dict[str, dict[str, Any]] = {}
    with snapshot.open_parquet("images") as file:
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["image_id"])["image_id"]
            mask = pc.is_in(ids.cast(pa.binary()), value_set=wanted)
            if not pc.any(mask).as_py():
                continue
            rows = file.read_row_group(group, columns=list(names)).filter(mask)
            values = zip(*(contents(rows[name]) for name in names), strict=True)
            for key, row in zip(contents(ids.filter(mask)), values, strict=True):
                found.setdefault(key, dict(zip(names, row, strict=True)))
    return found


def sorted_hits(
    snapshot: Snapshot, hits: Sequence[Hit], name: str, descending: bool
) -> tuple[Hit, ...]:
    """The hits in the order of a column; those without a value last."""
    values = image_columns(snapshot, [hit.image_id for hit in hits], [name])
    there = [hit for hit in hits if values[hit.image_id][name] is not None]
    missing = [hit for hit in hits if values[hit.image_id][name] is None]
    there.sort(key=lambda hit: values[hit.image_id][name], reverse=descending)
    return (*there, *missing)
