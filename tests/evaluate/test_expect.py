"""Expected figures: matched to the store, compared with a tolerance, refused if damaged."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.evaluate.evaluation import (
    Evaluation,
    IndexQueries,
    IndexRecall,
    QueryCounts,
    RecallBlock,
)
from mmindex.evaluate.expect import PUBLISHED, Subject, compare, find_expected
from mmindex.sources.corpora import list_corpora
from mmindex.sources.expected import Expected
from mmindex.sources.kinds import built_in
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import write_pngs
from support.models import FakeEncoder
from support.stores import image_store, with_manifest

BLOCK = RecallBlock(r1=39.3123, r5=65.4, r10=75.6, medr=2.0)
FIGURES = Evaluation(
    version=7,
    model="m",
    images=5_000,
    captions=25_010,
    protocol="hit@k",
    text_to_image=BLOCK,
    image_to_text=BLOCK,
    text_to_image_index=None,
    image_to_text_index=None,
    index_recall=IndexRecall(image=98.0, text=None),
    queries=QueryCounts(text_to_image=25_010, image_to_text=5_000),
    index_queries=IndexQueries(image="captions", text="images"),
    sampled=False,
    seed=0,
    trained=True,
)
PUBLISHED_FIGURES = [golden for corpus in list_corpora() for golden in corpus.expected]


@pytest.fixture
def store(tmp_path: Path) -> Snapshot:
    """A store built with the fake model from ``folder/test``, with the split ``all``."""
    paths = write_pngs(tmp_path / "p", 3)
    images = {f"i{n}": path for n, path in enumerate(paths)}
    image_store(tmp_path / "store", images, [("i0", "red")], FakeEncoder())
    return open_snapshot(tmp_path / "store")


def write(folder: Path, text: str) -> str:
    (folder / "golden.toml").write_text(text, "utf-8")
    return str(folder / "golden.toml")


def golden(text: str) -> Expected:
    return msgspec.toml.decode(text, type=Expected)


def test_each_figure_has_its_own_verdict() -> None:
    comparison = compare(
        golden(
            'images = 5000\ncaptions = 25014\ntolerance = 0.5\n"index_recall@10" = {image = 97.5}\n'
            'text_to_image = {"r@1" = 39.34, "r@5" = 66.0, medr = 2}\n'
            'text_to_image_index = {"r@1" = 1.0}'
        ),
        FIGURES,
    )
    assert {str(figure): figure.within for figure in comparison.figures} == {
        "images: expected 5000 ± 0, measured 5000": True,
        "captions: expected 25014 ± 0, measured 25010": False,
        "text_to_image r@1: expected 39.34 ± 0.5, measured 39.3123": True,
        "text_to_image r@5: expected 66 ± 0.5, measured 65.4": False,
        "text_to_image medr: expected 2 ± 0.5, measured 2": True,
        "text_to_image_index r@1: expected 1 ± 0.5, measured nothing": False,
        "index_recall@10 image: expected 97.5 ± 0.5, measured 98": True,
    }
    with pytest.raises(DataError, match="3 of 7 figures") as raised:
        comparison.check()
    assert "captions: expected 25014 ± 0, measured 25010" in raised.value.message
    assert "r@1: expected 39.34" not in raised.value.message


def test_figures_within_their_tolerance_pass() -> None:
    """A value at the limit is within the tolerance."""
    compare(golden('text_to_image = {"r@1" = 39.8123}'), FIGURES).check()


def test_the_fields_of_a_table_must_match_the_store(store: Snapshot, tmp_path: Path) -> None:
    fake = Subject("fake", "seed-0", "folder/test", "all")
    tables = "\n".join(
        f'[[expected]]\n{key} = "{value}"\nimages = {number}'
        for number, (key, value) in enumerate(
            [("model", "other"), ("pretrained", "x"), ("corpus", "folder/test"), ("split", "val")]
        )
    )
    published = with_source(store, "folder/test")
    assert Subject.of(published) == fake
    assert find_expected(published, write(tmp_path, tables)).images == 2


def with_source(store: Snapshot, name: str) -> Snapshot:

    from mmindex.store.manifest import SourceSummary

    source = SourceSummary(
        spec="", name=name, seen=3, images=3, captions=1, quarantined=0, ignored=0
    )
    return with_manifest(store, sources=(source,))


def test_missing_figures_list_the_existing_ones(store: Snapshot) -> None:
    with pytest.raises(NoInputError, match="no figures for fake seed-0 on") as raised:
        find_expected(store, PUBLISHED)
    assert "ViT-B-32 laion2b_s34b_b79k on coco-karpathy test" in raised.value.hint
    assert "ViT-L-14 laion2b_s32b_b82k on flickr30k test" in raised.value.hint


def test_two_matching_tables_are_refused(store: Snapshot, tmp_path: Path) -> None:
    name = write(tmp_path, "[[expected]]\nimages = 1\n[[expected]]\nimages = 2")
    with pytest.raises(DataError, match="2 tables match"):
        find_expected(store, name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[expected]]\nimages = ", "Invalid value"),
        ('[[expected]]\ntext_to_image = {"r@2" = 1.0}', "r@2"),
        ('[[expected]]\ntext_to_image = {"r@1" = 101.0}', "<= 100"),
        ('[[expected]]\ntext_to_image = {"r@1" = nan}', ">= 0|<= 100"),
        ("[[expected]]\ntolerance = -1\nimages = 1", ">= 0"),
        ('[[expected]]\nmodel = "fake"', "no figures"),
        ("[[expekted]]\nimages = 1", "expekted|expected"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    store: Snapshot, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError, match=words) as raised:
        find_expected(store, write(tmp_path, text))
    assert "golden.toml" in raised.value.message


def test_a_missing_file_is_no_input(store: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="nowhere"):
        find_expected(store, str(tmp_path / "nowhere.toml"))


def test_the_published_figures_are_whole_and_for_different_stores() -> None:
    assert len(PUBLISHED_FIGURES) == 6
    assert len({one.title for one in PUBLISHED_FIGURES}) == 6
    for one in PUBLISHED_FIGURES:
        assert one.corpus in built_in()
        assert (one.split, one.tolerance) == ("test", 0.5)
        assert one.cite.startswith("https://")
        sizes = {"coco-karpathy": (5_000, 25_010), "flickr30k": (1_000, 5_000)}
        assert (one.images, one.captions) == sizes[one.corpus]
        for block in (one.text_to_image, one.image_to_text):
            assert block is not None
            figures = (block.r1, block.r5, block.r10)
            assert None not in figures
            assert list(figures) == sorted(figures)


def test_the_published_figures_match_their_store() -> None:
    """Karpathy's COCO test split with the default model matches its published figures."""
    subject = Subject("ViT-B-32", "laion2b_s34b_b79k", "coco-karpathy", "test")
    [one] = [figures for figures in PUBLISHED_FIGURES if subject.fits(figures)]
    assert one.text_to_image is not None
    assert one.text_to_image.r1 == 39.34
    assert not re.search("/", one.title)
