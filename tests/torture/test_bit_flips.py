"""A flipped bit in any file of a version is found, and the file is named (guarantee 7)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmindex.core.errors import MmindexError
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.quarantine import read_ledger
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget
from support.damage import one_bit
from support.fakestore import fast_folder, run_build, truncated_jpeg, write_photos
from support.tally import Tally

pytestmark = pytest.mark.timeout(1800)
FLIPS = (300, 12)  # for each kind of file: full, bounded
OBJECTS = (
    "crawl/images",
    "crawl/captions",
    "crawl/quarantine",
    "images",
    "captions",
    "quarantine",
    "forgotten",
    "embeddings/image",
    "embeddings/text",
    "ids/image",
    "removed/image",
    "vectors/image",
    "digests/image",
    "index/image",
    "golden/image",
)
KINDS = ("FORMAT", "CURRENT", "manifest", "old manifest", "old objects", *OBJECTS)


@dataclass(frozen=True, slots=True)
class Store:
    """A store with several versions, and how to repeat its last build."""

    layout: Layout
    photos: Path
    manifests: tuple[Manifest, ...]

    def files(self, kind: str) -> list[Path]:
        """Return the files of one kind."""
        *old, newest = self.manifests
        plain = {
            "FORMAT": self.layout.format_file,
            "CURRENT": self.layout.current_file,
            "manifest": self.layout.version(newest.version),
            "old manifest": self.layout.version(old[0].version),
        }
        if kind in plain:
            return [plain[kind]]
        new = {ref.sha256 for ref in newest.objects}
        refs = [r for m in old for r in m.objects if r.sha256 not in new]
        if kind != "old objects":
            refs = [r for r in newest.objects if r.name == kind or r.name.startswith(f"{kind}/")]
        return [self.layout.object(ref.sha256) for ref in refs]

    def build(self) -> None:
        run_build(self.layout.root, self.photos, index__kind="sq8", limits__max_removed=1.0)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    broken = {"empty.jpg": b"", "torn.jpg": truncated_jpeg(99)}
    with fast_folder() as folder:
        made = Store(Layout(folder / "store"), folder / "photos", ())
        for numbers in (range(32), range(33), range(34), range(1, 34)):
            write_photos(made.photos, {f"{n}.jpg": n for n in numbers}, broken=broken)
            made.build()
            if numbers.stop == 32:
                forget(made.layout.root, ["folder/photos/7.jpg"], "forget")
        kept = [versions.read_version(made.layout, n) for n in versions.list_versions(made.layout)]
        yield Store(made.layout, made.photos, tuple(kept))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_and_its_file_named(
    store: Store, kind: str, full: bool, tally: Tally
) -> None:
    dice = random.Random(tally.seed(f"bit flips, {kind}"))
    paths = store.files(kind)
    assert paths, f"the store has no {kind}"
    for number in range(FLIPS[0 if full else 1]):
        path = paths[number % len(paths)]
        right = path.read_bytes()
        if not right:  # an empty digests file of an empty segment, for example
            continue
        path.write_bytes(one_bit(right, dice))
        try:
            problems = problems_of(store)
        finally:
            path.write_bytes(right)
        tally.add("bit flips", tried=1, found=any(path.name in line for line in problems))
        assert any(path.name in line for line in problems), (path.name, problems)
    assert not problems_of(store)


def problems_of(store: Store) -> tuple[str, ...]:
    """Return the output of ``mmindex check --full``, or the error if the store cannot be opened."""
    try:
        return check(store.layout.root, full=True).problems
    except MmindexError as error:
        return (error.message,)


def test_flips_in_the_list_of_unchanged_files_change_no_build(
    store: Store, full: bool, tally: Tally
) -> None:
    """``stamps.sqlite`` is a cache: whatever it contains, the next build is correct."""
    dice = random.Random(tally.seed("bit flips, stamps"))
    path = store.layout.stamps_file
    right = path.read_bytes()
    before = store.layout.current_file.read_bytes()
    for _ in range(FLIPS[0 if full else 1]):
        path.write_bytes(one_bit(right, dice))
        store.build()
        tally.add("bit flips in caches and logs", tried=1, harmless=1)
        assert store.layout.current_file.read_bytes() == before
    assert not problems_of(store)


def test_flips_in_the_ledger_are_read_or_refused(store: Store, full: bool, tally: Tally) -> None:
    """``quarantine.jsonl`` is a log: its lines have no digest, but the table of a version has one.

    A flip is refused with the file's name, or changes one entry's text; no entry vanishes.
    """
    dice = random.Random(tally.seed("bit flips, ledger"))
    path = store.layout.quarantine_file
    right = path.read_bytes()
    entries = len(list(read_ledger(store.layout)))
    for _ in range(FLIPS[0 if full else 1]):
        path.write_bytes(one_bit(right, dice))
        assert path.name in refusal(store) or len(list(read_ledger(store.layout))) == entries
        tally.add("bit flips in caches and logs", tried=1, harmless=1)
    path.write_bytes(right)


def refusal(store: Store) -> str:
    """Return the error for the ledger; empty if it can be read."""
    try:
        list(read_ledger(store.layout))
    except MmindexError as error:
        return error.message
    return ""
