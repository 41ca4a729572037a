"""Keeping a store small, sound and where one wants it: gc, check, repair, rollback."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mmindex.encode.shards import is_shard
from mmindex.search.golden import check_golden
from mmindex.store import versions
from mmindex.store.leftovers import remove_leftovers, remove_uncommitted
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.upkeep import check as checks
from mmindex.upkeep import repair as repairs
from mmindex.upkeep import rollback as rollbacks
from mmindex.upkeep.check import CheckReport
from mmindex.upkeep.gc import CollectReport, Retention, collect
from mmindex.upkeep.repair import RepairReport


def gc(root: Path, retention: Retention, *, dry_run: bool = False) -> CollectReport:
    """Remove old versions and what no version lists; needs no free space.

    Args:
        root: the store's folder.
        retention: what to keep.
        dry_run: change nothing, and do not wait for whoever writes.

    Raises:
        BusyError: somebody else writes to the store.
        DataError: CURRENT, or a version that stays, is damaged; nothing was removed.
        MmindexError: there is no store, or removing failed.
    """
    layout = versions.open_layout(root)
    now = datetime.now(UTC)
    if dry_run:
        return collect(layout, retention, now=now, spare=is_shard, dry_run=True)
    with writer_lock(layout):
        remove_uncommitted(layout)
        return collect(layout, retention, now=now, spare=is_shard)


def rollback(root: Path, number: int | None, run_id: str) -> Manifest:
    """Publish an old version's content again; see :func:`mmindex.upkeep.rollback.rollback`.

    Raises:
        BusyError: somebody else writes to the store.
        MmindexError: as there.
    """
    layout = versions.open_layout(root)
    with writer_lock(layout):
        remove_leftovers(layout)
        return rollbacks.rollback(Objects(layout), number, run_id)


def check(root: Path, *, full: bool, subset: tuple[int, int] | None = None) -> CheckReport:
    """Check a store, and ask its golden queries again where all else is well.

    Raises:
        NoInputError: there is no store.
    """
    layout = versions.open_layout(root)
    report = checks.check(layout, full=full, subset=subset)
    return report if report.problems else report.including(check_golden(layout))


def repair(root: Path) -> RepairReport:
    """Mend what can be mended; see :mod:`mmindex.upkeep.repair`.

    Raises:
        BusyError: somebody else writes to the store.
        NoInputError: there is no store, or none of its versions can be read.
    """
    repairs.repair_format(root)
    layout = versions.open_layout(root)
    with writer_lock(layout):
        return repairs.repair(layout)
