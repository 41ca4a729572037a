"""Another try for what is in quarantine, as after a library was updated or a host came back."""

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
    """What became of the quarantined.

    Attributes:
        tried: how many there were.
        back: ids that are in the index now, sorted.
        summary: of the run.
    """

    tried: int
    back: tuple[str, ...]
    summary: RunSummary


def retry_quarantined(
    root: Path, run_id: str, values: Mapping[str, Any] | None = None
) -> RetryReport:
    """Build once more with the store's own settings, believing no failure of an earlier run.

    Images that could not be decoded are decoded again, addresses that failed for good are asked
    again; everything else is as in any build, which publishes where something has changed.

    Args:
        root: the store.
        run_id: name of this run.
        values: settings by dotted name in place of the store's, or that it does not remember.

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
    # A second image under an id that is taken was in quarantine while the first was in the index.
    tried = {entry.id for entry in entries} - _indexed(before)
    summary = run(root, settings(root, None, dict(values or {})), run_id, retry=True)
    back = tried & _indexed(Snapshot(before.objects, summary.manifest))
    return RetryReport(len(entries), tuple(sorted(back)), summary)


def _indexed(snapshot: Snapshot) -> set[str]:
    """Ids of all images and captions that can be found."""
    images = contents(snapshot.table("images", ["image_id"])["image_id"])
    captions = contents(snapshot.table("captions", ["caption_id"])["caption_id"])
    return {*images, *captions}
