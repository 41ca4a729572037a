"""The ``evaluate`` command: one JSON object for scripts, a table for people."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mmindex.evaluate.evaluation import (
    Evaluation,
    GoodHits,
    IndexQueries,
    IndexRecall,
    QueryCounts,
    RecallBlock,
    Reliabilities,
    Reliability,
    ReliabilityBin,
    ReliabilityFigures,
)
from mmindex_cli.app import app
from mmindex_cli.evaluate import evaluation_lines
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five images of five colours with captions that name them; each is the first answer."""
    paths = write_pngs(tmp_path / "p", 5)
    images = {f"i{n}": path for n, path in enumerate(paths)}
    captions = [(image_id, f"a {COLOURS[n]} square") for n, image_id in enumerate(images)]
    captions[1] = ("i1", "a black green square")  # half-way, because the green of the image is dark
    image_store(tmp_path / "store", images, captions, FakeEncoder())
    return tmp_path / "store"


def test_json_is_one_object_with_the_fields_that_scripts_rely_on(store: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--store", str(store), "--format", "json"])
    assert done.exit_code == 0
    [line] = done.stdout.splitlines()
    shown = json.loads(line)
    perfect = {"r@1": 100.0, "r@5": 100.0, "r@10": 100.0, "medr": 1.0}
    assert shown == {
        "version": 1,
        "model": "fake seed-0",
        "images": 5,
        "captions": 5,
        "protocol": "hit@k",
        "text_to_image": perfect,
        "image_to_text": perfect,
        "text_to_image_index": perfect,
        "image_to_text_index": perfect,
        "index_recall@10": {"image": 100.0, "text": 100.0},
        "queries": {"text_to_image": 5, "image_to_text": 5},
        "index_queries": {"image": "captions", "text": "images"},
        "sampled": False,
        "seed": 0,
        "trained": True,
        "ceiling": None,
        "reliability": None,
    }


def test_text_shows_the_same_figures(store: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--store", str(store)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "version 1  fake seed-0  5 images, 5 captions"
    assert lines[3].split() == ["text", "to", "image,", "exact", *["100.0"] * 3, "1", "5"]
    assert "index recall@10: image 100.00 %, text 100.00 %" in lines


BLOCK = RecallBlock(r1=39.3123, r5=65.4, r10=75.6, medr=2.0)
BEYOND = RecallBlock(r1=9.3, r5=25.4, r10=35.6, medr=None)
FIGURES = Evaluation(
    version=7,
    model="ViT-B-32 laion2b\x1b",
    images=5_000,
    captions=25_010,
    protocol="hit@k",
    text_to_image=BLOCK,
    image_to_text=BLOCK,
    text_to_image_index=BEYOND,
    image_to_text_index=BEYOND,
    index_recall=IndexRecall(image=98.7654, text=99.0),
    queries=QueryCounts(text_to_image=25_010, image_to_text=5_000),
    index_queries=IndexQueries(image="captions", text="images"),
    sampled=False,
    seed=0,
    trained=True,
)


def test_the_table_is_aligned_and_inert() -> None:
    assert list(evaluation_lines(FIGURES)) == [
        "version 7  ViT-B-32 laion2b\\x1b  5,000 images, 25,010 captions",
        "",
        "recall, percent             R@1    R@5   R@10   median rank   queries",
        "text to image, exact       39.3   65.4   75.6             2    25,010",
        "  through the index         9.3   25.4   35.6     beyond 10",
        "image to text, exact       39.3   65.4   75.6             2     5,000",
        "  through the index         9.3   25.4   35.6     beyond 10",
        "",
        "index recall@10: image 98.77 %, text 99.00 %",
        "note: hits have no probabilities: the corpus has too few images with captions, or an "
        "older release built this version",
    ]


def test_reliability_is_shown_with_its_interval() -> None:
    bins = tuple(
        ReliabilityBin(above=n / 10, hits=0, probability=None, right=None) for n in range(10)
    )
    error = ReliabilityFigures(ece=0.0123, ece_low=0.01, ece_high=0.0345, bins=bins)
    good = GoodHits(right_lost=5.75, wrong_kept=20.0, nothing=90.83)
    one = Reliability(
        fitted_queries=1_200,
        fitted_images=480,
        queries=1_100,
        images=470,
        hits=msgspec.structs.replace(error, ece=0.002),
        first_hits=error,
        first_hits_flat_threshold=error,
        good=good,
        flat_threshold=msgspec.structs.replace(good, nothing=82.0),
    )
    known = Reliabilities(text_to_image=one, image_to_text=None)
    shown = list(evaluation_lines(msgspec.structs.replace(FIGURES, reliability=known)))
    assert shown[-5:] == [
        "",
        "probabilities, held out     ECE  first hits    95 % interval   queries",
        "text to image             0.002       0.012    0.010 - 0.035     1,100",
        "query --good, percent     right answers lost  no answer recognised    flat threshold",
        "text to image                            5.8                  90.8              82.0",
    ]


def test_samples_missing_captions_and_untrained_models_are_reported() -> None:
    bare = msgspec.structs.replace(
        FIGURES,
        captions=0,
        text_to_image=None,
        image_to_text=None,
        text_to_image_index=None,
        image_to_text_index=None,
        index_recall=IndexRecall(image=98.0, text=None),
        sampled=True,
        seed=3,
        trained=False,
    )
    assert list(evaluation_lines(bare))[2:] == [
        "index recall@10: image 98.00 %, text -",
        "note: hits have no probabilities, because these are fitted to captions",
        "note: the corpus has no captions, so the image index was queried with images; each was "
        "left out of its own answers",
        "note: measured on a sample of the queries (seed 3)",
        "warning: the model is UNTRAINED: these figures are meaningless",
    ]


def test_a_missing_store_is_66(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--store", str(tmp_path / "nowhere")])
    assert done.exit_code == 66
    assert "no mmindex store" in done.stderr


def test_html_writes_a_report_in_addition_to_the_figures(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["evaluate", "--store", str(store), "--html", str(target)])
    assert done.exit_code == 0
    assert "text to image, exact" in done.stdout
    assert target.read_text("utf-8").startswith("<!doctype html>")


def test_a_report_that_cannot_be_created_is_73(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "report.html"
    done = CliRunner().invoke(app, ["evaluate", "--store", str(store), "--html", str(target)])
    assert done.exit_code == 73


def expect(store: Path, text: str, *more: str) -> Result:
    (store / "golden.toml").write_text(text)
    golden = str(store / "golden.toml")
    return CliRunner().invoke(app, ["evaluate", "--store", str(store), "--expect", golden, *more])


def test_figures_as_expected_are_0_and_shown(store: Path) -> None:
    done = expect(store, '[[expected]]\nimages = 5\ntext_to_image = {"r@1" = 99.8}\n')
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "expected for any model on any corpus" in lines
    assert lines[-2].split() == ["text_to_image", "r@1", "99.8", "0.5", "100"]
    assert lines[-1] == "2 of 2 figures are within their tolerance"


def test_figures_outside_their_tolerance_are_65_and_named(store: Path, tmp_path: Path) -> None:
    """The figures and the report are written nevertheless."""
    target = tmp_path / "report.html"
    text = '[[expected]]\ntolerance = 1\ntext_to_image = {"r@1" = 98.9, "r@5" = 100}\n'
    done = expect(store, text, "--html", str(target))
    assert done.exit_code == 65
    assert "text_to_image r@1: expected 98.9 ± 1, measured 100" in done.stderr
    assert "r@5" not in done.stderr
    assert "  outside" in done.stdout
    assert "1 of 2 figures are not as expected" in target.read_text("utf-8")


def test_json_carries_the_comparison_only_on_request(store: Path) -> None:
    done = expect(store, '[[expected]]\nmodel = "fake"\ncaptions = 6\n', "--format", "json")
    assert done.exit_code == 65
    shown = json.loads(done.stdout)
    assert shown["expected"] == {
        "of": "fake on any corpus",
        "figures": [
            {
                "figure": "captions",
                "expected": 6.0,
                "measured": 5.0,
                "tolerance": 0.0,
                "within": False,
            }
        ],
    }


def test_no_published_figures_for_this_store_is_66(store: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--store", str(store), "--expect", "published"])
    assert done.exit_code == 66
    assert "no figures for fake seed-0" in done.stderr
    assert "ViT-B-32 laion2b_s34b_b79k on flickr30k test" in done.stderr
    assert done.stdout == ""
