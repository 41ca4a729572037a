"""The layout ``clip-retrieval``: numbered ``.npy`` files, and Parquet files with the same rows.

The files are ``img_emb/img_emb_0.npy``, ``text_emb/text_emb_0.npy`` and
``metadata/metadata_0.parquet``, as in the output of ``clip-retrieval inference``.
``clip-retrieval index``, autofaiss and embedding-reader can read them:
https://github.com/rom1504/clip-retrieval
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import os_errors
from mmindex.core.modality import Modality
from mmindex.export.files import TableFile, with_column
from mmindex.export.rows import BLOCK_ROWS, Block, Rows

PART_ROWS: Final = 12 * BLOCK_ROWS
_PATH: Final = "image_path"  # the name of the uri column in clip-retrieval


class _Npy:
    """A float16 ``.npy`` file whose number of rows is known in advance."""

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        self._path = path
        with os_errors(path):
            self._file = path.open("xb")
            header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
            np.lib.format.write_array_header_1_0(self._file, header)

    def close(self) -> None:
        with os_errors(self._path):
            self._file.close()

    def write(self, rows: NDArray[np.float16]) -> None:
        with os_errors(self._path):
            self._file.write(np.ascontiguousarray(rows, "<f2").data)


def write(rows: Rows, folder: Path) -> bool:
    """Write all rows, and return whether text vectors were written.

    Row i of a text file must belong to row i of the image file. Text files are therefore written
    only if every image has a caption, and contain the vector of the first caption of each image.

    Raises:
        DataError: the store is damaged.
        StorageError: the disk is full, or an I/O error occurs.
    """
    with_texts = rows.every_image_has_a_caption
    for name in ("img_emb", "metadata", *(["text_emb"] if with_texts else [])):
        with os_errors(folder):
            (folder / name).mkdir()
    digits = len(str((len(rows) - 1) // PART_ROWS))  # readers sort the files by name
    blocks = rows.blocks()
    for number, start in enumerate(range(0, len(rows), PART_ROWS)):
        size = min(PART_ROWS, len(rows) - start)
        part = (next(blocks) for _ in range(-(-size // BLOCK_ROWS)))
        _write_part(rows, folder, f"{number:0{digits}d}", size, part, with_texts=with_texts)
    return with_texts


def _write_part(
    rows: Rows, folder: Path, tag: str, size: int, blocks: Iterator[Block], *, with_texts: bool
) -> None:
    dim = rows.snapshot.encoder.dim
    with ExitStack() as stack:
        metadata = stack.enter_context(
            closing(TableFile(folder / "metadata" / f"metadata_{tag}.parquet"))
        )
        images = stack.enter_context(
            closing(_Npy(folder / "img_emb" / f"img_emb_{tag}.npy", size, dim))
        )
        texts = None
        if with_texts:
            texts = _Npy(folder / "text_emb" / f"text_emb_{tag}.npy", size, dim)
            stack.callback(texts.close)
        for block in blocks:
            metadata.write(_metadata(block))
            images.write(block.vectors)
            if texts is not None:
                texts.write(rows.snapshot.vectors(Modality.TEXT).take(block.first_captions))


def _metadata(block: Block) -> pa.Table:
    table = block.images
    table = with_column(table.drop_columns("uri"), _PATH, table["uri"])
    first = pa.array([one[0] if one else None for one in block.captions.to_pylist()], pa.string())
    return with_column(with_column(table, "caption", first), "captions", block.captions)
