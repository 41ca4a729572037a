"""``adapt`` on the command line: its output and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmindex_cli.app import app
from support.adapting import build_squares, coloured_squares
from support.models import TinyModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_model: TinyModel) -> Path:
    """A captioned store; do not change it."""
    folder = tmp_path_factory.mktemp("adapt")
    build_squares(folder / "store", coloured_squares(folder / "squares"), tiny_model)
    return folder / "store"


def run(*args: object, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["adapt", *map(str, args)])
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def test_text_shows_before_after_and_the_next_step(built: Path, tmp_path: Path):
    out, _ = run("--store", built, "--out", tmp_path / "model")
    assert out.startswith("adapted local-dir:")
    assert "96 images, 96 captions" in out
    assert "96 held-out images, in galleries of at most 20" in out
    for line in ("  before   ", "  after    ", "  change   "):
        assert out.count(line) == 2
    assert f"use it: mmindex build --store {built} --model local-dir:{tmp_path / 'model'}" in out


def test_json_has_the_figures_with_their_intervals(built: Path, tmp_path: Path):
    out, _ = run("--store", built, "--out", tmp_path / "model", "--format", "json")
    report = json.loads(out)
    assert report["adapted"] is True
    assert report["model"] == f"local-dir:{tmp_path / 'model'}"
    assert report["parent"].keys() == {"model", "pretrained", "fingerprint"}
    assert len(report["fingerprint"]) == len(report["parent"]["fingerprint"]) == 64
    for name in ("before", "after"):
        for way in ("text_to_image", "image_to_text"):
            figure = report[name][way]["r@10"]
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert report["gain"]["both"]["low"] > 0
    assert report["settings"].keys() == {"image_ridge", "text_ridge", "trust", "steps"}


def test_a_kept_model_exits_with_0_and_writes_nothing(built: Path, tmp_path: Path):
    captions = tmp_path / "captions.csv"
    lines = [f"{n:03d}.png,{7919 * n % 9973} {104729 * n % 99991}" for n in range(96)]
    captions.write_text("\n".join(["image,caption", *lines]))
    model = tmp_path / "model"
    out, _ = run("--store", built, "--out", model, "--captions", captions)
    assert out.startswith("kept local-dir:")
    assert "no candidate improves recall significantly" in out
    assert "candidate" in out
    assert "use it" not in out
    assert not model.exists()


def test_mistakes_have_their_exit_codes(built: Path, tmp_path: Path):
    _, error = run("--store", tmp_path / "none", "--out", tmp_path / "model", code=66)
    assert "error: " in error
    _, error = run("--store", built, "--out", built, code=2)
    assert "not an adapted model" in error
    assert "--out" in error
    few = tmp_path / "few.csv"
    few.write_text("image,caption\n001.png,one\n")
    _, error = run("--store", built, "--out", tmp_path / "model", "--captions", few, code=65)
    assert "too few images with captions: 1, at least 50 are needed" in error
    missing = tmp_path / "missing.csv"
    run("--store", built, "--out", tmp_path / "model", "--captions", missing, code=66)
    run("--store", built, code=2)
