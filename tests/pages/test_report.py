"""The report: complete, inert, and opened from disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from mmindex.core.config import EvaluateConfig, IndexConfig
from mmindex.core.records import QuarantineEntry, Reason
from mmindex.evaluate.evaluation import Ceiling, CeilingBlock
from mmindex.evaluate.expect import Comparison, Figure
from mmindex.evaluate.stage import measure
from mmindex.index.build import build_index
from mmindex.pages.page import shown_model
from mmindex.pages.report import report_page
from mmindex.store import quarantine, versions
from mmindex.store.manifest import SourceSummary
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.clustered import clustered
from support.images import COLOURS, write_pngs
from support.index_stores import write_shards
from support.models import FakeEncoder, fake_info
from support.pages import HOSTILE, Page, assert_self_contained
from support.stores import (
    Side,
    captions_table,
    image_store,
    images_table,
    key_of,
    make_store,
    with_manifest,
)

CONFIG = EvaluateConfig()


@pytest.fixture
def published(tmp_path: Path) -> Snapshot:
    """Images with hostile names and captions, two of them quarantined; two versions."""
    paths = write_pngs(tmp_path / "p", len(HOSTILE))
    images = {f"hostile/<b>{n}": path for n, path in enumerate(paths)}
    captions = [(f"hostile/<b>{n}", text) for n, text in enumerate(HOSTILE)]
    captions += [(f"hostile/<b>{n}", f"a {COLOURS[n]} thing, {n}") for n in range(5)]
    snapshot = image_store(tmp_path / "store", images, captions, FakeEncoder())
    publish_second(snapshot)
    return open_snapshot(tmp_path / "store")


def publish_second(snapshot: Snapshot) -> None:
    objects, first = snapshot.objects, snapshot.manifest
    kept_out = [
        QuarantineEntry("bad/<i>1", "/p/1", "s", "crawl", Reason.TRUNCATED, "ends early"),
        QuarantineEntry("bad/2", "/p/2", "s", "crawl", Reason.TRUNCATED, "ends early"),
        QuarantineEntry("bad/3", "/p/3", "s", "crawl", Reason.NOT_AN_IMAGE, "text"),
    ]
    counts = msgspec.structs.replace(first.counts, seen=first.counts.seen + 3, quarantined=3)
    source = SourceSummary(
        spec="folder:/secret/place", name="folder/<u>x", seen=14, images=11, captions=16,
        quarantined=3, ignored=0,
    )  # fmt: skip
    second = msgspec.structs.replace(
        first,
        version=2,
        parent=1,
        counts=counts,
        sources=(source,),
        objects=(*first.objects, quarantine.write_entries(objects, "quarantine", kept_out)),
    )
    versions.publish_version(objects, second)


def page_of(published: Snapshot, comparison: Comparison | None = None) -> str:
    measured = measure(published, CONFIG)
    return report_page(published, measured, CONFIG, comparison)


def test_hostile_captions_ids_and_sources_are_shown_and_inert(published: Snapshot) -> None:
    page = page_of(published)
    assert_self_contained(page)
    seen = Page(page)
    assert {tag for tag, _ in seen.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section"),
        *("div", "p", "h1", "h2", "h3", "span", "bdi", "ol", "li", "figure", "figcaption", "img"),
        *("svg", "rect", "line", "circle", "path", "text", "details", "summary", "strong", "small"),
        *("table", "thead", "tbody", "tr", "th", "td", "code", "wbr", "dl", "dt", "dd"),
    }
    assert "mine now" not in "".join(seen.texts["h1"])
    assert "\u202e" not in page
    assert "\x1b" not in page
    quoted = [text for text in HOSTILE if text in seen.texts["bdi"]]
    assert len(quoted) >= 3
    assert "folder/<u>x" in seen.texts["bdi"]
    assert "bad/<i>1" in seen.texts["bdi"]
    page.encode("utf-8")


def test_no_local_path_is_on_the_page(published: Snapshot, tmp_path: Path) -> None:
    encoder = msgspec.structs.replace(published.encoder, model=f"local-dir:{tmp_path}/mine")
    page = page_of(with_manifest(published, encoder=encoder))
    assert "local-dir:mine" in page
    assert str(tmp_path) not in page
    assert "/secret/place" not in page


def test_models_are_named_without_their_folders() -> None:
    info = fake_info()
    weights = msgspec.structs.replace(info, model="ViT-B-32", pretrained="/home/me/w.safetensors")
    assert shown_model(weights) == "ViT-B-32 w.safetensors"
    hub = msgspec.structs.replace(info, model="hf-hub:org/name", pretrained="")
    assert shown_model(hub) == "hf-hub:org/name"


def test_the_figures_on_the_page_are_those_of_the_evaluation(published: Snapshot) -> None:
    measured = measure(published, CONFIG)
    assert measured.evaluation.text_to_image is not None
    page = report_page(published, measured, CONFIG)
    assert f"{measured.evaluation.text_to_image.r1:.1f}<small>%</small>" in page
    assert "16 captions each search for their own image" in page
    assert "11 images each search for any of their captions" in page
    assert "percentile bootstrap" in page
    assert "exact search over 11 vectors" in page
    assert "3 of 14 items are in quarantine" in page
    assert "truncated" in page
    assert "not an image" in page


def test_the_best_possible_recall_is_marked_where_it_is_known(published: Snapshot) -> None:
    measured = measure(published, CONFIG)
    assert "best possible" not in report_page(published, measured, CONFIG)
    best = Ceiling(
        text_to_image=CeilingBlock(r1=91.25, r5=99.0, r10=100.0),
        image_to_text=CeilingBlock(r1=97.5, r5=100.0, r10=100.0),
    )
    evaluation = msgspec.structs.replace(measured.evaluation, ceiling=best)
    page = report_page(published, dataclasses.replace(measured, evaluation=evaluation), CONFIG)
    assert "best possible: 91.2, 99.0, 100.0 %" in page
    assert page.count('<line class="ceiling"') == 6 + 2
    assert_self_contained(page)


def test_a_damaged_older_version_is_reported_and_does_not_stop_the_page(
    published: Snapshot,
) -> None:
    published.layout.version(1).write_text("{}")
    page = page_of(published)
    assert "unreadable:" in page
    assert str(published.layout.root) not in page


def test_expected_figures_are_next_to_measured_ones(published: Snapshot) -> None:
    figures = (Figure("captions", 16.0, 16.0, 0), Figure("text_to_image r@1", 99.0, 50.0, 0.5))
    page = page_of(published, Comparison("<m> on c", "https://cite", figures))
    assert "1 of 2 figures are not as expected" in page
    assert "&lt;m&gt; on c" in page
    assert_self_contained(page)


def test_an_untrained_model_and_missing_captions_are_reported(tmp_path: Path) -> None:
    paths = write_pngs(tmp_path / "p", 3)
    images = {f"i{n}": path for n, path in enumerate(paths)}
    image_store(tmp_path / "s", images, [], FakeEncoder())
    published = open_snapshot(tmp_path / "s")
    encoder = msgspec.structs.replace(published.encoder, trained=False)
    page = page_of(with_manifest(published, encoder=encoder))
    assert "the model is untrained" in page
    assert "has no captions" in page
    assert_self_contained(page)


@pytest.fixture
def approximate(tmp_path: Path) -> Snapshot:
    """2,000 clustered vectors with a real, tuned IVF-PQ index; the images are missing."""
    vectors = clustered(2_000, 32, seed=3)
    keys = [key_of(str(n)) for n in range(2_000)]
    captions = [(f"i{n}", f"caption {n}") for n in range(2_000)]
    wide = vectors.astype("float32")
    tables = (
        images_table([(f"i{n}", key, f"/nowhere/{n}") for n, key in enumerate(keys)]),
        captions_table(captions),
    )
    sides = {"image": Side(keys, wide), "text": Side([key_of(t) for _, t in captions], wide)}
    snapshot = make_store(tmp_path / "s", *tables, sides, fake_info(dim=32))
    shards = write_shards(snapshot.objects, vectors)
    report = build_index(snapshot.objects, "image", keys, shards, IndexConfig(kind="ivfpq"))
    others = tuple(ref for ref in snapshot.manifest.objects if "/image" not in ref.name)
    changed = msgspec.structs.replace(
        snapshot.manifest,
        version=2,
        parent=1,
        indexes={**snapshot.manifest.indexes, "image": report.info},
        objects=(*others, *report.objects),
    )
    versions.publish_version(snapshot.objects, changed)
    return open_snapshot(tmp_path / "s")


def test_an_index_shows_its_curve_and_the_point_in_use(approximate: Snapshot) -> None:
    page = page_of(approximate)
    info = approximate.manifest.indexes["image"]
    assert f"chosen: <strong>nprobe {info.nprobe}, {info.k_factor} re-ranked per hit" in page
    assert f"The {len(info.curve)} settings" in page
    assert page.count('<tr class="now">') == 2
    assert "No image" in page
    assert_self_contained(page)
