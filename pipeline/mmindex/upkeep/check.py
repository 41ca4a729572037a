"""Is the store sound? Every manifest, every object, and whether they fit together.

Whether it still answers as it did when it was built: :mod:`mmindex.search.golden`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import msgspec

from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex.core.progress import counter
from mmindex.store import chain
from mmindex.store.holds import take_current
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.quarantine import read_ledger
from mmindex.upkeep.content import ContentCheck
from mmindex.upkeep.gc import object_files, total_size
from mmindex.upkeep.traces import find_forgotten


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check looked at, and what is wrong.

    Attributes:
        versions: how many versions were looked at.
        objects: how many objects they list.
        bytes: the objects' sizes.
        hashed: how many of the objects were read and hashed.
        unlisted: objects of no version: `mmindex gc` takes them.
        unlisted_bytes: their sizes.
        pending: versions with forgotten items that the next writer or `mmindex gc` removes.
        problems: one line each; empty where all is well.
    """

    versions: int
    objects: int
    bytes: int
    hashed: int
    unlisted: int
    unlisted_bytes: int
    pending: tuple[int, ...]
    problems: tuple[str, ...]

    def including(self, problems: tuple[str, ...]) -> CheckReport:
        """The same with more problems."""
        return replace(self, problems=(*self.problems, *problems))


def check(layout: Layout, *, full: bool, subset: tuple[int, int] | None = None) -> CheckReport:
    """Check every version of a store; it may be written to and collected meanwhile.

    Manifests are always verified, from CURRENT down. A manifest above CURRENT was never committed:
    no problem, the next writer removes it.

    Args:
        layout: the store.
        full: also read and hash every object, see that tables, vectors, ids and golden queries fit
            together, that nothing forgotten is left, and that ledger and run reports can be read;
            otherwise presence and size of the objects are checked.
        subset: (i, n): read and hash the i-th of n parts of the objects, i from 1 to n. Which part
            an object is in hangs on its content alone: n checks, one for each i, cover all.

    Raises:
        UsageError: there is no such part.
    """
    if subset is not None and not 1 <= subset[0] <= subset[1]:
        raise UsageError(f"no part {subset[0]} of {subset[1]}", "`subset=1/7`, 2/7 ... 7/7")
    state = _State(Objects(layout), full, subset)
    try:
        hold = take_current(layout)
    except DataError as error:
        state.problems.append(error.message)
        newest = None
    else:
        if hold is None:
            return state.report(layout)
        newest = hold.manifest
    with counter(total=None, label="check", unit="B") as progress:
        for link in chain.walk(layout, newest):
            if newest is not None and link.number < newest.floor:
                state.pending.append(link.number)
            elif link.manifest is None:
                state.problems.append(link.problem)
            else:
                state.look_at(link.manifest, progress.update)
    if full:
        state.problems += _loose_files(layout)
        state.problems += find_forgotten(layout, state.manifests)
    return state.report(layout)


@dataclass(slots=True)
class _State:
    """What was found so far."""

    objects: Objects
    full: bool
    subset: tuple[int, int] | None
    problems: list[str] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)
    seen: dict[str, ObjectRef] = field(default_factory=dict)
    hashed: int = 0
    content: ContentCheck = field(init=False)

    def __post_init__(self) -> None:
        self.content = ContentCheck(self.objects)

    def look_at(self, manifest: Manifest, progress: Callable[[int], object]) -> None:
        """Check one version: objects not met before, then how all of them fit together."""
        self.manifests.append(manifest)
        found: list[str] = []
        for ref in manifest.objects:
            if ref.sha256 in self.seen:
                continue
            self.seen[ref.sha256] = ref
            whole = self.full or (self.subset is not None and in_part(ref.sha256, *self.subset))
            self.hashed += whole
            try:
                (self.objects.path if whole else self.objects.unverified_path)(ref)
            except DataError as error:
                found.append(error.message)
            progress(ref.bytes)
        if self.full and not found:
            found += self.content.problems(manifest)
        self.problems += found

    def report(self, layout: Layout) -> CheckReport:
        """All of it."""
        unlisted = [path for path in object_files(layout) if path.name not in self.seen]
        return CheckReport(
            versions=len(self.manifests),
            objects=len(self.seen),
            bytes=sum(ref.bytes for ref in self.seen.values()),
            hashed=self.hashed,
            unlisted=len(unlisted),
            unlisted_bytes=total_size(unlisted),
            pending=tuple(sorted(self.pending)),
            problems=tuple(self.problems),
        )


def in_part(sha256: str, part: int, parts: int) -> bool:
    """Whether an object belongs to part ``part`` of ``parts``, counted from 1."""
    return int(sha256[:15], 16) % parts == part - 1


def _loose_files(layout: Layout) -> Iterator[str]:
    """What is wrong with the files that belong to no version."""
    try:
        for _entry in read_ledger(layout):
            pass
    except DataError as error:
        yield error.message
    for path in sorted(layout.runs_dir.glob("*.json")):
        with os_errors(path):
            data = path.read_bytes()
        try:
            msgspec.json.decode(data, type=dict)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield f"{path}: damaged: {error}"
