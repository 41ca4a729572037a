"""The correction of hubness: what it changes, when it is used, and what stays the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.config import EvaluateConfig
from mmindex.evaluate.bootstrap import mean_over_images
from mmindex.evaluate.fit_hubness import fit_hubness
from mmindex.search.hubness import HUBNESS, Hubness, candidates, read_hubness
from mmindex.store.snapshot import open_snapshot
from mmindex_cli.app import app
from support.pages import assert_self_contained
from support.vectors import write_clip_retrieval, write_npy

pytestmark = pytest.mark.slow  # the stores of this file are fitted several times
ROWS, DIM, HUBS = 600, 64, 20


def corpus(folder: Path, *, hubs: bool) -> Path:
    """Images with one caption each; with ``hubs``, some images are near to all captions."""
    rng = np.random.default_rng(5)
    common = rng.normal(size=DIM)
    images = rng.normal(size=(ROWS, DIM))
    texts = images + 0.1 * rng.normal(size=(ROWS, DIM))
    if hubs:
        texts += rng.normal(size=(ROWS, DIM)) + common
        images[:HUBS] += 2.5 * common
    place = write_clip_retrieval(folder, rows=ROWS)
    for side, vectors in (("img", images), ("text", texts)):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        write_npy(place / f"{side}_emb" / f"{side}_emb_0.npy", units.astype(np.float16))
    return place


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same corpus with hubs, without and with the setting."""
    folder = tmp_path_factory.mktemp("hubs")
    place = corpus(folder / "v", hubs=True)
    mmindex.build(folder / "off", [f"embeddings:{place}"])
    mmindex.build(folder / "auto", [f"embeddings:{place}"], hubness="auto")
    return folder / "off", folder / "auto"


def test_hits_are_ranked_by_score_minus_bias() -> None:
    found = Hubness(np.array([0.3, 0.0, 0.1], dtype=np.float32)).order(
        np.array([0.9, 0.8, 0.7], dtype=np.float32), np.array([0, 1, 2])
    )
    assert found[1].tolist() == [1, 0, 2]
    assert found[0][0] == np.float32(0.8)
    assert candidates(10) == 110
    assert candidates(100) == 400


def test_hubs_lose_places_and_recall_improves(stores: tuple[Path, Path]) -> None:
    off, auto = stores
    with mmindex.open(off) as index:
        assert read_hubness(index.snapshot) is None
        assert index.evaluate().hubness is None
        plain = index.evaluate()
    with mmindex.open(auto) as index:
        hubness = read_hubness(index.snapshot)
        evaluation = index.evaluate()
    assert hubness is not None
    assert hubness.bias[:HUBS].mean() > hubness.bias[HUBS:].mean() + 0.1
    assert evaluation.hubness is not None
    assert evaluation.hubness.corrected["r@1"] > evaluation.hubness.without["r@1"]
    # The other figures are those without a correction.
    assert evaluation.text_to_image == plain.text_to_image
    assert evaluation.text_to_image_index == plain.text_to_image_index


def test_the_correction_needs_hubs_and_captions(tmp_path: Path) -> None:
    place = corpus(tmp_path / "v", hubs=False)
    mmindex.build(tmp_path / "s", [f"embeddings:{place}"], hubness="auto")
    assert read_hubness(open_snapshot(tmp_path / "s")) is None
    few = write_clip_retrieval(tmp_path / "few", rows=40)
    mmindex.build(tmp_path / "t", [f"embeddings:{few}"], hubness="auto")
    assert fit_hubness(open_snapshot(tmp_path / "t"), EvaluateConfig()) is None


def test_a_build_without_changes_keeps_it_and_off_removes_it(stores: tuple[Path, Path]) -> None:
    _, auto = stores
    assert not mmindex.build(auto).published  # the store remembers the setting
    with mmindex.open(auto) as index:
        before = index.snapshot.manifest.require(HUBNESS)
    assert mmindex.build(auto, hubness="off").published
    with mmindex.open(auto) as index:
        assert index.snapshot.manifest.find(HUBNESS) is None
    assert mmindex.build(auto, hubness="auto").published
    with mmindex.open(auto) as index:
        assert index.snapshot.manifest.require(HUBNESS) == before


def test_evaluate_shows_both(stores: tuple[Path, Path], tmp_path: Path) -> None:
    off, auto = stores
    page = tmp_path / "report.html"
    shown = CliRunner().invoke(app, ["evaluate", "--store", str(auto), "--html", str(page)])
    assert shown.exit_code == 0, shown.stderr
    assert "hubness, held out" in shown.stdout
    assert "without correction" in shown.stdout
    with mmindex.open(auto) as index:
        figures = index.evaluate().hubness
    assert figures is not None
    text = page.read_text("utf-8")
    assert_self_contained(text)
    for name, value in figures.without.items():
        shown_values = f"<td>{value:.1f}</td><td>{figures.corrected[name]:.1f}</td>"
        assert f"<td>{name.upper()}</td>{shown_values}" in text
    assert "hubness" not in CliRunner().invoke(app, ["evaluate", "--store", str(off)]).stdout
    done = CliRunner().invoke(app, ["evaluate", "--store", str(auto), "--format", "json"])
    assert set(json.loads(done.stdout)["hubness"]) == {"queries", "without", "corrected"}


def test_the_error_of_a_gain_is_that_of_images() -> None:
    gains = np.repeat([0.2, -0.1, 0.3], 5)
    mean, error = mean_over_images(gains, np.repeat([4, 7, 9], 5))
    alone = np.array([0.2, -0.1, 0.3])
    assert mean == pytest.approx(alone.mean())
    assert error == pytest.approx(alone.std(ddof=1) / np.sqrt(3))
