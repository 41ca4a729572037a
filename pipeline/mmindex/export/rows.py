"""The rows of an export: images with their metadata, captions and vectors, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import NoInputError
from mmindex.core.modality import Modality
from mmindex.evaluate.corpus import slices
from mmindex.evaluate.fit_items import Said, fit_items, fused_vectors
from mmindex.search.columns import output_columns
from mmindex.search.filters import select_images
from mmindex.store.objects import valid_text
from mmindex.store.snapshot import Snapshot

Float16 = NDArray[np.float16]
Int64 = NDArray[np.int64]

# Rows in memory at a time: 8,192 x 1,024 float16 values are 16 MiB.
BLOCK_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Block:
    """Some images, in the order of the ``images`` table.

    Attributes:
        images: table of n rows with the exported columns; text is valid UTF-8.
        captions: list<string> (n,), the captions of each image, in the order of their table.
        vectors: float16 (n, dim), unit length up to rounding.
        first_captions: int64 (n,), the vector id of the first caption of each image; -1 if it has
            none.
    """

    images: pa.Table
    captions: pa.ListArray
    vectors: Float16
    first_captions: Int64


class Rows:
    """The exported rows of a version.

    It needs about 200 bytes of memory per row while keys and image ids are looked up, and 40 bytes
    per row afterwards.

    Args:
        snapshot: the version.
        where: an SQL condition on images; None exports all images.
        with_location: whether to export location columns.
        fuse_captions: whether to combine the vectors of images with those of their captions; see
            :mod:`mmindex.evaluate.fit_items`.

    Attributes:
        snapshot: as above.
        columns: the exported columns of the images table.
        fit: the weight of captions in the vectors of images; None without ``fuse_captions``.

    Raises:
        UsageError: ``where`` is invalid.
        NoInputError: no image matches it, or the version has no image index.
        DataError: the store is damaged.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        where: str | None,
        *,
        with_location: bool,
        fuse_captions: bool = False,
    ) -> None:
        self.snapshot = snapshot
        self.columns = output_columns(snapshot, with_location=with_location)
        self._vector_ids = snapshot.row_ids(Modality.IMAGE)
        count = len(self._vector_ids)
        chosen = np.ones(count, np.bool_) if where is None else select_images(snapshot, where)
        self._chosen = np.flatnonzero(chosen)
        if not len(self._chosen):
            raise NoInputError("no image matches `where`; nothing was exported")
        self.fit = fit_items(snapshot) if fuse_captions else None

    def __len__(self) -> int:
        """Return the number of exported images."""
        return len(self._chosen)

    @property
    def has_texts(self) -> bool:
        """Whether the version has captions with vectors."""
        return Modality.TEXT in self.snapshot.manifest.indexes

    @cached_property
    def _said(self) -> Said:
        return Said.of(self.snapshot)

    @property
    def every_image_has_a_caption(self) -> bool:
        """Whether each exported image has at least one caption."""
        return self.has_texts and bool((self._said.counts[self._chosen] > 0).all())

    @cached_property
    def caption_rows(self) -> Int64:
        """The rows of the ``captions`` table of exported images: int64 (m,), ascending."""
        if not self.has_texts:
            return np.empty(0, np.int64)
        wanted = np.zeros(len(self._vector_ids), np.bool_)
        wanted[self._chosen] = True
        return np.flatnonzero(wanted[self._said.owners])

    @property
    def text_ids(self) -> Int64:
        """The vector id of each row of the ``captions`` table: int64 (captions,)."""
        return self._said.ids

    def blocks(self) -> Iterator[Block]:
        """Yield the images in blocks of at most ``BLOCK_ROWS`` rows.

        Raises:
            DataError: the store is damaged.
        """
        vectors = self.snapshot.vectors(Modality.IMAGE)
        weight = 0.0 if self.fit is None else self.fit.weight
        for start in range(0, len(self._chosen), BLOCK_ROWS):
            rows = self._chosen[start : start + BLOCK_ROWS]
            captions, first = self._captions(rows)
            found = vectors.take(self._vector_ids[rows])
            if weight > 0:
                means = self._said.means(self.snapshot, rows)
                found = fused_vectors(found, means, weight).astype(np.float16)
            table = readable(self.snapshot.take("images", self.columns, rows))
            yield Block(table, captions, found, first)
            vectors.let_go()

    def _captions(self, rows: Int64) -> tuple[pa.ListArray, Int64]:
        """Return the captions of some images, and the vector id of the first caption of each."""
        if not self.has_texts:
            offsets = pa.array(np.zeros(len(rows) + 1, np.int32))
            return pa.ListArray.from_arrays(offsets, pa.array([], pa.string())), np.full(
                len(rows), -1, np.int64
            )
        said = self._said
        counts = said.counts[rows]
        starts = said.starts[rows]
        wanted = said.order[slices(starts, counts)]
        ascending = np.unique(wanted)
        texts = valid_text(self.snapshot.take("captions", ["text"], ascending)["text"])
        texts = texts.combine_chunks().take(pa.array(np.searchsorted(ascending, wanted)))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        first = np.full(len(rows), -1, np.int64)
        some = counts > 0
        first[some] = self.text_ids[said.order[starts[some]]]
        return pa.ListArray.from_arrays(offsets, texts), first


def readable(table: pa.Table) -> pa.Table:
    """Return a table with text as valid UTF-8: other tools reject lone surrogates."""
    for place, name in enumerate(table.column_names):
        table = table.set_column(place, name, valid_text(table[name]))
    return table


def vector_column(vectors: NDArray[np.floating]) -> pa.FixedSizeListArray:
    """Return vectors (n, dim) as fixed_size_list<float32>, for DuckDB, LanceDB and pandas."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
