"""A damaged file never answers: every part is verified before its first use."""

import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.core.errors import DataError
from mmindex.search.searcher import Searcher
from support.clustered import clustered
from support.index_stores import indexed
from support.stores import reopened

N, DIM = 4_000, 48
VECTORS = clustered(N, DIM)
QUERIES = clustered(200, DIM, 1).astype(np.float32)


def flips(content, count, seed):
    """Yield the same bytes with one bit flipped, again and again."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)


@pytest.mark.parametrize("name", ["index/image", "digests/image/00000"])
def test_200_damaged_indexes_are_all_refused(tmp_path, name):
    snapshot = indexed(tmp_path, VECTORS, IndexConfig(kind="ivfpq", threads=1))
    path = snapshot.layout.object(snapshot.manifest.find(name).sha256)
    content = path.read_bytes()
    for damaged in flips(content, 200, 1):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged|do not fit"):
            Searcher(reopened(snapshot), "image")
    path.write_bytes(content)
    Searcher(reopened(snapshot), "image")


@pytest.mark.parametrize(("name", "size"), [("index/image", 0), ("index/image", 4_096)])
def test_a_cut_index_is_refused(tmp_path, name, size):
    snapshot = indexed(tmp_path, VECTORS, IndexConfig(kind="ivfpq", threads=1))
    path = snapshot.layout.object(snapshot.manifest.find(name).sha256)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="bytes"):
        Searcher(snapshot, "image")


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_damaged_vectors_never_score_an_answer(tmp_path, kind):
    """Each block is checked before its first use, for candidates and for scans."""
    snapshot = indexed(tmp_path, VECTORS, IndexConfig(kind=kind, threads=1))
    path = snapshot.layout.object(snapshot.manifest.find("vectors/image/00000").sha256)
    content = path.read_bytes()
    for damaged in flips(content, 50, 2):
        path.write_bytes(damaged)
        searcher = Searcher(reopened(snapshot), "image", threads=1)
        with pytest.raises(DataError, match="damaged"):
            searcher.search(QUERIES, 10)
    path.write_bytes(content)


def test_damaged_ids_never_name_a_hit(tmp_path):
    snapshot = indexed(tmp_path, VECTORS[:500], IndexConfig(threads=1))
    path = snapshot.layout.object(snapshot.manifest.find("ids/image").sha256)
    for damaged in flips(path.read_bytes(), 50, 3):
        path.write_bytes(damaged)
        searcher = Searcher(reopened(snapshot), "image", threads=1)
        with pytest.raises(DataError, match="damaged"):
            searcher.keys([0])


def test_a_verified_reader_passes_the_hashed_bytes_to_faiss(tmp_path):
    """A file that is swapped after its check is hashed again before faiss reads it."""
    snapshot = indexed(tmp_path, VECTORS, IndexConfig(kind="ivfpq", threads=1))
    ref = snapshot.manifest.find("index/image")
    snapshot.objects.path(ref)
    path = snapshot.layout.object(ref.sha256)
    path.write_bytes(next(flips(path.read_bytes(), 1, 4)))
    with pytest.raises(DataError, match="damaged"):
        Searcher(snapshot, "image")
