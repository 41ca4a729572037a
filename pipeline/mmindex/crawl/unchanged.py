"""Recognise a corpus in which nothing has changed, so that its tables are kept.

A crawl of unchanged files reads none of them, but still makes a row for each. If all sources are
folders, and neither their files (:mod:`mmindex.sources.trees`) nor the settings have changed since
the crawl of the published version, its tables are the result.

The cache of unchanged files contains two digests: of everything that the last crawl depended on,
and of its result. A result that can change by itself, such as a file that could not be read, is not
recorded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec

from mmindex.core.records import NoteKind, QuarantineEntry, Reason
from mmindex.crawl.stamps import RACY_NS
from mmindex.media.kinds import VIDEO
from mmindex.sources.spec import SourceOptions, SourceSpec, source_tree
from mmindex.store.manifest import ObjectRef, SourceSummary

_READERS: Final = ("pillow", "pillow-heif", "pylibjxl", "rawpy", "av")
_ANY_TEXT: Final = ("utf-8", "surrogateescape")
# The same bytes always have the other reasons.
_TRANSIENT: Final = frozenset(
    {Reason.MISSING, Reason.UNREADABLE, Reason.CHANGED, Reason.DECODER_DIED, Reason.FETCH_FAILED}
)
_TRANSIENT_NOTES: Final = (
    NoteKind.UNREADABLE_CAPTION_FILES,
    NoteKind.UNREADABLE_SIDECARS,
    NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES,
)


@dataclass(frozen=True, slots=True)
class Crawled:
    """The result of a crawl.

    Attributes:
        images, captions: the tables.
        sources: one summary per source, in order.
        quarantined: quarantined rows, in order.
    """

    images: ObjectRef
    captions: ObjectRef
    sources: tuple[SourceSummary, ...]
    quarantined: tuple[QuarantineEntry, ...]

    def identity(self, inputs: str) -> str:
        """Return the identity of a crawl with this result.

        Args:
            inputs: from :func:`inputs_digest`.
        """
        parts = (self.images.sha256, self.captions.sha256, self.sources, self.quarantined)
        return f"{inputs} {hashlib.sha256(msgspec.json.encode(parts)).hexdigest()}"

    @property
    def lasts(self) -> bool:
        """Whether the same files always have this result, without a warning to repeat."""
        notes = any(source.notes.get(note) for source in self.sources for note in _TRANSIENT_NOTES)
        return not notes and not any(one.reason in _TRANSIENT for one in self.quarantined)


def inputs_digest(
    about: Sequence[object], specs: Sequence[SourceSpec], options: Sequence[SourceOptions]
) -> str | None:
    """Return the sha256 of everything that a crawl depends on; None if that is unknown.

    Args:
        about: settings for all sources; their ``repr`` must not depend on the process.
        specs: the sources.
        options: the options of each.
    """
    if not specs:
        return None
    before_ns = time.time_ns() - RACY_NS
    digest = hashlib.sha256(repr([about, VIDEO.installed, _versions()]).encode(*_ANY_TEXT))
    forgotten = options[0].forgotten
    for entries in (forgotten.ids, forgotten.keys, forgotten.addresses):
        digest.update(b"%d " % len(entries) + b"".join(sorted(entries)))
    for spec, its in zip(specs, options, strict=True):
        tree = source_tree(spec, its, before_ns)
        if tree is None:
            return None
        own = (str(spec), its.all_files, its.exclude, its.include, its.roots, tree)
        digest.update(repr(own).encode(*_ANY_TEXT))
    return digest.hexdigest()


def _versions() -> list[str]:
    """Return the versions of the packages that read images, as far as they are installed."""
    found = []
    for name in _READERS:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found
