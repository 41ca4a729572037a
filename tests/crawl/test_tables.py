"""Metadata columns: the union over rows and sources, each with a suitable type."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mmindex.core.errors import DataError
from mmindex.core.records import MetadataValue
from mmindex.crawl.tables import (
    CAPTIONS_SCHEMA,
    MAX_METADATA_COLUMNS,
    MetadataColumns,
    column_name,
    column_value,
    images_schema,
)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", None], pa.string()),
        ([1, None, -5], pa.int64()),
        ([None, None], pa.string()),
        ([True, False], pa.bool_()),
        ([0.5, 1.5], pa.float64()),
        ([1, 0.5], pa.float64()),
        ([0.5, 1], pa.float64()),
        ([None, 1, 0.5, "x"], pa.string()),
        ([True, 1], pa.string()),
        ([2**63 - 1, -(2**63)], pa.int64()),
        ([1, 2**63], pa.string()),
        ([0.5, 2**63], pa.string()),
        (["x", True], pa.string()),
    ],
)
def test_a_column_has_a_type_for_all_its_values(
    values: list[MetadataValue], kind: pa.DataType
) -> None:
    columns = MetadataColumns()
    for value in values:
        columns.add({"c": value})
    assert columns.types() == {"c": kind}
    pa.array([column_value(value, kind) for value in values], kind)


def test_values_of_a_mixed_column_are_written_as_json_writes_them() -> None:
    values: list[MetadataValue] = [True, False, 3, 0.5, "x", None]
    assert [column_value(value, pa.string()) for value in values] == [
        *("true", "false", "3", "0.5", "x"),
        None,
    ]


def test_source_columns_are_sorted_after_the_fixed_ones() -> None:
    columns = MetadataColumns()
    columns.add({"z": 1, "a": "x"})
    columns.add({"m": True})
    schema = images_schema(columns.types())
    assert schema.names[:4] == ["image_id", "key", "source", "uri"]
    assert schema.names[9:] == ["a", "m", "z"]
    assert CAPTIONS_SCHEMA.names == ["caption_id", "key", "image_id", "text"]


def test_a_source_column_never_replaces_a_fixed_one() -> None:
    assert column_name("width") == "meta_width"
    assert column_name("URI") == "meta_URI"  # SQL does not distinguish upper and lower case
    assert column_name("") == "meta_"
    assert column_name("licence") == "licence"


def test_a_hostile_number_of_columns_is_refused() -> None:
    columns = MetadataColumns()
    with pytest.raises(DataError, match=str(MAX_METADATA_COLUMNS)):
        for number in range(MAX_METADATA_COLUMNS + 1):
            columns.add({f"c{number}": 1})
