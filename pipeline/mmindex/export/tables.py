"""The layout ``parquet``: a table of images and a table of captions, with their vectors."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final

from mmindex.core.modality import Modality
from mmindex.export.files import TableFile, with_column
from mmindex.export.rows import BLOCK_ROWS, Rows, readable, vector_column

VECTOR: Final = "vector"
_CAPTION_COLUMNS: Final = ("caption_id", "image_id", "key", "text")


def write(rows: Rows, folder: Path) -> None:
    """Write ``images.parquet`` and, if there are captions, ``captions.parquet``.

    Raises:
        DataError: the store is damaged.
        StorageError: the disk is full, or an I/O error occurs.
    """
    with closing(TableFile(folder / "images.parquet")) as file:
        for block in rows.blocks():
            file.write(with_column(block.images, VECTOR, vector_column(block.vectors)))
    wanted = rows.caption_rows
    if not len(wanted):
        return
    vectors = rows.snapshot.vectors(Modality.TEXT)
    with closing(TableFile(folder / "captions.parquet")) as file:
        for start in range(0, len(wanted), BLOCK_ROWS):
            part = wanted[start : start + BLOCK_ROWS]
            table = readable(rows.snapshot.take("captions", _CAPTION_COLUMNS, part))
            found = vectors.take(rows.text_ids[part])
            file.write(with_column(table, VECTOR, vector_column(found)))
            vectors.let_go()
