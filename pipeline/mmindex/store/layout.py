"""The paths of everything inside a store; no other module builds such paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FORMAT = "1"
_VERSION_DIGITS = 20  # digits of any 64-bit number, so that names sort like numbers


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths in a store."""

    root: Path

    @property
    def format_file(self) -> Path:
        """The file with ``FORMAT``; written first, so that its presence identifies a store."""
        return self.root / "FORMAT"

    @property
    def lock_file(self) -> Path:
        """The file that the single writer locks with flock."""
        return self.root / "LOCK"

    @property
    def current_file(self) -> Path:
        """The file that names the published version; replacing it is the commit point."""
        return self.root / "CURRENT"

    @property
    def versions_dir(self) -> Path:
        """The folder with one manifest per version."""
        return self.root / "versions"

    @property
    def objects_dir(self) -> Path:
        """Immutable files named by their sha256."""
        return self.root / "objects"

    @property
    def staging_dir(self) -> Path:
        """The folder for files being written, on the same file system as their destinations."""
        return self.root / "staging"

    @property
    def downloads_dir(self) -> Path:
        """The folder for fetched or generated corpora."""
        return self.root / "downloads"

    @property
    def stamps_file(self) -> Path:
        """What the last crawl read from each file: a cache that is not part of any version."""
        return self.root / "stamps.sqlite"

    @property
    def listings_file(self) -> Path:
        """The cache of what the last crawl read in object stores besides images."""
        return self.root / "listings.sqlite"

    @property
    def quarantine_file(self) -> Path:
        """The ledger of items excluded from the index, one JSON object per line."""
        return self.root / "quarantine.jsonl"

    @property
    def intent_file(self) -> Path:
        """The settings of a run that has not succeeded; otherwise absent."""
        return self.root / "intent.json"

    @property
    def runs_dir(self) -> Path:
        """The folder with one JSON report per run."""
        return self.root / "runs"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Every directory that a new store has."""
        return (
            self.versions_dir,
            self.objects_dir,
            self.staging_dir,
            self.downloads_dir,
            self.runs_dir,
        )

    def is_store(self) -> bool:
        """Return whether there is a store here, judged by files that every store has."""
        return (
            self.format_file.is_file() and self.versions_dir.is_dir() and self.objects_dir.is_dir()
        )

    def version(self, number: int) -> Path:
        """Return the path of the manifest of version ``number``."""
        return self.versions_dir / f"{number:0{_VERSION_DIGITS}d}.json"

    def object(self, sha256: str) -> Path:
        """Return the path of the object whose content has this sha256 (64 hex digits)."""
        return self.objects_dir / sha256[:2] / sha256

    def run(self, run_id: str) -> Path:
        """Return the path of a run's report."""
        return self.runs_dir / f"{run_id}.json"
