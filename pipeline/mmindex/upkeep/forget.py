"""Forgetting images for good: a new version without them, then nothing older is kept.

The order makes it safe to kill: the new version is published whole first, like any other. It
carries the list of what is forgotten, and its ``floor`` condemns all versions before it. Only then
is anything removed, and what is not removed yet the next writer removes,
see :mod:`mmindex.store.leftovers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import mmindex
from mmindex.build.context import Context
from mmindex.build.run import settings
from mmindex.core.errors import BusyError, NoInputError, UsageError
from mmindex.core.progress import get_logger
from mmindex.store import versions
from mmindex.store.forgotten import read_forgotten
from mmindex.store.holds import hold_current
from mmindex.store.layout import Layout
from mmindex.store.leftovers import remove_below_floor, remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.purge import purge, purge_reports, purge_stamps
from mmindex.upkeep.forget_draft import draft_without
from mmindex.upkeep.forget_plan import Deletion, plan


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What was forgotten, or would be.

    Attributes:
        version: the version that the store shows now.
        published: whether it was made by this.
        forgotten: ids that were asked for.
        already: ids that had been forgotten before.
        images: rows of the published version that went, also those of other names.
        same_bytes: ids of other images that went with them, having the same bytes.
        captions: how many captions went.
        removed: older versions that went.
        held: older versions that a reader still holds; the next writer removes them.
        still_in: archives below the store's downloads that hold the images' bytes: they are their
            publisher's and kept whole, or drawn anew from their seed.
        dry_run: nothing was done, this is what would be.
    """

    version: int
    published: bool
    forgotten: tuple[str, ...]
    already: tuple[str, ...]
    images: int
    same_bytes: tuple[str, ...]
    captions: int
    removed: tuple[int, ...]
    held: tuple[int, ...]
    still_in: tuple[str, ...]
    dry_run: bool


def forget(root: Path, ids: Sequence[str], run_id: str, *, dry_run: bool = False) -> ForgetReport:
    """Forget images: their bytes under every name, their captions, vectors and all older versions.

    All or nothing: with an unknown id among them nothing is forgotten. Ids that are forgotten
    already are fine, so that a command that was killed can simply be given again. The sources are
    not read, and their files not touched: the next crawls pass over them.

    Args:
        root: the store.
        ids: image ids.
        run_id: name of this run in the manifest.
        dry_run: only say what would go.

    Raises:
        UsageError: no id is given.
        NoInputError: there is no store or version, or no image has one of the ids.
        BusyError: another run holds the store.
        DataError: no image would be left, or the store is damaged.
    """
    if not ids:
        raise UsageError(
            "name the images to forget", "for example: mmindex forget ~/photos/anna.jpg"
        )
    layout = versions.open_layout(root)
    if dry_run:
        with hold_current(layout):
            return _report(*_plan(layout, ids), layout, published=None)
    with writer_lock(layout):
        remove_leftovers(layout)
        parent, doomed = _plan(layout, ids)
        published = _publish(layout, parent, doomed, run_id) if doomed.ids else None
        before, current = versions.list_versions(layout), published or parent
        held = remove_below_floor(layout)
        if published is None:  # otherwise that was part of it
            purge(layout, current)
        removed = sorted(set(before) - set(versions.list_versions(layout)))
        return _report(parent, doomed, layout, published=current, removed=removed, held=held)


def require_removed(report: ForgetReport) -> None:
    """Say so where older versions could not be removed yet.

    Raises:
        BusyError: a reader holds one of them.
    """
    if report.held:
        numbers = ", ".join(map(str, report.held))
        raise BusyError(
            f"forgotten in version {report.version}, but a reader still holds version {numbers}",
            "run `mmindex gc` when it has ended; every other run that writes removes it too",
        )


def _plan(layout: Layout, ids: Sequence[str]) -> tuple[Manifest, Deletion]:
    current = versions.read_current(layout)
    if current is None:
        raise NoInputError(f"{layout.root}: nothing is published yet", "run `mmindex build`")
    objects = Objects(layout)
    return current, plan(objects, current, read_forgotten(objects, current), ids)


def _publish(layout: Layout, parent: Manifest, doomed: Deletion, run_id: str) -> Manifest:
    objects = Objects(layout)
    forgotten = read_forgotten(objects, parent).including(doomed.ids, doomed.keys, doomed.addresses)
    context = Context(
        layout=layout,
        objects=objects,
        config=settings(layout.root, None, {}),
        run_id=run_id,
        parent=parent,
    )
    draft = msgspec.structs.replace(
        parent,
        version=parent.version + 1,
        parent=parent.version,
        restored_from=None,
        floor=parent.version + 1,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=run_id,
        mmindex=mmindex.__version__,
    )
    draft = draft_without(context, draft, doomed, forgotten)
    # Notes and a cache, no part of any version: only now are ids and paths known in plain text.
    purge_reports(layout, forgotten, doomed.names)
    purge_stamps(layout, forgotten, doomed.uris)
    published = versions.publish_version(objects, draft)
    get_logger("forget").info(
        f"version {published.version} published",
        images=len(doomed.rows),
        captions=doomed.captions,
    )
    return published


def _report(
    parent: Manifest,
    doomed: Deletion,
    layout: Layout,
    *,
    published: Manifest | None,
    removed: Sequence[int] = (),
    held: Sequence[int] = (),
) -> ForgetReport:
    shown = published or parent
    downloads = f"{layout.downloads_dir}/"
    inside = {
        uri.partition("!")[0]
        for uri in doomed.uris
        if uri.startswith(downloads) and not uri.startswith(f"{downloads}fetched/")
    }
    return ForgetReport(
        version=shown.version,
        published=shown is not parent,
        forgotten=tuple(sorted(doomed.ids)),
        already=doomed.already,
        images=len(doomed.rows),
        same_bytes=tuple(sorted(row.image_id for row in doomed.rows if not row.asked)),
        captions=doomed.captions,
        removed=tuple(removed),
        held=tuple(held),
        still_in=tuple(sorted(inside)),
        dry_run=published is None,
    )
