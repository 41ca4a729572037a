"""Garbage collection: remove what a store no longer needs.

What to keep is decided before anything is removed, and manifests are removed before the objects
that only they list. If gc is killed at any moment, all remaining versions are complete, and the
next gc removes objects that no version lists. Nothing is written, so gc works on a full disk
(except after an interrupted ``forget``, when files outside the versions are rewritten at the end).

Versions below the ``floor`` of the published version contain forgotten items and are no longer
valid. Their manifests are removed last: as long as one exists, the next writer completes the
removal, see :mod:`mmindex.store.leftovers`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mmindex.core.errors import UsageError, os_errors
from mmindex.store import leftovers, publish, versions
from mmindex.store.layout import Layout
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest

_OBJECT_NAME = re.compile(r"[0-9a-f]{64}")
# Three months of nightly runs; each report has a few KiB.
_REPORTS_KEPT = 100
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Retention:
    """Which unpublished data to keep.

    Attributes:
        keep_versions: the number of newest versions to keep, including the published one; at least
            1.
        keep_days: the age in days up to which versions, and finished embedding shards of killed
            runs, are kept; 0 keeps neither.
    """

    keep_versions: int = 3
    keep_days: float = 7.0

    def __post_init__(self) -> None:
        if self.keep_versions < 1 or not self.keep_days >= 0:
            raise UsageError(
                f"cannot keep {self.keep_versions} versions and {self.keep_days:g} days",
                "at least 1 version and 0 days",
            )

    def young(self, age_s: float) -> bool:
        """Return whether data of this age is kept; dates in the future count as young."""
        return age_s < self.keep_days * _DAY_S


@dataclass(frozen=True, slots=True)
class Kept:
    """A version to keep, with all reasons."""

    version: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What gc removed, or would remove.

    Attributes:
        removed: removed versions, ascending.
        kept: kept versions, ascending, with the reasons.
        blocked: versions below the floor that a reader holds.
        objects: number of removed objects.
        reports: number of removed run reports.
        bytes_freed: total size of the removed files.
        spared: number of finished embedding shards of no version that a later run can use.
        spared_bytes: their total size.
        dry_run: whether nothing was removed.
    """

    removed: tuple[int, ...]
    kept: tuple[Kept, ...]
    blocked: tuple[int, ...]
    objects: int
    reports: int
    bytes_freed: int
    spared: int
    spared_bytes: int
    dry_run: bool


def plan(
    created: Mapping[int, str], current: Manifest | None, retention: Retention, now: datetime
) -> dict[int, tuple[str, ...]]:
    """Return the reasons to keep each version; versions without a reason are removed.

    Args:
        created: when each version was created (ISO 8601), by number.
        current: the published version.
        retention: what to keep.
        now: with a time zone.
    """
    published = current.version if current else 0
    floor = current.floor if current else 1
    committed = sorted((number for number in created if floor <= number <= published), reverse=True)
    newest = set(committed[: retention.keep_versions])
    reasons: dict[int, tuple[str, ...]] = dict.fromkeys(sorted(created), ())
    for number in committed:
        found = []
        if number == published:
            found.append("published")
        if number in newest:
            found.append(f"among the newest {retention.keep_versions}")
        if retention.young(_age_s(created[number], now)):
            found.append(f"younger than {retention.keep_days:g} days")
        reasons[number] = tuple(found)
    return reasons


def _age_s(created_at: str, now: datetime) -> float:
    """Return the age in seconds; an invalid date is younger than any other."""
    try:
        then = datetime.fromisoformat(created_at)
    except ValueError:
        return -math.inf
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return (now - then) / timedelta(seconds=1)


