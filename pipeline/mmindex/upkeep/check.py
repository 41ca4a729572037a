"""Verify a store: manifests, objects, whether they match each other, and golden answers.

It also checks that no forgotten items are left: :mod:`mmindex.upkeep.traces`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError, NoInputError, UsageError, os_errors
from mmindex.core.modality import Modality
from mmindex.core.progress import counter
from mmindex.keywords.build import keyword_problems
from mmindex.keywords.names import SEGMENTS, has_keywords
from mmindex.search.golden import check_golden
from mmindex.store import chain, versions
from mmindex.store.holds import take_current
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.quarantine import read_ledger
from mmindex.store.snapshot import TABLES, Snapshot
from mmindex.upkeep.gc import object_files, total_size
from mmindex.upkeep.traces import find_forgotten

Words = NDArray[np.uint64]

_RAW = ("vectors/", "digests/", "index/", SEGMENTS)  # every other object is Parquet
_BLOCK_ROWS = 16_384
_KEY_WORDS = 4  # 64-bit words in a sha256


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        versions: number of checked versions.
        objects: number of objects in these versions.
        bytes: total size of the objects.
        hashed: number of objects that were read and hashed.
        unlisted: number of objects in no version, which `mmindex gc` removes.
        unlisted_bytes: total size of these objects.
        pending: versions with forgotten items that the next writer or `mmindex gc` removes.
        problems: one line per problem.
    """

    versions: int
    objects: int
    bytes: int
    hashed: int
    unlisted: int
    unlisted_bytes: int
    pending: tuple[int, ...]
    problems: tuple[str, ...]


def check(root: Path, *, full: bool, subset: tuple[int, int] | None = None) -> CheckReport:
    """Check every version of a store; builds and gc can run at the same time.

    If there are no problems, the golden queries of the published version are repeated.

    Manifests are always verified, starting from CURRENT. A manifest above CURRENT was never
    committed. It is not a problem, and the next writer removes it.

    Args:
        root: the folder of the store.
        full: also read and hash every object, and check that tables, vectors, ids and golden
            queries match each other, that no forgotten items are left, and that the ledger and the
            run reports can be read; otherwise only the existence and size of objects are checked.
        subset: (i, n): read and hash part i of n of the objects, i from 1 to n. The part of an
            object depends only on its content: n checks, one for each i, cover all objects.

    Raises:
        NoInputError: there is no store.
        UsageError: there is no such part.
    """
    layout = versions.open_layout(root)
    report = _check(layout, full, subset)
    return report if report.problems else replace(report, problems=check_golden(layout))


def _check(layout: Layout, full: bool, subset: tuple[int, int] | None) -> CheckReport:
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


class _Content:
    """Checks whether the objects of a version match each other.

    Objects of several versions are checked once.
    """

    def __init__(self) -> None:
        self._read: set[str] = set()
        self._sides: set[tuple[str, ...]] = set()

    def problems(self, snapshot: Snapshot) -> Iterator[str]:
        """Return the mismatches in a version with verified objects, one line each."""
        manifest = snapshot.manifest
        where = f"version {manifest.version}"
        for ref in manifest.objects:
            if ref.sha256 not in self._read and not ref.name.startswith(_RAW):
                self._read.add(ref.sha256)
                yield from _unreadable(snapshot.objects, ref)
        yield from (f"{where}: {line}" for line in _counts(manifest))
        for side in manifest.indexes:
            parts = _parts(manifest, side)
            if parts not in self._sides:
                self._sides.add(parts)
                try:
                    found = list(_misfits(snapshot, side))
                except (DataError, pa.ArrowInvalid, KeyError, ValueError) as error:
                    found = [str(error)]
                yield from (f"{where}, {side}: {line}" for line in found)
        if has_keywords(manifest):
            try:
                found = [*keyword_problems(snapshot)]
            except (DataError, NoInputError) as error:
                found = [str(error)]
            yield from (f"{where}, keywords: {line}" for line in found)


