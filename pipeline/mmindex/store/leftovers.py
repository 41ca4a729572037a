"""What a writer clears away before it begins, and finishes for those that were killed.

Versions below the published one's ``floor`` hold forgotten items. What only they list goes first
and their manifests last: as long as one is there, there is something left to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack

from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.core.system import allow_open_files
from mmindex.store import holds, publish, versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest

_OTHER_FILES = 256  # that this process may have open besides


def remove_leftovers(layout: Layout) -> None:
    """Under the lock, before any work: remove what a killed run left.

    Manifests above CURRENT were never committed; staged files never got their name; a removal below
    the floor is finished, as far as no reader holds. Other objects stay: finished embedding shards
    among them are taken up again.

    Raises:
        DataError: CURRENT or its manifest is damaged.
    """
    remove_uncommitted(layout)
    remove_below_floor(layout)


def remove_uncommitted(layout: Layout) -> None:
    """Under the lock: remove manifests above CURRENT, and all that is staged.

    Raises:
        DataError: CURRENT or its manifest is damaged, and must not condemn any version.
    """
    current = versions.read_current(layout)
    newest = current.version if current else 0
    numbers = versions.list_versions(layout)
    publish.remove_files(layout.version(number) for number in numbers if number > newest)
    publish.empty_directory(layout.staging_dir)
    _settle(layout)


def _settle(layout: Layout) -> None:
    """Make the names durable that a killed run gave and did not live to sync.

    This run may build on them: on its version, on a shard that it takes up. Without this, losing
    power after both runs could take a name away that the second one relied on.
    """
    with os_errors(layout.objects_dir):
        folders = [path for path in layout.objects_dir.iterdir() if path.is_dir()]
        for folder in (layout.root, layout.versions_dir, layout.objects_dir, *sorted(folders)):
            publish.sync_directory(folder)


def remove_below_floor(layout: Layout) -> tuple[int, ...]:
    """Under the lock: remove the versions that hold forgotten items, with what only they list.

    Returns:
        the versions that could not go because a reader holds them.

    Raises:
        DataError: a version that stays is damaged, so what it needs is unknown.
    """
    current = versions.read_current(layout)
    floor = current.floor if current else 1
    if not any(number < floor for number in versions.list_versions(layout)):
        return ()
    manifests = read_all(layout, current)
    with ExitStack() as locks:
        below = [number for number in manifests if number < floor]
        held = lock_versions(layout, below, locks)
        removed = [number for number in below if number not in held]
        needed = listed(made for n, made in manifests.items() if n not in removed)
        theirs = listed(manifests[n] for n in removed)
        publish.remove_files(layout.object(sha256) for sha256 in sorted(theirs - needed))
        purge_forgotten(layout, current)
        publish.remove_files(map(layout.version, removed))
    return tuple(held)


def purge_forgotten(layout: Layout, current: Manifest | None) -> None:
    """Take what was forgotten out of the files that belong to no version.

    After the objects, as it may need their space; before the manifests, which are the sign that
    there is something left to do.

    Raises:
        MmindexError: a file there is damaged, or the disk is full all the same.
    """
    # These bring pyarrow, which most writers need later or never.
    from mmindex.store.objects import Objects
    from mmindex.store.purge import purge
    from mmindex.store.snapshot import Snapshot

    if current is not None:
        purge(Snapshot(Objects(layout), current))


def lock_versions(layout: Layout, numbers: Collection[int], locks: ExitStack) -> list[int]:
    """Lock versions against readers for as long as ``locks`` is open; returns those held."""
    # Each lock is an open file, and years of nightly versions may go at once.
    allow_open_files(len(numbers) + _OTHER_FILES)
    held = []
    for number in numbers:
        try:
            descriptor = holds.lock_exclusive(layout.version(number))
        except BlockingIOError:
            held.append(number)
            continue
        if descriptor is not None:
            locks.callback(holds.unlock, descriptor)
    return held


def read_all(layout: Layout, current: Manifest | None) -> dict[int, Manifest | None]:
    """Every manifest by number; None where it is damaged, but must go whatever it says.

    Raises:
        DataError: a version that may stay is damaged, so what it needs is unknown.
    """
    found: dict[int, Manifest | None] = {}
    for number, made in read_versions(layout).items():
        if isinstance(made, Manifest):
            found[number] = made
            continue
        if current is not None and current.floor <= number <= current.version:
            raise DataError(made, "run `mmindex check --repair` to remove damaged old versions")
        found[number] = None
    return found


def read_versions(layout: Layout) -> dict[int, Manifest | str]:
    """Every manifest by number, or what is wrong with it.

    One that is collected meanwhile is left out.
    """
    found: dict[int, Manifest | str] = {}
    for number in versions.list_versions(layout):
        try:
            found[number] = versions.read_version(layout, number)
        except DataError as error:
            if layout.version(number).exists():
                found[number] = error.message
        except NoInputError:
            continue
    return found


def listed(manifests: Iterable[Manifest | None]) -> set[str]:
    """The sha256 of every object that one of these versions lists."""
    return {ref.sha256 for made in manifests if made is not None for ref in made.objects}