def gc(root: Path, retention: Retention, *, dry_run: bool = False) -> CollectReport:
    """Remove old versions and unused objects; needs no free space.

    Args:
        root: the folder of the store.
        retention: what to keep.
        dry_run: change nothing, and do not lock the store.

    Raises:
        BusyError: another process writes to the store.
        MmindexError: there is no store, or as :func:`collect`.
    """
    # This imports pyarrow, which `mmindex versions` does not need, because it only uses the plan.
    from mmindex.encode.shards import is_shard

    layout = versions.open_layout(root)
    now = datetime.now(UTC)
    if dry_run:
        return collect(layout, retention, now=now, spare=is_shard, dry_run=True)
    with writer_lock(layout):
        leftovers.remove_uncommitted(layout)
        return collect(layout, retention, now=now, spare=is_shard)


def collect(
    layout: Layout,
    retention: Retention,
    *,
    now: datetime,
    spare: Callable[[Path], bool],
    dry_run: bool = False,
) -> CollectReport:
    """Remove versions without a reason to keep, and all objects that no version lists.

    Args:
        layout: the store, locked by this process unless ``dry_run``.
        retention: what to keep.
        now: with a time zone. If the clock is set back, more is kept; if it is set forward, the
            newest are still kept.
        spare: returns whether an object that no version lists is an embedding shard that a later
            run can use; called only for objects that are young enough to keep.
        dry_run: only report what would be removed.

        Raises:
        DataError: a version to keep is damaged, so its objects are unknown; nothing was removed.
        StorageError: removing failed; the store is intact.
    """
    current = versions.read_current(layout)
    manifests = leftovers.read_all(layout, current)
    created = {number: made.created_at if made else "" for number, made in manifests.items()}
    reasons = plan(created, current, retention, now)
    newest, floor = (current.version, current.floor) if current else (0, 1)
    with ExitStack() as locks:
        going = [number for number, found in reasons.items() if not found]
        held = leftovers.lock_versions(layout, going, locks)
        removed = [number for number in going if number not in held]
        needed = leftovers.listed(manifests[n] for n in reasons if n not in removed)
        before = leftovers.listed(m for n, m in manifests.items() if n <= newest)
        unlisted = [path for path in object_files(layout) if path.name not in needed]
        spared = [
            path
            for path in unlisted
            if path.name not in before and retention.young(_file_age_s(path, now)) and spare(path)
        ]
        objects = sorted(set(unlisted) - set(spared))
        reports = _old_reports(layout)
        files = [*map(layout.version, removed), *objects, *reports]
        freed, spared_bytes = total_size(files), total_size(spared)
        if not dry_run:
            publish.remove_files(layout.version(n) for n in removed if n >= floor)
            publish.remove_files([*objects, *reports])
            below = [layout.version(n) for n in removed if n < floor]
            if below:
                leftovers.purge_forgotten(layout, current, held=True)
            publish.remove_files(below)
    return CollectReport(
        removed=tuple(removed),
        kept=tuple(
            Kept(n, (*found, "held by a reader") if n in held else found)
            for n, found in reasons.items()
            if n not in removed
        ),
        blocked=tuple(n for n in held if n < floor),
        objects=len(objects),
        reports=len(reports),
        bytes_freed=freed,
        spared=len(spared),
        spared_bytes=spared_bytes,
        dry_run=dry_run,
    )


def object_files(layout: Layout) -> Iterator[Path]:
    """Yield all object files, listed or not; other files are skipped."""
    with os_errors(layout.objects_dir):
        for folder in sorted(layout.objects_dir.iterdir()):
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if _OBJECT_NAME.fullmatch(path.name) and path.name.startswith(folder.name):
                    yield path


def _file_age_s(path: Path, now: datetime) -> float:
    with os_errors(path):
        return now.timestamp() - path.stat().st_mtime


def _old_reports(layout: Layout) -> list[Path]:
    """Return all reports except the newest; their names begin with the time."""
    with os_errors(layout.runs_dir):
        reports = sorted(layout.runs_dir.glob("*.json"))
    return reports[:-_REPORTS_KEPT]


def total_size(files: Collection[Path]) -> int:
    """Return the total size of these files; missing files count as 0."""
    total = 0
    for path in files:
        with os_errors(path), suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
