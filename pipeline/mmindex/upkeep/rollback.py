"""Publish the content of an old version again with the next number.

Version numbers only increase, a rollback can be undone with another one, and a number always refers
to the same content.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

import mmindex
from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.store import chain, versions
from mmindex.store.intent import clear_intent
from mmindex.store.layout import Layout
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

# The forgotten items apply to every version, including a restored one.
_CARRIED = "forgotten"


def rollback(root: Path, number: int | None, run_id: str) -> Manifest:
    """Publish the content of version ``number`` as the next version.

    Every object of that version is hashed first.

    Args:
        root: the folder of the store.
        number: the version to restore; None: the newest version before the published one.
        run_id: the id of this run.

    Returns:
        the published manifest; the existing one if it has the same content.

        Raises:
        BusyError: another process writes to the store.
        NoInputError: there is no store or no such version, or it contains forgotten items.
        UsageError: it is the published version.
        DataError: the version is damaged; nothing was published.
    """
    layout = versions.open_layout(root)
    with writer_lock(layout):
        remove_leftovers(layout)
        current = versions.read_current(layout)
        if current is None:
            raise NoInputError(f"{root}: nothing is published yet", "run `mmindex build`")
        restored = _restore(Snapshot(Objects(layout), current), number, run_id)
        clear_intent(layout)  # the settings are restored too
        return restored


def _restore(published: Snapshot, number: int | None, run_id: str) -> Manifest:
    current = published.manifest
    target = _verified(published, _choose(published.layout, current, number))
    kept = [ref for ref in target.objects if ref.name != _CARRIED]
    carried = current.find(_CARRIED)
    draft = msgspec.structs.replace(
        target,
        version=current.version + 1,
        parent=current.version,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=run_id,
        mmindex=mmindex.__version__,
        objects=tuple(kept) if carried is None else (carried, *kept),
        floor=current.floor,
        restored_from=target.version,
    )
    if draft.content() == current.content():
        return current
    return versions.publish_version(published.objects, draft)


def _choose(layout: Layout, current: Manifest, number: int | None) -> int:
    """Return the existing version to restore."""
    there = [n for n in versions.list_versions(layout) if current.floor <= n < current.version]
    if number is None:
        if not there:
            raise NoInputError(
                f"{layout.root}: there is no version before version {current.version}",
                "run `mmindex versions`",
            )
        return there[-1]
    if number == current.version:
        raise UsageError(f"version {number} is the published version", "run `mmindex versions`")
    if number in there:
        return number
    why = "contains forgotten items" if 0 < number < current.floor else "no longer exists"
    raise NoInputError(f"{layout.root}: version {number} {why}", "run `mmindex versions`")


def _verified(published: Snapshot, number: int) -> Manifest:
    """Return version ``number`` with verified manifest (starting from CURRENT) and objects."""
    hint = "see `mmindex versions` for others; `mmindex check --repair` removes damaged ones"
    for link in chain.walk(published.layout, published.manifest):
        if link.number != number:
            continue
        if link.manifest is None:
            raise DataError(link.problem, hint)
        try:
            Snapshot(published.objects, link.manifest).verify()
        except DataError as error:
            raise DataError(error.message, hint) from error
        return link.manifest
    raise NoInputError(f"{published.layout.root}: no version {number}", "run `mmindex versions`")
