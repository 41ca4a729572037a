"""The evaluate stage on published objects, compared with figures computed by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mmindex.core.config import EvaluateConfig, IndexConfig
from mmindex.core.errors import DataError, NoInputError
from mmindex.evaluate import directions, stage
from mmindex.evaluate.corpus import sample
from mmindex.evaluate.evaluation import Evaluation, RecallBlock
from mmindex.evaluate.stage import evaluate
from mmindex.index.build import build_index
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from support.clustered import clustered
from support.models import fake_info
from support.stores import Side, captions_table, images_table, key_of, make_store, with_manifest

DIM = 16


def unit(rows: object) -> np.ndarray:
    matrix = np.asarray(rows, dtype=np.float64)
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def axes(*numbers: int) -> np.ndarray:
    return np.eye(DIM, dtype=np.float32)[list(numbers)]


@pytest.fixture
def by_hand(tmp_path: Path) -> Snapshot:
    """Five image rows with four vectors, and six caption rows with five texts.

    Images lie on axes 0 to 3; ``twin`` has the bytes of ``a``; ``d`` has no caption.
    """
    images = images_table(
        [
            (name, key_of(content), f"/{name}")
            for name, content in (
                ("a", b"A"),
                ("b", b"B"),
                ("twin", b"A"),
                ("c", b"C"),
                ("d", b"D"),
            )
        ]
    )
    captions = captions_table(
        [("a", "one"), ("a", "two"), ("b", "three"), ("twin", "one"), ("c", "four"), ("c", "five")]
    )
    texts = {
        "one": axes(0)[0],  # right on a
        "two": unit([[1, 3] + [0] * 14])[0],  # nearer to b than to a
        "three": unit([[0, 3, 0, 1] + [0] * 12])[0],  # b first, then d
        "four": unit([[0, 0, 1, 3] + [0] * 12])[0],  # nearer to d than to c
        "five": unit([[3, 2, 1] + [0] * 13])[0],  # a and its twin, b, then c
    }
    sides = {
        "image": Side([key_of(c) for c in (b"A", b"B", b"C", b"D")], axes(0, 1, 2, 3)),
        "text": Side([key_of(text) for text in texts], np.stack(list(texts.values()))),
    }
    return make_store(tmp_path / "store", images, captions, sides, fake_info(dim=DIM))


def test_recall_both_ways_matches_figures_computed_by_hand(by_hand: Snapshot) -> None:
    """Text to image, rank of the own row among a b twin c d:

    one of a: 1 (the twin ties, its row is higher); two of a: 2 (after b); three of b: 1;
    one of twin: 2 (after a); four of c: 2 (after d); five of c: 4 (after a, twin, b).
    Image to text, best rank of an own caption among one two three one' four five:
    a and twin: one and one' lead with 1.0, rows 0 and 3: 1 and 2; b: three and two are equal by
    symmetry, two of a has the lower row: 2; c: four scores 0.316, five 0.267: 1.
    """
    evaluation = evaluate(by_hand, EvaluateConfig())
    text_to_image = RecallBlock(r1=33.3333, r5=100.0, r10=100.0, medr=2.0)
    image_to_text = RecallBlock(r1=50.0, r5=100.0, r10=100.0, medr=1.5)
    assert evaluation == Evaluation(
        version=1,
        model="fake seed-0",
        images=5,
        captions=6,
        protocol="hit@k",
        text_to_image=text_to_image,
        image_to_text=image_to_text,
        text_to_image_index=text_to_image,
        image_to_text_index=image_to_text,
        index_recall=stage.IndexRecall(image=100.0, text=100.0),
        queries=stage.QueryCounts(text_to_image=6, image_to_text=4),
        index_queries=stage.IndexQueries(image="captions", text="images"),
        sampled=False,
        seed=0,
        trained=True,
    )


def test_the_json_has_the_fields_that_scripts_rely_on(by_hand: Snapshot) -> None:
    shown = msgspec.to_builtins(evaluate(by_hand, EvaluateConfig()))
    assert list(shown)[:10] == [
        "version",
        "model",
        "images",
        "captions",
        "protocol",
        "text_to_image",
        "image_to_text",
        "text_to_image_index",
        "image_to_text_index",
        "index_recall@10",
    ]
    assert shown["text_to_image"] == {"r@1": 33.3333, "r@5": 100.0, "r@10": 100.0, "medr": 2.0}
    assert shown["index_recall@10"] == {"image": 100.0, "text": 100.0}
    assert msgspec.convert(shown, Evaluation) == evaluate(by_hand, EvaluateConfig())


def test_a_corpus_without_captions_measures_the_image_index_with_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    keys = [key_of(str(n)) for n in range(40)]
    images = images_table([(f"i{n}", key, f"/{n}") for n, key in enumerate(keys)])
    sides = {"image": Side(keys, unit(rng.standard_normal((40, DIM))))}
    corpus = make_store(tmp_path, images, captions_table([]), sides, fake_info(dim=DIM))
    evaluation = evaluate(corpus, EvaluateConfig())
    assert evaluation.captions == 0
    assert evaluation.text_to_image is None
    assert evaluation.image_to_text is None
    assert evaluation.text_to_image_index is None
    assert evaluation.image_to_text_index is None
    assert evaluation.index_recall == stage.IndexRecall(image=100.0, text=None)
    assert evaluation.index_queries == stage.IndexQueries(image="images", text=None)
    assert evaluation.queries == stage.QueryCounts(text_to_image=0, image_to_text=0)


def test_a_single_image_has_no_neighbours_to_find(tmp_path: Path) -> None:
    sides = {"image": Side([key_of(b"A")], axes(0))}
    images = images_table([("a", key_of(b"A"), "/a")])
    corpus = make_store(tmp_path, images, captions_table([]), sides, fake_info(dim=DIM))
    assert evaluate(corpus, EvaluateConfig()).index_recall.image is None


@pytest.fixture
def random_corpus(tmp_path: Path) -> Snapshot:
    """200 images with one to four captions each, and random vectors."""
    rng = np.random.default_rng(2)
    keys = [key_of(str(n)) for n in range(200)]
    captions = [
        (f"i{n}", f"caption {n} {j}") for n in range(200) for j in range(rng.integers(1, 5))
    ]
    sides = {
        "image": Side(keys, unit(rng.standard_normal((200, DIM)))),
        "text": Side(
            [key_of(text) for _, text in captions],
            unit(rng.standard_normal((len(captions), DIM))),
        ),
    }
    images = images_table([(f"i{n}", key, f"/{n}") for n, key in enumerate(keys)])
    tables = images, captions_table(captions)
    return make_store(tmp_path, *tables, sides, fake_info(dim=DIM), segment_rows=64, group_rows=50)


def test_a_sample_is_seeded_reported_and_over_the_whole_gallery(random_corpus: Snapshot) -> None:
    config = EvaluateConfig(max_queries=50)
    first = evaluate(random_corpus, config)
    assert first == evaluate(random_corpus, config)
    assert first.sampled
    assert first.queries == stage.QueryCounts(text_to_image=50, image_to_text=50)
    other = evaluate(random_corpus, EvaluateConfig(max_queries=50, seed=1))
    assert (other.text_to_image, other.seed) != (first.text_to_image, first.seed)
    whole = evaluate(random_corpus, EvaluateConfig())
    assert not whole.sampled
    assert whole.queries.image_to_text == 200


def test_work_is_bounded_by_sampling_queries_of_a_large_gallery(
    random_corpus: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions, "MAX_PAIRS", 200 * 30)
    monkeypatch.setattr(directions, "MIN_QUERIES", 20)
    evaluation = evaluate(random_corpus, EvaluateConfig())
    assert evaluation.sampled
    assert evaluation.queries == stage.QueryCounts(text_to_image=30, image_to_text=20)


def test_a_median_beyond_the_first_ten_is_null_through_the_index(random_corpus: Snapshot) -> None:
    """With random vectors, one caption in twenty has its own image among the first ten of 200."""
    evaluation = evaluate(random_corpus, EvaluateConfig())
    exact, index = evaluation.text_to_image, evaluation.text_to_image_index
    assert exact is not None
    assert index is not None
    assert exact.medr is not None
    assert exact.medr > 50
    assert index.medr is None
    assert (index.r1, index.r5, index.r10) == (exact.r1, exact.r5, exact.r10)


def test_an_approximate_index_has_the_recall_that_a_dense_oracle_computes(tmp_path: Path) -> None:
    """A real IVF-PQ index with 3,000 images; each figure is computed again from its answers."""
    snapshot = ivfpq_corpus(tmp_path)
    assert not snapshot.index("image").exact
    evaluation = evaluate(snapshot, EvaluateConfig(max_queries=500))
    exact, index = evaluation.text_to_image, evaluation.text_to_image_index
    assert exact is not None
    assert index is not None
    images = snapshot.vectors("image").take(np.arange(3_000)).astype(np.float64)
    rows = sample(3_000, 500, 0)
    queries = snapshot.vectors("text").take(rows).astype(np.float64)
    scores = queries @ images.T
    own = scores[np.arange(500), rows]
    ranks = 1 + (scores > own[:, None]).sum(axis=1)
    _, found = Searcher(snapshot, "image").search(queries.astype(np.float32), 10)
    best = np.argsort(-scores, axis=1)[:, :10]
    kept = [len(set(a) & set(b)) for a, b in zip(found.tolist(), best.tolist(), strict=True)]
    assert exact.r10 == round(100 * float((ranks <= 10).mean()), 4)
    assert exact.medr == float(np.median(ranks))
    assert index.r10 == round(100 * float((found == rows[:, None]).any(axis=1).mean()), 4)
    assert index.r1 == round(100 * float((found[:, 0] == rows).mean()), 4)
    assert evaluation.index_recall.image == round(100 * sum(kept) / 5_000, 4)
    assert 0 < (evaluation.index_recall.image or 0) < 100


def write_shards(objects: Objects, keys: list[str], vectors: np.ndarray) -> list[ObjectRef]:
    """Write one embedding shard like those of the encode stage."""
    dim = vectors.shape[1]
    schema = pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float16(), dim))])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    table = pa.table([pa.array(keys), column], schema=schema)
    return [objects.write_table("embeddings/image/00000", schema, [table])]


def ivfpq_corpus(root: Path) -> Snapshot:
    """Clustered images with one noisy caption each; the image index is small and coarse."""
    images = clustered(3_000, 32, seed=3)
    noise = 0.25 * np.random.default_rng(4).standard_normal(images.shape)
    texts = unit(images.astype(np.float64) + noise)
    keys = [key_of(str(n)) for n in range(3_000)]
    rows = images_table([(f"i{n}", key, f"/{n}") for n, key in enumerate(keys)])
    captions = [(f"i{n}", f"caption {n}") for n in range(3_000)]
    sides = {
        "image": Side(keys, images.astype(np.float32)),
        "text": Side([key_of(text) for _, text in captions], texts),
    }
    tables = rows, captions_table(captions)
    snapshot = make_store(root, *tables, sides, fake_info(dim=32))
    shards = write_shards(snapshot.objects, keys, images)
    report = build_index(snapshot.objects, "image", keys, shards, IndexConfig(kind="IVF64,PQ8x4fs"))
    # As coarse as possible: one of 64 lists is probed, and few candidates are re-ranked.
    info = msgspec.structs.replace(report.info, nprobe=1, k_factor=1)
    others = tuple(ref for ref in snapshot.manifest.objects if "/image" not in ref.name)
    return with_manifest(
        snapshot,
        indexes={**snapshot.manifest.indexes, "image": info},
        objects=(*others, *report.objects),
    )


def test_an_untrained_model_is_reported(by_hand: Snapshot) -> None:
    encoder = msgspec.structs.replace(by_hand.encoder, trained=False)
    assert not evaluate(with_manifest(by_hand, encoder=encoder), EvaluateConfig()).trained


def test_a_version_that_is_not_encoded_or_indexed_is_refused(by_hand: Snapshot) -> None:
    with pytest.raises(NoInputError, match="encode"):
        evaluate(with_manifest(by_hand, encoder=None), EvaluateConfig())
    with pytest.raises(NoInputError, match="no image index"):
        evaluate(with_manifest(by_hand, stages=("encode",), indexes={}), EvaluateConfig())


def test_mismatched_tables_and_indexes_are_damage(by_hand: Snapshot) -> None:
    """A row without a vector, and a caption without an image."""
    objects, manifest = by_hand.objects, by_hand.manifest
    extra = images_table([("a", key_of(b"A"), "/a"), ("new", key_of(b"new"), "/new")])
    ref = objects.write_table("images", extra.schema, [extra])
    rest = tuple(other for other in manifest.objects if other.name != "images")
    broken = with_manifest(by_hand, objects=(*rest, ref))
    with pytest.raises(DataError, match="a row has no vector"):
        evaluate(broken, EvaluateConfig())
    fewer = images_table([("a", key_of(b"A"), "/a")])
    ref = objects.write_table("images", fewer.schema, [fewer])
    broken = with_manifest(by_hand, objects=(*rest, ref))
    with pytest.raises(DataError, match="belongs to no image"):
        evaluate(broken, EvaluateConfig())
