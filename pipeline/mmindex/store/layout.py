"""Where everything lies inside a store: the only place that builds paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FORMAT = "1"
_VERSION_DIGITS = 20  # any 64-bit number, so that names sort as numbers do


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one store's root."""

    root: Path

    @property
    def format_file(self) -> Path:
        """Holds ``FORMAT``; written first, so that its presence says "this is a store"."""
        return self.root / "FORMAT"

    @property
    def lock_file(self) -> Path:
        """Locked with flock by the one writer."""
        return self.root / "LOCK"

    @property
    def current_file(self) -> Path:
        """Names the published version; replacing it is the commit point."""
        return self.root / "CURRENT"

    @property
    def versions_dir(self) -> Path:
        """One manifest for each version."""
        return self.root / "versions"

    @property
    def objects_dir(self) -> Path:
        """Immutable files named by their sha256."""
        return self.root / "objects"

    @property
    def staging_dir(self) -> Path:
        """Files being written; in the same file system as everything they become."""
        return self.root / "staging"

    @property
    def downloads_dir(self) -> Path:
        """Fetched or generated corpora."""
        return self.root / "downloads"

    @property
    def stamps_file(self) -> Path:
        """What the last crawl read of each file: a cache, no part of any version."""
        return self.root / "stamps.sqlite"

    @property
    def quarantine_file(self) -> Path:
        """The ledger of items kept out of the index, one JSON object a line."""
        return self.root / "quarantine.jsonl"

    @property
    def intent_file(self) -> Path:
        """The settings of a run that has not ended well; absent otherwise."""
        return self.root / "intent.json"

    @property
    def runs_dir(self) -> Path:
        """One JSON report for each run."""
        return self.root / "runs"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Every directory that a store has from the start."""
        return (
            self.versions_dir,
            self.objects_dir,
            self.staging_dir,
            self.downloads_dir,
            self.runs_dir,
        )

    def is_store(self) -> bool:
        """Whether a store lies here, judged by what every store has from its first moment."""
        return (
            self.format_file.is_file() and self.versions_dir.is_dir() and self.objects_dir.is_dir()
        )

    def version(self, number: int) -> Path:
        """The manifest of version ``number``."""
        return self.versions_dir / f"{number:0{_VERSION_DIGITS}d}.json"

    def object(self, sha256: str) -> Path:
        """The object whose content has this sha256 (64 hex digits)."""
        return self.objects_dir / sha256[:2] / sha256

    def run(self, run_id: str) -> Path:
        """The report of one run."""
        return self.runs_dir / f"{run_id}.json"
