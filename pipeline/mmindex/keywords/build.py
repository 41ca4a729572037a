"""Build the keyword index of a version; segments whose texts did not change are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.keywords.documents import Document, Documents, count_words
from mmindex.keywords.index import open_keywords
from mmindex.keywords.names import SEGMENTS
from mmindex.keywords.postings import (
    SEGMENT_IDS,
    Segment,
    SegmentBuilder,
    segment_name,
    write_segment,
)
from mmindex.keywords.summary import read_summary
from mmindex.keywords.words import RULES
from mmindex.store.manifest import ObjectRef
from mmindex.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Built:
    """The segments of a version.

    Attributes:
        refs: the objects, in the order of their ids.
        lengths: uint32 (ids,), the number of words of each image.
        kept: number of segments that did not change.
    """

    refs: tuple[ObjectRef, ...]
    lengths: NDArray[np.uint32]
    kept: int = 0


NOTHING: Final = Built((), np.zeros(0, dtype=np.uint32))


def build_segments(snapshot: Snapshot, documents: Documents, before: Built = NOTHING) -> Built:
    """Build the segments.

    Args:
        snapshot: the version, with its image index.
        documents: its documents.
        before: the segments of the last version.
    """
    rows = snapshot.index(Modality.IMAGE).rows
    lengths = np.zeros(rows, dtype=np.uint32)
    known = {Segment(snapshot.objects, ref).digest: ref for ref in before.refs}
    refs: list[ObjectRef] = []
    kept = 0
    for number, first in enumerate(range(0, rows, SEGMENT_IDS)):
        texts = _texts(documents, first, rows)
        digest = _digest(texts)
        if digest in known and known[digest].name == segment_name(number):
            there = before.lengths[first : first + SEGMENT_IDS]
            lengths[first : first + len(there)] = there
            refs.append(known[digest])
            kept += 1
            continue
        builder = SegmentBuilder()
        for image, document in texts.items():
            tally = count_words(document.text)
            lengths[image] = tally.total()
            builder.add(image, tally)
        refs.append(write_segment(snapshot.objects, number, builder.table(), digest))
    return Built(tuple(refs), lengths, kept)


def keyword_problems(snapshot: Snapshot) -> Iterator[str]:
    """Compare the keyword index of a version with its tables; yield one line for each mismatch.

    Raises:
        DataError: an object is damaged.
        NoInputError: the keyword index belongs to another version.
    """
    open_keywords(snapshot)
    documents = Documents(snapshot)
    rows = snapshot.index(Modality.IMAGE).rows
    wanted = {
        segment_name(number): _digest(_texts(documents, first, rows))
        for number, first in enumerate(range(0, rows, SEGMENT_IDS))
    }
    lengths = np.zeros(rows, dtype=np.int64)
    found = {}
    for ref in snapshot.manifest.named(SEGMENTS):
        segment = Segment(snapshot.objects, ref)
        found[ref.name] = segment.digest
        lengths += segment.count(rows)
    for name in sorted(wanted | found):
        if wanted.get(name) != found.get(name):
            yield f"{name} was built from other texts"
    if not np.array_equal(lengths, read_summary(snapshot).lengths):
        yield "the numbers of words of the images differ from the postings"


def _texts(documents: Documents, first: int, rows: int) -> dict[int, Document]:
    return documents.among(np.arange(first, min(first + SEGMENT_IDS, rows)))


def _digest(texts: Mapping[int, Document]) -> str:
    """Return what identifies the words of a segment."""
    digest = hashlib.sha256(RULES.encode())
    for image, document in texts.items():
        data = document.text.encode("utf-8", "surrogatepass")
        digest.update(b"%d %d\n" % (image, len(data)))
        digest.update(data)
    return digest.hexdigest()
