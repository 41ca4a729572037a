"""Judgements with several right answers: the file, and the figures next to those of ir-measures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import DataError, NoInputError
from mmindex.evaluate.graded import FIGURES, per_query
from mmindex.evaluate.qrels import Qrels, read_qrels
from mmindex_cli.app import app
from support.vectors import random_units, write_clip_retrieval, write_npy

ROWS = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images and captions; the caption of image n has the vector of image n + 1."""
    folder = tmp_path_factory.mktemp("judged")
    place = write_clip_retrieval(folder / "a", rows=ROWS)
    texts = np.roll(random_units(ROWS), -1, axis=0).astype(np.float16)
    write_npy(place / "text_emb" / "text_emb_0.npy", texts)
    mmindex.build(folder / "store", [f"embeddings:{place}"])
    return folder / "store"


def ids(store: Path) -> tuple[list[str], list[str]]:
    with mmindex.open(store) as index:
        images = index.snapshot.table("images", ["image_id"])["image_id"].to_pylist()
        captions = index.snapshot.table("captions", ["caption_id"])["caption_id"].to_pylist()
    return images, captions


def read(store: Path, path: Path, content: bytes) -> Qrels:
    path.write_bytes(content)
    with mmindex.open(store) as index:
        return read_qrels(index.snapshot, path)


@pytest.mark.parametrize("seed", range(20))
def test_figures_equal_those_of_ir_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = int(rng.integers(5, 60))
    ranks, grades, sizes = [], [], rng.integers(1, min(gallery, 15) + 1, size=12)
    for size in sizes:
        ranks.append(rng.permutation(gallery)[:size] + 1)
        grades.append(rng.integers(1, 4, size=size))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    mine = per_query(np.concatenate(ranks), np.concatenate(grades), offsets)
    for number, size in enumerate(sizes):
        pairs = zip(ranks[number], grades[number], strict=True)
        qrels = [ir_measures.Qrel("q", f"d{rank}", int(grade)) for rank, grade in pairs]
        run = [ir_measures.ScoredDoc("q", f"d{n}", float(-n)) for n in range(1, gallery + 1)]
        names = [f"AP@{size}", "Rprec", "nDCG@10", "RR", *(f"Success@{k}" for k in (1, 5, 10))]
        measures = [ir_measures.parse_measure(name) for name in names]
        theirs = ir_measures.calc_aggregate(measures, qrels, run)
        for measure, name, value in zip(measures, FIGURES, mine[number], strict=True):
            assert abs(theirs[measure] - value) <= 1e-9, (name, seed, number)


def test_both_directions_are_measured_beside_own_answers(store: Path, tmp_path: Path) -> None:
    images, captions = ids(store)
    path, page = tmp_path / "qrels", tmp_path / "report.html"
    lines = [f"{captions[n]}\t0\t{images[(n + 1) % ROWS]}\t2" for n in range(ROWS)]
    lines += [f"{images[(n + 1) % ROWS]}\t0\t{captions[n]}\t1" for n in range(ROWS)]
    lines.append(f"{captions[0]}\t0\t{images[5]}\t-1")
    path.write_text("\n".join(lines))
    options = ["evaluate", "--store", str(store), "--qrels", str(path)]
    done = CliRunner().invoke(app, [*options, "--format", "json", "--html", str(page)])
    assert done.exit_code == 0, done.output
    judged = json.loads(done.stdout)["judged"]
    assert (judged["lines"], judged["unknown"], judged["duplicates"]) == (81, 0, 0)
    for direction in ("text_to_image", "image_to_text"):
        block = judged[direction]
        assert (block["queries"], block["right_answers"], block["sampled"]) == (ROWS, ROWS, False)
        for name in FIGURES:
            assert block["figures"][name] == {"value": 100.0, "low": 100.0, "high": 100.0}
        assert block["figures"]["own_r@1"]["value"] == 0.0
    assert "Several right answers" in page.read_text()
    shown = CliRunner().invoke(app, options)
    assert "own_r@1" in shown.stdout
    assert "qrels: 81 lines" in shown.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no judgements"),
        (b"\n \r\n", "no judgements"),
        (b"a 0 b\n", "line 1: 3 fields"),
        (b"\n\na 0 b x\n", "line 3: relevance 'x'"),
        (b"a 0 b 1.5\n", "relevance '1.5'"),
        (b"a 0 b 9999999999\n", "relevance"),
        (b"a" * 20_000, "line 1: longer than"),
        (b"nobody 0 nothing 1\n", "1 of 1 lines"),
        (b"\xff\xfe 0 \x00 1\n", "1 of 1 lines"),
    ],
)
def test_broken_files_are_refused(store: Path, tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(store, tmp_path / "qrels", content)
    assert words in caught.value.message


def test_a_missing_file_is_named(store: Path, tmp_path: Path) -> None:
    with mmindex.open(store) as index, pytest.raises(NoInputError):
        read_qrels(index.snapshot, tmp_path / "absent")


def test_repetitions_count_once_and_contradictions_are_refused(store: Path, tmp_path: Path) -> None:
    images, captions = ids(store)
    line = f"{captions[3]}\t0\t{images[4]}\t"
    qrels = read(store, tmp_path / "a", f"{line}1\n{line}1\r\n{line}1".encode())
    assert (qrels.lines, qrels.duplicates) == (3, 2)
    assert qrels.text_to_image.found.tolist() == [4]
    with pytest.raises(DataError, match=r"lines 1 and 3: .* relevance 1 and 0"):
        read(store, tmp_path / "b", f"{line}1\n\n{line}0\n".encode())


def test_a_few_unknown_ids_are_counted(store: Path, tmp_path: Path) -> None:
    images, captions = ids(store)
    lines = [f"{captions[n]}\t0\t{images[n]}\t1" for n in range(ROWS)]
    qrels = read(store, tmp_path / "a", "\n".join([*lines, "x 0 y 1"]).encode())
    assert (qrels.lines, qrels.unknown) == (41, 1)


def test_a_million_lines_are_read_in_bounded_time(store: Path, tmp_path: Path) -> None:
    images, captions = ids(store)
    pairs = [f"{caption}\t0\t{image}\t1\n" for caption in captions for image in images]
    content = "".join(pairs).encode() * 625
    start = time.monotonic()
    qrels = read(store, tmp_path / "a", content)
    assert (qrels.lines, qrels.duplicates) == (1_000_000, 1_000_000 - ROWS * ROWS)
    assert time.monotonic() - start < 60
