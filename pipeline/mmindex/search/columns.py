"""Columns of the images table for the hits of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import NoInputError, UsageError, did_you_mean
from mmindex.core.records import Hit
from mmindex.search.snapshot import Published
from mmindex.store.manifest import ObjectRef


def check_columns(published: Published, names: Sequence[str]) -> tuple[str, ...]:
    """Check that the images table has these columns.

    Raises:
        UsageError: it has not; the message names those that it has.
    """
    with published.objects.open_parquet(_images(published)) as file:
        known = file.schema_arrow.names
    for name in names:
        if name not in known:
            raise UsageError(
                f"no column {name!r}{did_you_mean(name, known)}", f"columns: {', '.join(known)}"
            )
    return tuple(names)


def image_columns(
    published: Published, image_ids: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Values of some columns by image id; None where an image has none."""
    wanted = pa.array({one.encode("utf-8", "surrogatepass") for one in image_ids}, pa.binary())
    found: dict[str, dict[str, Any]] = {}
    with published.objects.open_parquet(_images(published)) as file:
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["image_id"])["image_id"].cast(pa.binary())
            mask = pc.is_in(ids, value_set=wanted)
            if not pc.any(mask).as_py():
                continue
            rows = file.read_row_group(group, columns=list(names)).filter(mask)
            values = zip(*(_values(rows[name]) for name in names), strict=True)
            for key, row in zip(_values(ids.filter(mask)), values, strict=True):
                found.setdefault(key, dict(zip(names, row, strict=True)))
    return found


def sorted_hits(
    published: Published, hits: Sequence[Hit], name: str, descending: bool
) -> tuple[Hit, ...]:
    """The hits in the order of a column; those without a value last."""
    values = image_columns(published, [hit.image_id for hit in hits], [name])
    there = [hit for hit in hits if values[hit.image_id][name] is not None]
    missing = [hit for hit in hits if values[hit.image_id][name] is None]
    there.sort(key=lambda hit: values[hit.image_id][name], reverse=descending)
    return (*there, *missing)


def _images(published: Published) -> ObjectRef:
    ref = published.manifest.find("images")
    if ref is None:
        raise NoInputError(
            f"version {published.manifest.version} has no images", "run `mmindex build` first"
        )
    return ref


def _values(column: Any) -> list[Any]:
    """Values of a column; half surrogates, which are no UTF-8, are kept."""
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        texts = column.cast(pa.binary()).to_pylist()
        return [None if one is None else str(one, "utf-8", "surrogatepass") for one in texts]
    return list(column.to_pylist())
