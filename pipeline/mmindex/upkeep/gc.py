"""Collection: what a store no longer needs goes; what anybody may still need stays.

What stays is decided before anything is removed, and manifests go before the objects that only
they list: killed at any instant, a collection leaves versions that are whole, and objects that no
version lists, which the next collection takes. Nothing is written, so it works on a full disk
(only where something was just forgotten, files beside the versions are written anew at the end).

Versions below the published one's ``floor`` hold forgotten items and are no versions any more.
Their manifests go last: as long as one is there, the next writer finishes what was interrupted,
see :mod:`mmindex.store.leftovers`.
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
# Three months of nightly runs; each is some KiB.
_REPORTS_KEPT = 100
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays although it is not published any more.

    Attributes:
        keep_versions: so many of the newest versions, the published one among them; at least 1.
        keep_days: versions younger than this, and as long the finished embedding shards that a
            killed run left; 0 keeps neither.
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
        """Whether something so old stays; what seems to come from the future is young."""
        return age_s < self.keep_days * _DAY_S


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that stays, and all that speaks for it."""

    version: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection removed, or would remove.

    Attributes:
        removed: versions, ascending.
        kept: versions, ascending, with the reasons.
        blocked: versions that must go, below the floor, but that a reader holds.
        objects: how many objects were removed.
        reports: how many old run reports were removed.
        bytes_freed: sizes of all that was removed.
        spared: finished embedding shards of no version that a later run may take up.
        spared_bytes: their sizes.
        dry_run: nothing was removed, this is what would be.
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
    """Why each version stays; a version without a reason goes.

    Args:
        created: when each version was made (ISO 8601), by number.
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
    """Seconds since then; a date that cannot be read is younger than any other."""
    try:
        then = datetime.fromisoformat(created_at)
    except ValueError:
        return -math.inf
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return (now - then) / timedelta(seconds=1)


def gc(root: Path, retention: Retention, *, dry_run: bool = False) -> CollectReport:
    """Remove old versions and what no version lists; needs no free space.

    Args:
        root: the store's folder.
        retention: what to keep.
        dry_run: change nothing, and do not wait for whoever writes.

    Raises:
        BusyError: somebody else writes to the store.
        MmindexError: there is no store, or as :func:`collect`.
    """
    # Brings pyarrow, which `mmindex versions` can do without: it wants the plan alone.
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
    """Remove versions that nothing keeps, and every object that no version lists.

    Args:
        layout: the store, locked by this process unless ``dry_run``.
        retention: what to keep.
        now: with a time zone. A clock set back keeps more; one set ahead still keeps the newest.
        spare: whether an object that no version lists is an embedding shard that a later run can
            take up; asked only of those that are young enough to stay.
        dry_run: only say what would go.

    Raises:
        DataError: a version that stays is damaged, so what it needs is unknown; nothing was
            removed.
        StorageError: removing failed; what was removed so far is gone, the store is whole.
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
                leftovers.purge_forgotten(layout, current)
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
    """Every object file, whether any version lists it or not; strangers' files are none."""
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
    """All but the newest; their names begin with the time."""
    with os_errors(layout.runs_dir):
        reports = sorted(layout.runs_dir.glob("*.json"))
    return reports[:-_REPORTS_KEPT]


def total_size(files: Collection[Path]) -> int:
    """The bytes that these files have; one that is gone meanwhile has none."""
    total = 0
    for path in files:
        with os_errors(path), suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
