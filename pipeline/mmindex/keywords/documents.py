"""The texts of an image that the keyword index contains: names, metadata and captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.keywords.postings import MOST_WORDS
from mmindex.keywords.words import words
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot, positions

Int64 = NDArray[np.int64]

_METADATA: Final = ("title", "description", "keywords")


@dataclass(slots=True)
class Document:
    """The texts of one image.

    Attributes:
        about: its names, and its metadata.
        captions: its captions.
    """

    about: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All texts, one per line."""
        return "\n".join([*self.about, *self.captions])


def count_words(text: str) -> Counter[str]:
    """Return how often each word occurs among the first ``MOST_WORDS`` of a text."""
    return Counter(islice(words(text), MOST_WORDS))


class Documents:
    """The documents of a version, by the ids of its image index.

    Rows with the same content are one document with all of their names. In memory: 16 bytes for
    each image and caption.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Read which rows belong to which id.

        Raises:
            DataError: the tables do not match the index.
        """
        self._snapshot = snapshot
        self._images = snapshot.row_ids(Modality.IMAGE)
        self._captions = np.empty(0, dtype=np.int64)
        if snapshot.manifest.require("captions").rows:
            owners = snapshot.table("captions", ["image_id"])["image_id"]
            known = snapshot.table("images", ["image_id"])["image_id"]
            rows = positions(owners, known, "captions: a row belongs to no image")
            self._captions = self._images[rows]
        with snapshot.open_parquet("images") as file:
            kinds = {one.name: one.type for one in file.schema_arrow}
        self._columns = ["image_id", "uri"]
        self._columns += [name for name in _METADATA if name in kinds and _is_text(kinds[name])]

    def captioned(self) -> Int64:
        """Return the id of the image of each row of the table of captions: int64 (rows,)."""
        return self._captions

    def among(self, ids: Int64) -> dict[int, Document]:
        """Return the documents with these ids (ascending); only those with texts, ascending."""
        found: dict[int, Document] = {}
        for owner, row in self._rows("images", self._columns, self._images, ids):
            found.setdefault(owner, Document()).about += _about(row)
        for owner, (text,) in self._rows("captions", ["text"], self._captions, ids):
            found.setdefault(owner, Document()).captions.append(text)
        return dict(sorted(found.items()))

    def _rows(
        self, table: str, columns: list[str], owners: Int64, ids: Int64
    ) -> Iterator[tuple[int, tuple[Any, ...]]]:
        places = np.searchsorted(ids, owners)
        places[places == len(ids)] = 0
        rows = np.flatnonzero(ids[places] == owners) if len(ids) else places[:0]
        if len(rows):
            taken = self._snapshot.take(table, columns, rows)
            values = zip(*(contents(taken[name]) for name in columns), strict=True)
            yield from zip(owners[rows].tolist(), values, strict=True)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind.value_type if pa.types.is_list(kind) else kind))


def _about(row: tuple[Any, ...]) -> Iterator[str]:
    """Yield the names of an image, each once, then its metadata."""
    image_id, uri, *metadata = row
    name, of_id = (one.rpartition("/")[2] for one in (uri, image_id))
    yield name.rpartition("!")[2]
    if not name.startswith(of_id):
        yield of_id
    for value in metadata:
        if isinstance(value, list):
            yield from (one for one in value if one)
        elif value:
            yield value
