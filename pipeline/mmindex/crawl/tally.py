"""Counts of a source while it is read; every row is in one of the counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

from mmindex.core.records import Ignored, QuarantineEntry, Rejected, Skip
from mmindex.store.manifest import SourceSummary

# Names can be of any length, but a summary must be short.
_LONGEST_SUFFIX: Final = 12
_MOST_SUFFIXES: Final = 40


@dataclass(slots=True)
class Tally:
    """Counts of one source while it is read."""

    spec: str
    name: str
    images: int = 0
    captions: int = 0
    ignored: int = 0
    read: int = 0
    unchanged: int = 0
    details: dict[str, object] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    not_read: Counter[str] = field(default_factory=Counter)
    quarantined: list[QuarantineEntry] = field(default_factory=list)

    def reject(self, rejected: Rejected, key: str = "") -> None:
        """Count a row that goes to quarantine."""
        self.quarantined.append(
            QuarantineEntry(
                id=storable(rejected.image_id),
                uri=storable(rejected.uri),
                source=self.name,
                stage="crawl",
                reason=rejected.reason,
                detail=storable(rejected.detail),
                key=key,
            )
        )

    def ignore(self, ignored: Ignored) -> None:
        """Count rows ignored by rule."""
        self.ignored += ignored.count
        self.notes[f"ignored: {ignored.why}"] += ignored.count
        if ignored.why is Skip.NOT_AN_IMAGE:
            suffix = storable(ignored.suffix)
            known = suffix in self.not_read or len(self.not_read) < _MOST_SUFFIXES
            named = known and len(suffix) <= _LONGEST_SUFFIX
            self.not_read[suffix or "no extension" if named else "others"] += ignored.count

    def summary(self) -> SourceSummary:
        """Return the counts for the manifest."""
        return SourceSummary(
            spec=self.spec,
            name=self.name,
            seen=self.images + len(self.quarantined) + self.ignored,
            images=self.images,
            captions=self.captions,
            quarantined=len(self.quarantined),
            ignored=self.ignored,
            notes=dict(sorted(self.notes.items())),
            not_read=dict(self.not_read.most_common()),
        )

    def report(self) -> dict[str, object]:
        """Return the counts for the report of the run."""
        read = {"read": self.read, "unchanged": self.unchanged}
        return {**msgspec.to_builtins(self.summary()), **read, **self.details}


def storable(text: str) -> str:
    """Return text that is valid UTF-8; file names can contain undecodable bytes."""
    return text.encode("utf-8", "replace").decode("utf-8")
