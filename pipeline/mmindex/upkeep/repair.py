"""Repair a store: restore CURRENT and FORMAT, and remove damaged old versions.

Usable data is never removed: the published version is kept even if its objects are damaged, because
the next build creates them again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.store import chain, holds, publish, versions
from mmindex.store.layout import FORMAT, Layout
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Dropped:
    """A damaged version that was removed, or that a reader holds."""

    version: int
    why: str
    held: bool


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The result of a repair.

    Attributes:
        version: the version in CURRENT; 0 if nothing is published.
        moved: whether CURRENT was rewritten.
        dropped: damaged old versions.
    """

    version: int
    moved: bool
    dropped: tuple[Dropped, ...]


def repair(root: Path) -> RepairReport:
    """Set a missing or damaged CURRENT to the newest intact version, and restore FORMAT.

    First, staging is emptied. At the end, every other version is read and hashed, and damaged
    versions are removed. The next gc removes objects that only they list.

    Raises:
        BusyError: another process writes to the store.
        NoInputError: there is no store, or none of its versions can be read.
        ModelMismatchError: the store has another format.
    """
    _repair_format(root)
    layout = versions.open_layout(root)
    with writer_lock(layout):
        return _repair(layout)


def _repair_format(root: Path) -> None:
    """Restore a missing or damaged FORMAT if the versions have this format."""
    try:
        versions.open_layout(root)
    except DataError:
        layout = Layout(root.absolute())
        with writer_lock(layout):
            if any(link.manifest and link.manifest.format == FORMAT for link in _all(layout)):
                publish.write_file(layout, layout.format_file, f"{FORMAT}\n".encode())
            else:
                raise


def _repair(layout: Layout) -> RepairReport:
    publish.empty_directory(layout.staging_dir)
    objects = Objects(layout)
    moved = False
    try:
        current = versions.read_current(layout)
    except DataError:
        current = _newest(objects)
        path = layout.version(current.version)
        with os_errors(path):
            data = path.read_bytes()
        versions.point_current_at(layout, current.version, data)
        moved = True
    if current is None:
        return RepairReport(0, moved, ())
    damaged = _damaged(Snapshot(objects, current))
    dropped = tuple(_drop(layout, number, why) for number, why in damaged.items())
    return RepairReport(current.version, moved, dropped)


def _all(layout: Layout) -> list[chain.Link]:
    return list(chain.walk(layout, None))


def _newest(objects: Objects) -> Manifest:
    """Return the version for CURRENT.

    It is the version whose digest a damaged CURRENT still contains, otherwise the newest version
    with only intact objects, otherwise the newest readable version, whose objects a build can
    create again. It is never a version with forgotten items.
    """
    layout = objects.layout
    links = [link for link in _all(layout) if link.manifest is not None]
    by_digest = {link.sha256: link.manifest for link in links}
    readable = [link.manifest for link in links if link.manifest is not None]
    floor = max((made.floor for made in readable), default=1)
    readable = [made for made in readable if made.version >= floor]
    if not readable:
        raise NoInputError(
            f"{layout.root}: no version can be read", "run `mmindex build` with another `store`"
        )
    told = by_digest.get(versions.digest_in_current(layout))
    if told in readable and told is not None:
        return told
    sound = (made for made in readable if not _first_damage(Snapshot(objects, made)))
    return next(sound, readable[0])


def _damaged(current: Snapshot) -> dict[int, str]:
    """Return why each damaged version below the published one is unusable.

    Damaged objects that the published version also lists are not included: a build creates them
    again.
    """
    mended = {ref.sha256 for ref in current.manifest.objects}
    found = {}
    for link in chain.walk(current.layout, current.manifest):
        if link.number == current.manifest.version:
            continue
        why = link.problem
        if link.manifest is not None:
            why = _first_damage(Snapshot(current.objects, link.manifest), mended)
        if why:
            found[link.number] = why
    return found


def _first_damage(snapshot: Snapshot, but: Collection[str] = ()) -> str:
    """Return the first problem of the objects of a version, or an empty text."""
    try:
        snapshot.verify(but)
    except DataError as error:
        return error.message
    return ""


def _drop(layout: Layout, number: int, why: str) -> Dropped:
    path = layout.version(number)
    try:
        descriptor = holds.lock_exclusive(path)
    except BlockingIOError:
        return Dropped(number, why, held=True)
    if descriptor is not None:
        try:
            publish.remove_file(path)
        finally:
            holds.unlock(descriptor)
    return Dropped(number, why, held=False)
