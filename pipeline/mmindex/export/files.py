"""Write Parquet files table by table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import os_errors


class TableFile:
    """A Parquet file with the schema of the first table. The caller must close it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: pq.ParquetWriter | None = None

    def close(self) -> None:
        """Write the footer and close the file.

        Raises:
            StorageError: the disk is full, or an I/O error occurs.
        """
        if self._writer is not None:
            with os_errors(self.path):
                self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append a table.

        Raises:
            StorageError: the disk is full, or an I/O error occurs.
        """
        with os_errors(self.path):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.path, table.schema)
            self._writer.write_table(table)


def with_column(table: pa.Table, name: str, column: Any) -> pa.Table:
    """Return a table with one more column; an existing one is renamed to ``meta_NAME``."""
    if name in table.column_names:
        table = table.rename_columns(
            [f"meta_{one}" if one == name else one for one in table.column_names]
        )
    return table.append_column(name, column)
