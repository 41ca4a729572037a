"""Retry quarantined items, for example after an update of a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmindex.core.errors import NoInputError
from mmindex.runs.run import RunSummary, run
from mmindex.runs.settings import settings
from mmindex.store import versions
from mmindex.store.objects import Objects, contents
from mmindex.store.quarantine import read_entries
from mmindex.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class RetryReport:
    """The result of a retry.

    Attributes:
        tried: number of quarantined items.
        back: sorted ids that are now in the index.
        summary: the summary of the run.
    """

    tried: int
    back: tuple[str, ...]
    summary: RunSummary


def retry_quarantined(
    root: Path, run_id: str, values: Mapping[str, Any] | None = None
) -> RetryReport:
    """Build with the settings of the store, and ignore failures of earlier runs.

    Images that could not be decoded are decoded again, and URLs that failed permanently are
    requested again. Everything else is as in any build, which publishes if something has changed.

    Args:
        root: the store.
        run_id: the id of this run.
        values: settings by dotted name that override or extend those of the store.

    Raises:
        NoInputError: there is no store, or nothing is published yet.
        MmindexError: as of any build.
    """
    layout = versions.open_layout(root)
    manifest = versions.read_current(layout)
    if manifest is None:
        raise NoInputError(f"{layout.root}: nothing is published yet", "run `mmindex build`")
    before = Snapshot(Objects(layout), manifest)
    entries = read_entries(before.objects, manifest.find("quarantine"))
    # Quarantined as a duplicate id: the first image with this id was already in the index.
    tried = {entry.id for entry in entries} - _indexed(before)
    summary = run(root, settings(root, None, dict(values or {})), run_id, retry=True)
    back = tried & _indexed(Snapshot(before.objects, summary.manifest))
    return RetryReport(len(entries), tuple(sorted(back)), summary)


def _indexed(snapshot: Snapshot) -> set[str]:
    """Return the ids of all searchable images and captions."""
    images = contents(snapshot.table("images", ["image_id"])["image_id"])
    captions = contents(snapshot.table("captions", ["caption_id"])["caption_id"])
    return {*images, *captions}
