"""The keyword index of a version depends on its texts, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmindex
from mmindex.core.errors import DataError, NoInputError
from mmindex.keywords.index import open_keywords
from mmindex.keywords.names import SEGMENTS, SUMMARY, has_keywords
from mmindex.runs.dry_run import dry_run
from mmindex.runs.run import run
from mmindex.runs.settings import settings
from mmindex.runs.status import status_record
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.snapshot import open_snapshot
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget

pytestmark = pytest.mark.slow


def current(root: Path) -> Manifest:
    found = versions.read_current(Layout(root))
    assert found is not None
    return found


def parts(root: Path) -> dict[str, str]:
    """Return the objects of the keyword index, by name."""
    manifest = current(root)
    refs = [*manifest.named(SEGMENTS), manifest.require(SUMMARY)]
    return {ref.name: ref.sha256 for ref in refs}


def build(root: Path, count: int, **options: object) -> None:
    mmindex.build(root, sources=[f"scenes:{count}"], max_removed=1.0, workers=0, **options)


def dry(root: Path, **options: object) -> tuple[str, str]:
    """What a build would do to the store, and to its keyword index."""
    index = {f"index.{name}": value for name, value in options.items()}
    found = dry_run(root, settings(root, None, index), "dry")
    return found.would, found.keywords


def test_a_keyword_index_is_kept_until_the_texts_change(tmp_path: Path) -> None:
    root = tmp_path / "store"
    build(root, 40)
    first = parts(root)

    build(root, 40)
    run(root, settings(root, None, {}), "index-alone", ["index"])
    assert parts(root) == first

    root.rename(tmp_path / "moved")  # the tables contain the paths of the images
    build(root, 40)
    assert parts(root) == first

    build(root, 30)
    assert parts(root).keys() == first.keys()
    assert not parts(root).items() & first.items()
    assert check(root, full=True).problems == ()


def test_forgotten_images_leave_the_keyword_index(tmp_path: Path) -> None:
    root = tmp_path / "store"
    build(root, 30)
    gone = "000000000007"
    with mmindex.open(root) as index:
        assert [hit.id for hit in index.search(keywords=gone)] == [f"scenes/0/{gone}"]

    forget(root, [f"scenes/0/{gone}"], "forgotten")
    snapshot = open_snapshot(root)
    assert not len(open_keywords(snapshot).best([gone], 30).ids)
    for ref in snapshot.manifest.named(SEGMENTS):
        assert gone.encode() not in Objects(Layout(root)).path(ref).read_bytes()
    assert check(root, full=True).problems == ()


def test_a_store_without_a_keyword_index_gets_one_without_encoding(tmp_path: Path) -> None:
    root = tmp_path / "store"
    build(root, 30, keywords=False)
    before = current(root)
    assert not has_keywords(before)
    with mmindex.open(root) as index, pytest.raises(NoInputError, match="no keyword index") as got:
        index.search(keywords="boat")
    assert "mmindex index" in str(got.value.hint)
    assert dry(root, keywords=True) == ("publish", "built")
    assert dry(root) == ("nothing", "none")
    assert status_record(root, before, None, None)["keywords"] is None

    build(root, 30, keywords=True)
    assert dry(root) == ("nothing", "kept")
    assert dry(root, keywords=False) == ("publish", "removed")
    after = current(root)
    assert has_keywords(after)
    assert status_record(root, after, None, None)["keywords"]["words"] > 30
    assert after.named("embeddings/") == before.named("embeddings/")
    assert after.indexes == before.indexes
    assert after.evaluation == before.evaluation
    with mmindex.open(root) as index:
        assert index.search(keywords="000000000007")[0].id == "scenes/0/000000000007"


@pytest.mark.parametrize("name", [SUMMARY, f"{SEGMENTS}00000"])
def test_a_damaged_keyword_index_is_refused_and_built_again(tmp_path: Path, name: str) -> None:
    root = tmp_path / "store"
    build(root, 30)
    first = parts(root)
    path = Layout(root).object(current(root).require(name).sha256)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)

    with mmindex.open(root) as index, pytest.raises(DataError):
        index.search(keywords="boat")
    assert check(root, full=True).problems
    build(root, 30)
    assert parts(root) == first
    assert check(root, full=True).problems == ()
