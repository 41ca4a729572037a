"""Remove the leftovers of killed runs before a writer starts, and finish their removals.

Versions below the published version's ``floor`` contain forgotten items. Objects that only these
versions list are removed first and their manifests last: while a manifest is present, the removal
is not finished.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack

from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.core.system import allow_open_files
from mmindex.store import holds, publish, versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.staging import clear_staging

_OTHER_FILES = 256  # reserve for other open files of this process


def remove_leftovers(layout: Layout) -> None:
    """Remove what a killed run left; called under the lock, before any work.

    Manifests above CURRENT were never committed, and staged files were never published. A removal
    below the floor is finished, except for versions that readers hold. Other objects stay, because
    finished embedding shards among them are reused.

    Raises:
        DataError: CURRENT or its manifest is damaged.
    """
    remove_uncommitted(layout)
    remove_below_floor(layout)


def remove_uncommitted(layout: Layout) -> None:
    """Remove manifests above CURRENT and staged files that nobody holds; called under the lock.

    Raises:
        DataError: CURRENT or its manifest is damaged; then no version is removed.
    """
    current = versions.read_current(layout)
    newest = current.version if current else 0
    numbers = versions.list_versions(layout)
    publish.remove_files(layout.version(number) for number in numbers if number > newest)
    clear_staging(layout)
    _settle(layout)


def _settle(layout: Layout) -> None:
    """Sync the names that a killed run created but did not sync.

    This run may depend on them: on the killed run's version, or on a shard that it reuses. Without
    the sync, a power loss after both runs could remove a name that the second run depends on.
    """
    with os_errors(layout.objects_dir):
        folders = [path for path in layout.objects_dir.iterdir() if path.is_dir()]
        for folder in (layout.root, layout.versions_dir, layout.objects_dir, *sorted(folders)):
            publish.sync_directory(folder)


def remove_below_floor(layout: Layout) -> tuple[int, ...]:
    """Remove versions with forgotten items, and objects that only they list; called under the lock.

    Returns:
        The versions that could not be removed because a reader holds them.

    Raises:
        DataError: a version that stays is damaged, so that its objects are unknown.
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
        purge_forgotten(layout, current, held=bool(removed))
        publish.remove_files(map(layout.version, removed))
    return tuple(held)


def purge_forgotten(layout: Layout, current: Manifest | None, *, held: bool) -> None:
    """Remove forgotten items from the files that do not belong to a version.

    This follows the removal of the objects, because it may need their space. It precedes the
    removal of the manifests, which show that the removal is not finished.

    Args:
        layout: the store.
        current: the published version.
        held: whether versions are removed that could still be read until now.

    Raises:
        MmindexError: a file is damaged, or the disk is still full.
    """
    # These import pyarrow, which most writers need only later, or never.
    from mmindex.store.objects import Objects
    from mmindex.store.purge import purge
    from mmindex.store.snapshot import Snapshot

    if current is not None:
        purge(Snapshot(Objects(layout), current), held=held)


def lock_versions(layout: Layout, numbers: Collection[int], locks: ExitStack) -> list[int]:
    """Lock versions against readers while ``locks`` is open; return those that readers hold."""
    # Each lock is an open file, and years of nightly versions can be removed in one run.
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
    """Read every manifest, by number; None for a damaged manifest that is removed in any case.

    Raises:
        DataError: a version that can stay is damaged, so its objects are unknown.
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
    """Read every manifest, by number; for a damaged one, what is wrong with it.

    Versions that are collected meanwhile are left out.
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
    """Return the sha256 of every object that these versions list."""
    return {ref.sha256 for made in manifests if made is not None for ref in made.objects}
