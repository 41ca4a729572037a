"""Mending a store: CURRENT and FORMAT are written anew, damaged old versions are dropped.

Nothing that could still be used is removed: the published version stays even where objects of it
are damaged, as the next build makes those again.
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
    """A damaged version that was removed, or that a reader still holds."""

    version: int
    why: str
    held: bool


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did.

    Attributes:
        version: the version that CURRENT names now; 0 where nothing is published.
        moved: whether CURRENT was written anew.
        dropped: damaged old versions.
    """

    version: int
    moved: bool
    dropped: tuple[Dropped, ...]


def repair(root: Path) -> RepairReport:
    """Point CURRENT at the newest sound version, where it is lost or damaged, and FORMAT likewise.

    What a killed writer left in staging goes first. At last every other version is read and
    hashed; damaged ones are dropped. What only they list goes with the next collection.

    Raises:
        BusyError: somebody else writes to the store.
        NoInputError: there is no store, or none of its versions can be read.
        ModelMismatchError: the store has another format.
    """
    _repair_format(root)
    layout = versions.open_layout(root)
    with writer_lock(layout):
        return _repair(layout)


def _repair_format(root: Path) -> None:
    """Write FORMAT anew where it is lost or damaged, but the versions are of this format."""
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
    """The version that CURRENT should name.

    The one whose digest a half-readable CURRENT still tells; else the newest with all objects
    sound; else the newest that can be read, whose objects a build can make again. Never one that
    holds what was forgotten since.
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
    """Why each damaged version below the published one cannot be used.

    Damage to an object that the published version lists too is none of theirs: it is mended there.
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
    """What is wrong with a version's objects; empty where nothing is."""
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
