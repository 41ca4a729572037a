"""A segment of the keyword index: the words of a range of images, as one object.

The object is an Arrow file with one row per word, in the order of their code points: the ids of
the images that have the word, ascending, and how often. It is mapped, so a query reads only the
rows of its words. The same texts have the same bytes, as in every other object of a store.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.keywords.names import SEGMENTS
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import REPAIR_HINT, Objects
from mmindex.store.publish import StagedFile

SEGMENT_IDS: Final = 1 << 18
"""Ids of a segment: with 50 words for each image, building one takes some 300 MB."""
MOST_WORDS: Final = 4_096
"""Words of one image that are indexed: a segment has fewer than 2^31 postings, and no count
exceeds 16 bits."""

_LISTS: Final = {"ids": pa.int32(), "counts": pa.uint16()}
_DIGEST: Final = b"mmindex.texts"

Int32 = NDArray[np.int32]
Counts = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Postings:
    """The images that have a word: ids, int32 (n,), ascending, and counts, uint16 (n,)."""

    ids: Int32
    counts: Counts


class _Places(dict[str, int]):
    """The number of each word, in the order of their first occurrence."""

    def __missing__(self, word: str) -> int:
        self[word] = place = len(self)
        return place


class SegmentBuilder:
    """Collects the words of images in ascending order of their ids."""

    def __init__(self) -> None:
        self._places = _Places()
        self._images, self._sizes = array("i"), array("i")
        self._words, self._counts = array("i"), array("H")

    def add(self, image: int, tally: Counter[str]) -> None:
        """Add an image with its words."""
        self._images.append(image)
        self._sizes.append(len(tally))
        self._words.extend(map(self._places.__getitem__, tally))
        self._counts.extend(tally.values())

    def table(self) -> pa.Table:
        """Return the segment."""
        vocabulary = sorted(self._places)
        rank = np.empty(len(vocabulary), dtype=np.int32)
        rank[[self._places[word] for word in vocabulary]] = np.arange(len(vocabulary))
        words = rank[np.asarray(self._words, dtype=np.int32)]
        ids = np.repeat(np.asarray(self._images), np.asarray(self._sizes))
        order = np.argsort(words, kind="stable")  # within a word, ids stay ascending
        sizes = np.bincount(words, minlength=len(vocabulary))
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
        lists = [
            pa.ListArray.from_arrays(offsets, pa.array(np.asarray(values)[order], kind))
            for values, kind in zip((ids, self._counts), _LISTS.values(), strict=True)
        ]
        return pa.table([pa.array(vocabulary, pa.string()), *lists], names=["word", *_LISTS])


def segment_name(number: int) -> str:
    """Return the name of the object of a segment."""
    return f"{SEGMENTS}{number:05d}"


def write_segment(objects: Objects, number: int, table: pa.Table, digest: str) -> ObjectRef:
    """Write a segment; ``digest`` identifies the texts that it was made from."""

    def fill(staged: StagedFile) -> int:
        schema = table.schema.with_metadata({_DIGEST: digest})
        with pa.ipc.new_file(pa.PythonFile(staged, mode="w"), schema) as writer:
            # One batch: all lists of a column are then in one place.
            writer.write_table(table.combine_chunks())
        return int(table.num_rows)

    return objects.write(segment_name(number), fill)


class Segment:
    """A segment, mapped after its digest was verified.

    Attributes:
        digest: identifies the texts that it was made from.
        size: number of words.
    """

    def __init__(self, objects: Objects, ref: ObjectRef) -> None:
        """Open a segment.

        Raises:
            DataError: it is missing or damaged.
        """
        path = objects.path(ref)
        try:
            with pa.ipc.open_file(pa.memory_map(str(path))) as file:
                table = file.read_all().combine_chunks()
                self.digest = (file.schema.metadata or {}).get(_DIGEST, b"").decode()
            words, *lists = (_one_array(table[name]) for name in ("word", *_LISTS))
            self._offsets = lists[0].offsets.to_numpy()
            self._ids, self._counts = (one.values.to_numpy() for one in lists)
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise DataError(f"{path} ({ref.name}): unreadable: {error}", REPAIR_HINT) from error
        self.size = len(words)
        self._starts, self._letters = _texts(words)

    def find(self, word: str) -> Postings | None:
        """Return the images that have a word; None if there are none."""
        wanted = word.encode()
        place = bisect_left(self, wanted)
        return self._at(place) if place < self.size and self[place] == wanted else None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: int) -> bytes:
        """Return a word in UTF-8, whose order is that of code points."""
        start, stop = self._starts[place], self._starts[place + 1]
        return bytes(self._letters[start:stop])

    def count(self, rows: int) -> NDArray[np.int64]:
        """Return the number of words of each image: int64 (rows,).

        Raises:
            DataError: an id does not exist.
        """
        if len(self._ids) and not (self._ids.min() >= 0 and self._ids.max() < rows):
            raise DataError(f"an id of the keyword index is not in 0..{rows - 1}", REPAIR_HINT)
        sums = np.bincount(self._ids, self._counts, minlength=rows)
        return sums.astype(np.int64)

    def _at(self, place: int) -> Postings:
        start, stop = self._offsets[place : place + 2]
        return Postings(self._ids[start:stop], self._counts[start:stop])


def _one_array(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _texts(words: pa.Array[Any]) -> tuple[memoryview, memoryview]:
    """Return where each word starts, and the bytes of all: 20 times as fast as Arrow's scalars."""
    _, starts, letters = words.buffers()
    if not len(words):
        return memoryview(b""), memoryview(b"")
    return memoryview(starts).cast("i"), memoryview(letters)
