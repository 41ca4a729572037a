"""Is the store sound? Every manifest and every object.

Whether it still answers as it did when it was built: :mod:`mmindex.search.golden`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmindex.errors import DataError, NoInputError, os_errors
from mmindex.progress import bar
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check looked at, and what is wrong, one line each (empty: all is well)."""

    versions: int
    objects: int
    bytes: int
    problems: tuple[str, ...]


def check(layout: Layout, *, full: bool) -> CheckReport:
    """Check every version of a store.

    Args:
        layout: the store.
        full: also read and hash every object; otherwise presence and size are checked.
    """
    problems: list[str] = []
    manifests = list(_manifests(layout, problems))
    objects = Objects(layout)
    refs = {ref.sha256: ref for manifest in manifests for ref in manifest.objects}
    for ref in bar(refs.values(), total=len(refs), label="check", unit="object"):
        try:
            (objects.path if full else objects.unverified_path)(ref)
        except DataError as error:
            problems.append(error.message)
    total = sum(ref.bytes for ref in refs.values())
    return CheckReport(len(manifests), len(refs), total, tuple(problems))


def _manifests(layout: Layout, problems: list[str]) -> Iterator[Manifest]:
    """Every manifest that can be read, the published one against the sha256 in CURRENT."""
    pointer = None
    try:
        pointer = versions.read_current_pointer(layout)
    except DataError as error:
        problems.append(error.message)
    for number in versions.list_versions(layout):
        try:
            if pointer is not None and pointer.version == number:
                manifest = versions.read_current_checked(layout, pointer)
            else:
                manifest = versions.read_version(layout, number)
        except DataError as error:
            problems.append(error.message)
            continue
        if not manifest.counts.balanced:
            problems.append(f"{layout.version(number)}: counts do not balance")
        yield manifest
    if pointer is None and not problems and layout.version(1).exists():
        problems.append(f"{layout.current_file}: missing, version 1 is not published")
    if pointer is not None and not layout.version(pointer.version).exists():
        problems.append(f"{layout.version(pointer.version)}: missing")


def repair(layout: Layout) -> int:
    """Point CURRENT at the newest version whose manifest and objects are all sound.

    Returns:
        that version's number.

    Raises:
        NoInputError: no version is sound.
    """
    objects = Objects(layout)
    for number in reversed(versions.list_versions(layout)):
        try:
            manifest = versions.read_version(layout, number)
            for ref in manifest.objects:
                objects.path(ref)
        except DataError:
            continue  # an older one may be sound; `check` names what is wrong with this one
        path = layout.version(number)
        with os_errors(path):
            data = path.read_bytes()
        versions.point_current_at(layout, number, data)
        return number
    raise NoInputError(f"{layout.root}: no sound version", "run `mmindex build`")