@dataclass(slots=True)
class _State:
    """The intermediate result of a check."""

    objects: Objects
    full: bool
    subset: tuple[int, int] | None
    problems: list[str] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)
    seen: dict[str, ObjectRef] = field(default_factory=dict)
    hashed: int = 0
    content: _Content = field(default_factory=_Content)

    def look_at(self, manifest: Manifest, progress: Callable[[int], object]) -> None:
        """Check a version: new objects, then whether all of its objects match each other."""
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
            found += self.content.problems(Snapshot(self.objects, manifest))
        self.problems += found

    def report(self, layout: Layout) -> CheckReport:
        """Return the report."""
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
    """Return whether an object is in part ``part`` of ``parts``, counted from 1."""
    return int(sha256[:15], 16) % parts == part - 1


def _loose_files(layout: Layout) -> Iterator[str]:
    """Return problems in files that belong to no version."""
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


def _unreadable(objects: Objects, ref: ObjectRef) -> Iterator[str]:
    """Read a whole table and return problems."""
    try:
        rows = sum(batch.num_rows for batch in objects.iter_batches(ref))
    except (DataError, pa.ArrowInvalid, OSError) as error:
        yield f"{objects.layout.object(ref.sha256)} ({ref.name}): unreadable: {error}"
        return
    if rows != ref.rows:
        yield f"{ref.name}: {rows} rows, but the manifest states {ref.rows}"


def _misfits(snapshot: Snapshot, side: Modality) -> Iterator[str]:
    """Check vectors, digests, removed rows, ids, their table, and golden answers."""
    info, vectors = snapshot.index(side), snapshot.vectors(side)
    blocks = vectors.blocks(_BLOCK_ROWS)
    bad = sum(int((~np.isfinite(part).all(axis=1)).sum()) for _, part in blocks)
    if bad:
        yield f"{bad} vectors are not finite"
    column = snapshot.table(f"ids/{side}", ["key"])["key"]
    blank = np.flatnonzero(column.is_null().to_numpy())
    if not np.array_equal(blank, vectors.removed):
        yield "the ids without a key differ from the removed rows"
    named = np.sort(_words([column.drop_null()]))
    if (named[1:] == named[:-1]).any():
        yield "two ids have the same key"
    if snapshot.manifest.find(TABLES[side]) is not None:
        keys = _words(batch["key"] for batch in snapshot.batches(TABLES[side], ["key"]))
        if not np.array_equal(np.unique(keys), named):
            yield f"the ids differ from those of the table {TABLES[side]}"
    if snapshot.manifest.find(f"golden/{side}") is not None:
        column = snapshot.table(f"golden/{side}", ["ids"])["ids"]
        answers = pc.list_flatten(column).to_numpy()
        answers = answers[answers >= 0]
        if (answers >= info.rows).any() or np.isin(answers, vectors.removed).any():
            yield "golden answers contain ids that do not exist"


def _parts(manifest: Manifest, side: Modality) -> tuple[str, ...]:
    names = (f"{kind}/{side}" for kind in ("ids", "removed", "vectors", "digests", "golden"))
    wanted = (*names, TABLES[side])
    return tuple(ref.sha256 for ref in manifest.named(wanted))


def _counts(manifest: Manifest) -> Iterator[str]:
    """Compare the counts in the manifest with the rows of the tables."""
    counts = manifest.counts
    for name, count in (("images", counts.indexed), ("captions", counts.captions)):
        ref = manifest.find(name)
        if ref is not None and ref.rows != count:
            yield f"{ref.rows} rows in {name}, but the counts state {count}"


def _words(columns: Iterable[Any]) -> Words:
    """Return the first 64 bits of each key: enough for millions, an eighth of the memory."""
    found = [np.empty(0, dtype=np.uint64)]
    for column in columns:
        data = bytes.fromhex("".join(column.to_pylist()))
        if len(data) != len(column) * _KEY_WORDS * 8:
            raise DataError("a key is not a sha256 in hex")
        found.append(np.frombuffer(data, dtype=np.uint64)[::_KEY_WORDS].copy())
    return np.concatenate(found)
