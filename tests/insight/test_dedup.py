"""Near-duplicates: with any index, the groups equal those of brute force."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from mmindex.core.config import IndexConfig
from mmindex.core.errors import NoInputError, UsageError
from mmindex.insight.dedup import near_duplicates
from mmindex.pages.duplicates import dedup_page
from mmindex.search.near import default_threshold
from mmindex.store import versions
from mmindex.store.snapshot import Snapshot, open_snapshot
from mmindex_cli.app import app
from support.index_stores import indexed
from support.index_stores import key_of as index_key
from support.models import FakeEncoder, fake_info
from support.stores import (
    Side,
    captions_table,
    image_store,
    images_table,
    key_of,
    make_store,
    with_manifest,
    write_tables,
)

DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def store_of(root: Path, vectors: np.ndarray, copies: int = 0) -> Snapshot:
    """Images 0, 1, ... with these vectors; the first ``copies`` also have a second name."""
    names = [f"i/{n:04d}" for n in range(len(vectors))]
    rows = [(name, key_of(name), f"/p/{name}") for name in names]
    rows += [(f"copy/{n}", key_of(names[n]), f"/p/copy/{n}") for n in range(copies)]
    images = images_table(rows)
    widths = pa.array([100 + n % 7 for n in range(len(rows))], pa.int32())
    images = images.set_column(images.schema.get_field_index("width"), "width", widths)
    side = Side([key_of(name) for name in names], unit(vectors))
    make_store(root, images, captions_table([]), {"image": side}, fake_info(), segment_rows=50)
    return open_snapshot(root)


def with_index(root: Path, vectors: np.ndarray, kind: str) -> Snapshot:
    """A version whose image index is of this kind."""
    snapshot = indexed(root, vectors.astype(np.float16), IndexConfig(kind=kind, threads=1))
    rows = [(f"i/{n:04d}", index_key(n), f"/p/{n}") for n in range(len(vectors))]
    tables = write_tables(snapshot.objects, images_table(rows), captions_table([]))
    made = msgspec.structs.replace(
        snapshot.manifest,
        stages=("crawl", "encode", "index"),
        encoder=fake_info(),
        objects=(*snapshot.manifest.objects, *tables),
    )
    versions.publish_version(snapshot.objects, made)
    return open_snapshot(root)


def ids_in(published: Snapshot, threshold: float) -> list[set[str]]:
    return [
        {member.image_id for member in group.members}
        for group in near_duplicates(published, threshold)
    ]


def brute_force(vectors: np.ndarray, threshold: float, copies: int = 0) -> list[set[str]]:
    """Return the connected components of the graph of close pairs, computed slowly."""
    half = unit(vectors).astype(np.float16).astype(np.float64)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    close = half @ half.T >= threshold
    left = set(range(len(vectors)))
    groups = []
    while left:
        part, front = set(), {min(left)}
        while front:
            part |= front
            front = {int(m) for n in front for m in np.flatnonzero(close[n])} - part
        left -= part
        names = {f"i/{n:04d}" for n in part} | {f"copy/{n}" for n in part if n < copies}
        groups.append(names)
    return [group for group in groups if len(group) > 1]


def clustered(seed: int, n: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 6), DIM))
    return centres[rng.integers(len(centres), size=n)] + spread * rng.normal(size=(n, DIM))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 160), spread=st.sampled_from([0.02, 0.15, 0.3]))
def test_groups_are_those_of_brute_force(tmp_path_factory, seed, n, spread) -> None:
    vectors = clustered(seed, n, spread)
    copies = min(3, n)
    published = store_of(tmp_path_factory.mktemp("d") / "s", vectors, copies)
    found = ids_in(published, 0.95)
    assert sorted(map(sorted, found)) == sorted(map(sorted, brute_force(vectors, 0.95, copies)))
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)


def test_a_group_larger_than_the_first_search_is_found_completely(tmp_path: Path) -> None:
    """300 copies of one image, each with more close neighbours than a search first returns."""
    rng = np.random.default_rng(0)
    vectors = np.concatenate(
        [rng.normal(size=(1, DIM)) + 0.001 * rng.normal(size=(300, DIM)),
         rng.normal(size=(40, DIM))]
    )  # fmt: skip
    [group] = ids_in(store_of(tmp_path / "s", vectors), 0.99)
    assert group == {f"i/{n:04d}" for n in range(300)}


def test_a_chain_is_one_group(tmp_path: Path) -> None:
    """Each link is close, but the ends are not: the similarity to the kept image can be lower."""
    angles = np.arange(8) * 0.2  # cos 0.2 = 0.980
    vectors = np.zeros((8, DIM))
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    [group] = near_duplicates(store_of(tmp_path / "s", vectors), 0.97)
    assert len(group.members) == 8
    assert min(member.similarity for member in group.members) < 0.5


def test_the_largest_is_kept_and_comes_first(tmp_path: Path) -> None:
    vectors = np.ones((7, DIM)) + 0.001 * np.random.default_rng(1).normal(size=(7, DIM))
    [group] = near_duplicates(store_of(tmp_path / "s", vectors), 0.9)
    assert [member.keep for member in group.members] == [True] + [False] * 6
    assert group.members[0].width == 106
    assert group.members[0].similarity == pytest.approx(1.0, abs=1e-9)
    assert group.spare_bytes == 6 * 100


def test_only_selected_rows_are_grouped(tmp_path: Path) -> None:
    vectors = np.repeat(np.eye(DIM)[:3], 3, axis=0)
    published = store_of(tmp_path / "s", vectors, copies=1)
    rows = np.ones(10, dtype=bool)
    rows[[0, 3, 4]] = False
    found = near_duplicates(published, 0.9, rows)
    assert [{m.image_id for m in group.members} for group in found] == [
        {"i/0001", "i/0002", "copy/0"},
        {"i/0006", "i/0007", "i/0008"},
    ]
    assert near_duplicates(published, 0.9, np.zeros(10, dtype=bool)) == ()


def test_groups_through_a_quantised_index_are_those_of_exact_search(tmp_path: Path) -> None:
    """An IVF-PQ index over 3,000 vectors lists near-copies among its candidates."""
    vectors = unit(clustered(5, 3_000, 0.05))
    exact = with_index(tmp_path / "exact", vectors, "exact")
    quantised = with_index(tmp_path / "ivf", vectors, "IVF32,PQ8np")
    assert quantised.manifest.indexes["image"].factory
    assert ids_in(quantised, 0.99) == ids_in(exact, 0.99)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_an_invalid_threshold_is_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(UsageError, match="`image_threshold="):
        near_duplicates(store_of(tmp_path / "s", np.eye(DIM)), threshold)


def test_a_store_without_images_says_so(tmp_path: Path) -> None:
    make_store(tmp_path / "s", images_table([]), captions_table([]), {}, fake_info())
    with pytest.raises(NoInputError, match="no images"):
        near_duplicates(open_snapshot(tmp_path / "s"))


@pytest.fixture
def real_files(tmp_path: Path) -> Snapshot:
    """An image, a smaller and a recompressed copy, an image with a hostile name, and others."""
    folder = tmp_path / "p"
    folder.mkdir()
    big = Image.effect_mandelbrot((200, 150), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    big.save(folder / "big.png")
    big.resize((100, 75)).save(folder / "small.png")
    big.save(folder / "again.jpg", quality=60)
    Image.new("RGB", (50, 50), "red").save(folder / "red.png")
    images = {f"folder/p/{path.name}": path for path in sorted(folder.iterdir())}
    images["<script>alert(1)</script>\u202e"] = folder / "big.png"
    image_store(tmp_path / "s", images, [], FakeEncoder())
    return open_snapshot(tmp_path / "s")


def test_the_page_shows_each_group_and_contains_no_scripts(real_files: Snapshot) -> None:
    groups = near_duplicates(real_files, 0.9)
    page = dedup_page(real_files, groups, 0.9)
    assert len(groups) == 1
    assert page.count("data:image/jpeg") == len(groups[0].members) == 4
    assert page.count('class="badge"') == 1
    assert "<script>" not in page
    assert "\u202e" not in page
    assert "default-src &#39;none&#39;" in page
    assert "No near-duplicates" in dedup_page(real_files, (), 0.9)
    encoder = msgspec.structs.replace(real_files.encoder, model="local-dir:/secret/place/mine")
    page = dedup_page(with_manifest(real_files, encoder=encoder), groups, 0.9)
    assert "local-dir:mine" in page
    assert "/secret" not in page


def test_the_default_threshold_depends_on_the_model(real_files: Snapshot) -> None:
    assert default_threshold(real_files.encoder) == 0.96
    encoder = msgspec.structs.replace(real_files.encoder, model="embedded")
    assert default_threshold(encoder) == 0.98
    strict = with_manifest(real_files, encoder=encoder)
    assert near_duplicates(strict) == near_duplicates(real_files, 0.98)


def test_finding_duplicates_loads_no_model(tmp_path: Path) -> None:
    store_of(tmp_path / "s", np.eye(DIM))
    script = (
        "import sys; from pathlib import Path\n"
        "from mmindex.insight.dedup import near_duplicates\n"
        "from mmindex.store.snapshot import open_snapshot\n"
        "near_duplicates(open_snapshot(Path(sys.argv[1])))\n"
        "print([m for m in ('torch', 'open_clip', 'duckdb') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_groups_across_a_column_have_several_values(tmp_path: Path) -> None:
    """A copy in another split is reported; copies within a split are not."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(2, FakeEncoder().info.dim))
    vectors = centres[[0, 0, 1, 1]] + rng.normal(scale=1e-3, size=(4, centres.shape[1]))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    keys = [key_of(f"picture {n}") for n in range(4)]
    images = images_table([(f"id/{n}", key, f"/p/{n}.png") for n, key in enumerate(keys)])
    splits = pa.array(["train", "val", "train", "train"])
    images = images.set_column(images.column_names.index("split"), "split", splits)
    snapshot = make_store(
        tmp_path / "store", images, captions_table([]), {"image": Side(keys, vectors)},
        FakeEncoder().info,
    )  # fmt: skip
    assert len(near_duplicates(snapshot)) == 2
    [leak] = near_duplicates(snapshot, across="split")
    assert {(one.image_id, one.across) for one in leak.members} == {
        ("id/0", "train"),
        ("id/1", "val"),
    }
    with pytest.raises(UsageError, match="no column"):
        near_duplicates(snapshot, across="splits")
    arguments = ["dedup", "--across", "split", "--store", str(tmp_path / "store")]
    told = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert [one["across"] for one in json.loads(told.stdout)["images"]] == ["train", "val"]
    assert "  val  " in CliRunner().invoke(app, arguments).stdout
    tsv = CliRunner().invoke(app, [*arguments, "--format", "tsv"]).stdout.splitlines()
    assert tsv[0].split("\t")[-1] == "across"
    assert tsv[1].split("\t")[-1] == "train"
