"""Read images: the sha256 of the bytes of each, and what its header says.

A reading depends on nothing but the file and the rules, so it can be made anywhere: in threads of
this process (:mod:`mmindex.crawl.ahead`), or on the nodes of a cluster
(:mod:`mmindex.crawl.spread`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self

from mmindex.core.records import ItemError, Reason, Sidecar, SourceItem
from mmindex.crawl.metadata import PhotoRules
from mmindex.crawl.stamps import Known, KnownSidecar
from mmindex.media.images import ImageLimits, probe
from mmindex.media.photo import xmp_fields
from mmindex.media.video import video_key


@dataclass(frozen=True, slots=True)
class ReadRules:
    """The limits of an image, and the metadata to keep."""

    limits: ImageLimits
    photos: PhotoRules


@dataclass(frozen=True, slots=True)
class ToRead:
    """What is needed of an item to read it.

    Attributes:
        uri, read, sidecar, video: as in :class:`mmindex.core.records.SourceItem`.
        known: what an earlier crawl knows about the image, if only the sidecar must be read.
    """

    uri: str
    read: Callable[[], bytes]
    sidecar: Sidecar | None
    video: str
    known: Known | None

    @classmethod
    def of(cls, item: SourceItem, known: Known | None) -> Self:
        """Return what is needed of an item of a source."""
        return cls(item.uri, item.read, item.sidecar, item.video, known)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in an item.

    Attributes:
        key: sha256 of the bytes, in hex; empty if they cannot be read.
        known: the facts about the image; None for a video, or if there is a failure.
        failure: why the item cannot be used, with a detail; or None.
        sidecar: the sidecar; None if there is none or it cannot be read.
        unchanged: whether the image was not read, because it did not change.
    """

    key: str
    known: Known | None = None
    failure: tuple[Reason, str] | None = None  # an ItemError cannot be pickled
    sidecar: KnownSidecar | None = None
    unchanged: bool = False


def read_unit(rules: ReadRules, unit: Sequence[ToRead], threads: int = 1) -> tuple[Reading, ...]:
    """Read items; the readings are in the same order.

    Raises:
        OSError, MmindexError: reading is impossible for a reason that is not the item's.
    """
    read = partial(_read, rules)
    if threads == 1 or len(unit) == 1:
        return tuple(map(read, unit))
    with ThreadPoolExecutor(min(threads, len(unit))) as readers:
        return tuple(readers.map(read, unit))


def _read(rules: ReadRules, one: ToRead) -> Reading:
    beside = _read_sidecar(rules, one.sidecar) if one.sidecar is not None else None
    if one.known is not None:
        return Reading(one.known.key, one.known, sidecar=beside, unchanged=True)
    key = ""
    try:
        if one.video:
            return Reading(video_key(one.video), sidecar=beside)
        data = one.read()
        key = hashlib.sha256(data).hexdigest()
        info = probe(data, rules.limits)
    except ItemError as error:
        return Reading(key, failure=(error.reason, error.detail), sidecar=beside)
    fields = rules.photos.kept(info.fields)
    known = Known(key, info.width, info.height, info.format, len(data), fields)
    return Reading(key, known, sidecar=beside)


def _read_sidecar(rules: ReadRules, sidecar: Sidecar) -> KnownSidecar | None:
    with suppress(ItemError, OSError):  # counted where it is needed
        return KnownSidecar(sidecar.stamp, rules.photos.kept(xmp_fields(sidecar.read())))
    return None
