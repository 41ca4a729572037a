"""The corpus tables as Arrow: ``images`` and ``captions``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
import pyarrow as pa

from mmindex.core.errors import DataError
from mmindex.core.records import MetadataValue, Scalar
from mmindex.media.photo import DURATION, PHOTO_COLUMNS

_IMAGE_FIELDS: Final = (
    pa.field("image_id", pa.string()),
    pa.field("key", pa.string()),
    pa.field("source", pa.string()),
    pa.field("uri", pa.string()),
    pa.field("split", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("format", pa.string()),
    pa.field("size_bytes", pa.int64()),
)
IMAGE_COLUMNS: Final = tuple(field.name for field in _IMAGE_FIELDS)

CAPTIONS_SCHEMA: Final = pa.schema(
    [
        pa.field("caption_id", pa.string()),
        pa.field("key", pa.string()),
        pa.field("image_id", pa.string()),
        pa.field("text", pa.string()),
    ]
)

# The columns about an image's file, in addition to PHOTO_COLUMNS.
FILE_COLUMNS: Final = ("folder", "filename", "modified")
VIDEO_COLUMNS: Final = (DURATION, "time_s")
# More columns than any real corpus has; a hostile file could add new ones in every row.
MAX_METADATA_COLUMNS: Final = 256
_TIMESTAMP: Final = pa.timestamp("us")  # without a time zone
_EMPTY_LIST: Final = pa.list_(pa.null())
_INT64: Final = range(-(2**63), 2**63)


def images_schema(metadata: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the schema of ``images``: the fixed columns, then those of the sources in order.

    Args:
        metadata: Arrow types of the columns of sources, see :class:`MetadataColumns`.
    """
    own = tuple(pa.field(name, kind) for name, kind in metadata.items())
    return pa.schema(list(_IMAGE_FIELDS + own))


def column_name(name: str) -> str:
    """Return the name of a source column: ``meta_...`` if it is empty or a fixed name."""
    return f"meta_{name}" if not name or name.lower() in IMAGE_COLUMNS else name


class MetadataColumns:
    """Determines the type of each source column from its values.

    A column is bool, int64, double, timestamp or string, or a list of one of these. Integers and
    floats together are double; every other mixture, and integers beyond 64 bits, are string (a list
    as its JSON text). A column with only nulls is string.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, pa.DataType | None] = {}
        self.mixed: set[str] = set()  # columns of several types, which are kept as text

    def add(self, metadata: Mapping[str, MetadataValue]) -> None:
        """Add the columns of a row, with names from :func:`column_name`.

        Raises:
            DataError: there are more than ``MAX_METADATA_COLUMNS`` columns.
        """
        for name, value in metadata.items():
            kind = None if value is None else _kind_of(value)
            known = self._kinds.setdefault(name, kind)
            if kind is not None and kind != known:
                common = self._kinds[name] = _common(known, kind)
                if common == pa.string() and known is not None:
                    self.mixed.add(name)
        if len(self._kinds) <= MAX_METADATA_COLUMNS:
            return
        own = self._kinds.keys() - {*PHOTO_COLUMNS, *FILE_COLUMNS, *VIDEO_COLUMNS}
        if len(own) > MAX_METADATA_COLUMNS:
            raise DataError(
                f"the sources add {len(own)} columns; the limit is {MAX_METADATA_COLUMNS}",
                "remove fields that vary from row to row from captions.jsonl",
            )

    def types(self) -> dict[str, pa.DataType]:
        """Return the type of each column by name, in order."""
        return {name: _settled(kind) for name, kind in sorted(self._kinds.items())}


def _settled(kind: pa.DataType | None) -> pa.DataType:
    """Return a type for columns with only nulls or only empty lists."""
    if kind is None:
        return pa.string()
    return pa.list_(pa.string()) if kind == _EMPTY_LIST else kind


def _kind_of(value: str | float | bool | datetime | list[Scalar]) -> pa.DataType:
    if isinstance(value, list):
        kinds = [_kind_of(one) for one in value if one is not None]
        return pa.list_(functools.reduce(_common, kinds)) if kinds else _EMPTY_LIST
    if isinstance(value, datetime):
        return _TIMESTAMP
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if value in _INT64 else pa.string()
    return pa.float64() if isinstance(value, float) else pa.string()


def _common(first: pa.DataType | None, second: pa.DataType) -> pa.DataType:
    if first is None or first == second:
        return second
    if pa.types.is_list(first) and pa.types.is_list(second):
        if _EMPTY_LIST in (first, second):
            return second if first == _EMPTY_LIST else first
        return pa.list_(_common(first.value_type, second.value_type))
    return pa.float64() if {first, second} == {pa.int64(), pa.float64()} else pa.string()


def column_value(value: MetadataValue, kind: pa.DataType) -> MetadataValue:
    """Convert a value to the type of its column; times can be ISO 8601."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if pa.types.is_timestamp(kind):
        return None if value is None else datetime.fromisoformat(str(value))
    if isinstance(value, list) and pa.types.is_list(kind):
        return [_scalar_value(one, kind.value_type) for one in value]
    if isinstance(value, list):
        return msgspec.json.encode(value).decode()
    return _scalar_value(value, kind)


def _scalar_value(value: Scalar, kind: pa.DataType) -> Scalar:
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
