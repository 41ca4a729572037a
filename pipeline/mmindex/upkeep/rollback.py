"""Going back: an old version's content is published again, under the next number.

So CURRENT only ever moves on, a rollback can itself be rolled back, and readers never see a number
that means two things.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

import mmindex
from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.store import chain, versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects

# What the store was told to forget holds for every version, whatever is restored.
_CARRIED = "forgotten"


def rollback(objects: Objects, number: int | None, run_id: str) -> Manifest:
    """Under the lock: publish the content of version ``number`` as the next version.

    Every object of that version is hashed first.

    Args:
        objects: of the store, which this process has locked.
        number: what to go back to; None: the newest version before the published one.
        run_id: the run that does it.

    Returns:
        the published manifest; the one that was published already where it has the same content.

    Raises:
        NoInputError: there is no such version, or it holds forgotten items.
        UsageError: it is the published version.
        DataError: that version is damaged; nothing was published.
    """
    layout = objects.layout
    current = versions.read_current(layout)
    if current is None:
        raise NoInputError(f"{layout.root}: nothing is published yet", "run `mmindex build`")
    target = _verified(objects, current, _choose(layout, current, number))
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
    return versions.publish_version(objects, draft)


def _choose(layout: Layout, current: Manifest, number: int | None) -> int:
    """The version to go back to, which must be there."""
    there = [n for n in versions.list_versions(layout) if current.floor <= n < current.version]
    if number is None:
        if not there:
            raise NoInputError(
                f"{layout.root}: no version is kept before version {current.version}",
                "run `mmindex versions`",
            )
        return there[-1]
    if number == current.version:
        raise UsageError(f"version {number} is the published one", "run `mmindex versions`")
    if number in there:
        return number
    why = "holds forgotten items" if 0 < number < current.floor else "is not kept"
    raise NoInputError(f"{layout.root}: version {number} {why}", "run `mmindex versions`")


def _verified(objects: Objects, current: Manifest, number: int) -> Manifest:
    """Version ``number``, its manifest verified from CURRENT down and its objects by hash."""
    hint = "choose another of `mmindex versions`; `mmindex check --repair` drops damaged ones"
    for link in chain.walk(objects.layout, current):
        if link.number != number:
            continue
        if link.manifest is None:
            raise DataError(link.problem, hint)
        try:
            for ref in link.manifest.objects:
                objects.path(ref)
        except DataError as error:
            raise DataError(error.message, hint) from error
        return link.manifest
    raise NoInputError(f"{objects.layout.root}: no version {number}", "run `mmindex versions`")
