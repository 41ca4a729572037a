"""The corpus as arrays of row and vector numbers, and the queries that recall is measured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.modality import Modality
from mmindex.evaluate.items import Items, Queries
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.vectors import Vectors

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Both sides of a corpus, and which caption belongs to which image.

    Attributes:
        images: rows of the ``images`` table.
        captions: rows of the ``captions`` table; None where there are none.
        image_of_caption: int64 (captions,), each caption's row in ``images``.
    """

    images: Items
    captions: Items | None
    image_of_caption: Int64


def load_corpus(objects: Objects, manifest: Manifest) -> Corpus:
    """Read the tables of a version that has been indexed.

    Memory: the key columns while they are looked up (64 bytes a row), then 32 bytes a row.

    Raises:
        NoInputError: the version has not been indexed.
        DataError: a row has no vector, a caption no image, or an object is damaged.
    """
    images = _table(manifest, "images")
    captions = _table(manifest, "captions")
    image_items = _items(objects, manifest, images, Modality.IMAGE)
    if Modality.TEXT not in manifest.indexes:
        return Corpus(image_items, None, np.empty(0, dtype=np.int64))
    known = objects.read_table(images, ["image_id"])["image_id"]
    owners = objects.read_table(captions, ["image_id"])["image_id"]
    return Corpus(
        image_items,
        _items(objects, manifest, captions, Modality.TEXT),
        _positions(owners, known, "captions: a caption belongs to no image"),
    )


def _table(manifest: Manifest, name: str) -> ObjectRef:
    ref = manifest.find(name)
    if ref is None:
        raise NoInputError(f"version {manifest.version} has no {name}", "run `mmindex crawl` first")
    return ref


def _items(objects: Objects, manifest: Manifest, table: ObjectRef, modality: Modality) -> Items:
    if modality not in manifest.indexes:
        raise NoInputError(
            f"version {manifest.version} has no {modality} index", "run `mmindex index` first"
        )
    names = objects.read_table(_table(manifest, f"ids/{modality}"), ["key"])["key"]
    keys = objects.read_table(table, ["key"])["key"]
    ids = _positions(keys, names, f"{table.name}: a row has no vector")
    return Items(Vectors(objects, manifest, modality), ids)


def _positions(values: Any, known: Any, complaint: str) -> Int64:
    """Where each value stands in ``known``: int64 (len(values),)."""
    # Bytes, not strings: ids may hold half surrogates, which are no UTF-8.
    found = pc.index_in(values.cast(pa.binary()), value_set=known.cast(pa.binary()))
    if found.null_count:
        raise DataError(complaint, "run `mmindex check --full`, then `mmindex build`")
    positions: Int64 = found.to_numpy().astype(np.int64)
    return positions


def sample(n: int, wanted: int, seed: int) -> Int64:
    """``wanted`` of the numbers 0..n-1, ascending, seeded; all of them where n is not larger."""
    if n <= wanted:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def caption_queries(captions: Items, image_of_caption: Int64, rows: Int64) -> Queries:
    """Text to image: each of these captions asks for its own image."""
    return Queries(
        vectors=captions.vectors,
        ids=captions.id_of_row[rows],
        offsets=np.arange(len(rows) + 1),
        right=image_of_caption[rows],
    )


def image_queries(images: Items, image_of_caption: Int64, rows: Int64) -> Queries:
    """Image to text: each of these images, which have captions, asks for any one of its own."""
    grouped = np.argsort(image_of_caption, kind="stable").astype(np.int64)
    counts = np.bincount(image_of_caption, minlength=len(images.id_of_row))
    starts = (np.cumsum(counts) - counts)[rows]
    sizes = counts[rows]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    # For each image its slice of ``grouped``, all slices laid end to end.
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    return Queries(
        vectors=images.vectors,
        ids=images.id_of_row[rows],
        offsets=offsets,
        right=grouped[np.repeat(starts, sizes) + inside],
    )
