"""A damaged index is refused and never answers (guarantee 7)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.core.errors import DataError
from mmindex.search.searcher import Searcher
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import open_layout, read_current
from support.clustered import clustered
from support.command import mmindex
from support.damage import DAMAGES, damaged
from support.fakestore import fast_folder, run_build, write_photos
from support.index_stores import indexed
from support.stores import reopened
from support.tally import Tally

pytestmark = pytest.mark.timeout(1800)
N, DIM = 2_000, 32
QUERIES = clustered(20, DIM, 1).astype(np.float32)
K = 10
# In this process for each kind of index, and with the command; full, bounded.
SEARCHES = (700, 120)
COMMANDS = (50, 10)
FILES = ("index/", "vectors/", "digests/", "ids/", "removed/")


@dataclass(frozen=True, slots=True)
class Store:
    """An index, its files, its answers, and files of another corpus with the same shape."""

    snapshot: Snapshot
    names: tuple[str, ...]
    answer: tuple[np.ndarray, list[str]]
    others: dict[str, bytes]

    def path(self, name: str) -> Path:
        return self.snapshot.layout.object(self.snapshot.manifest.require(name).sha256)


def ask(snapshot: Snapshot) -> tuple[np.ndarray, list[str]]:
    """Return scores and keys of all hits, for a reader that has verified nothing yet."""
    searcher = Searcher(reopened(snapshot), "image", threads=1)
    scores, ids = searcher.search(QUERIES, K)
    return scores, searcher.keys(ids.ravel())


@pytest.fixture(scope="module", params=["ivfpq", "sq8", "exact"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    config = IndexConfig(kind=request.param, threads=1)
    with fast_folder() as folder:
        snapshot = indexed(folder / "one", clustered(N, DIM), config)
        other = indexed(folder / "other", clustered(N, DIM, 2), config)
        others = {
            ref.name: other.layout.object(ref.sha256).read_bytes() for ref in other.manifest.objects
        }
        names = tuple(ref.name for ref in snapshot.manifest.objects if ref.name.startswith(FILES))
        yield Store(snapshot, names, ask(snapshot), others)


def wrong_bytes(store: Store, name: str, how: str, dice: random.Random) -> bytes | None:
    """Return the damaged content of the file; None if it is removed."""
    data = store.path(name).read_bytes()
    if how == "missing":
        return None
    if how == "another corpus":
        return store.others[name]
    if how == "another file":
        return store.path(dice.choice([n for n in store.names if n != name])).read_bytes()
    return damaged(data, how, dice)


def test_a_damaged_index_is_refused_in_process(store: Store, full: bool, tally: Tally) -> None:
    dice = random.Random(tally.seed("damaged indexes"))
    ways = (*DAMAGES, "missing", "another corpus", "another file")
    for number in range(SEARCHES[0 if full else 1]):
        name, how = store.names[number % len(store.names)], dice.choice(ways)
        path, right = store.path(name), store.path(name).read_bytes()
        wrong = wrong_bytes(store, name, how, dice)
        if wrong == right:  # both corpora have the same keys
            wrong = damaged(right, "one_bit", dice)
        path.unlink()
        if wrong is not None:
            path.write_bytes(wrong)
        tally.add("damaged indexes", tried=1, answered=1)
        with pytest.raises(DataError) as refused:
            ask(store.snapshot)
            pytest.fail(f"{name}, {how}: answered")
        assert str(path) in refused.value.message or name in refused.value.message
        tally.add("damaged indexes", answered=-1)
        path.write_bytes(right)
    scores, keys = ask(store.snapshot)
    assert np.array_equal(scores, store.answer[0])
    assert keys == store.answer[1]


@pytest.mark.parametrize("kind", ["exact", "sq8"])
def test_a_damaged_index_is_refused_by_the_command(
    kind: str, fast_dir: Path, full: bool, tally: Tally
) -> None:
    """The exit code is 65, and nothing is printed on stdout."""
    root, photos = fast_dir / f"damaged-{kind}", fast_dir / f"damaged-{kind}-photos"
    write_photos(photos, {f"{n}.jpg": n for n in range(12)})
    run_build(root, photos, index__kind=kind)
    layout = open_layout(root)
    manifest = read_current(layout)
    assert manifest is not None
    wanted = tuple(f"{part}image" for part in FILES)
    refs = [ref for ref in manifest.objects if ref.name.startswith(wanted)]
    dice = random.Random(tally.seed("damaged indexes, command"))
    query = ("query", "--image", first_id(root), "--to", "image", "--store", root)
    assert mmindex(*query).stdout
    for number in range(COMMANDS[0 if full else 1] // 2):
        ref, how = refs[number % len(refs)], dice.choice([*DAMAGES])
        path = layout.object(ref.sha256)
        right = path.read_bytes()
        path.write_bytes(damaged(right, how, dice))
        done = mmindex(*query, code=65)
        assert not done.stdout, f"{ref.name}, {how}"
        assert str(path) in done.stderr or ref.name in done.stderr
        path.write_bytes(right)
        tally.add("damaged indexes", tried=1, answered=0)


def first_id(root: Path) -> str:
    objects = Objects(open_layout(root))
    manifest = read_current(objects.layout)
    assert manifest is not None
    ref = manifest.find("images")
    assert ref is not None
    return str(objects.read_table(ref, ["image_id"])["image_id"][0].as_py())
