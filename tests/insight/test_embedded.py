"""The insight commands with the embedded model on unseen scenes.

Bounds leave room below what was measured (benchmarks/bench_insight.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmindex.core.errors import NoInputError
from mmindex.insight.classify import Classifier, classify_files, logit_scale, report_on
from mmindex.insight.dedup import near_duplicates
from mmindex.insight.explain import explain
from mmindex.insight.labels import TEMPLATES, Label, label_vectors
from mmindex.insight.match import corpus_threshold, judge, score_pairs
from mmindex.insight.pairs import Pair
from mmindex.insight.truth import Truth
from mmindex.models.devices import place
from mmindex.models.encoder import Encoder
from mmindex.models.openclip import load_encoder
from mmindex.models.preprocess import to_pixels
from mmindex.models.resolve import find_weights, resolve_model
from mmindex.scenes import captions, draw, encode, fits, make_scene
from mmindex.scenes.scene import Scene, box_of
from mmindex.scenes.vocabulary import BACKGROUNDS, KINDS, SIZE_PX
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import open_snapshot
from support.stores import image_store

IN_CORPUS, UNSEEN = 200, 100


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    import torch

    request = resolve_model("embedded", None)
    try:
        assert request.folder is not None
        find_weights(request.folder, allow_pickle=False)
    except NoInputError:
        pytest.skip("the embedded model's weights are not in this checkout")
    threads = torch.get_num_threads()
    loaded = load_encoder(request, place("cpu"))
    torch.set_num_threads(1)  # with single images, cores would wait for each other
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def vectorizer(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Vectorizer:
    """A corpus of 200 scenes with their captions, and a recompressed copy of one of them."""
    folder = tmp_path_factory.mktemp("corpus")
    images: dict[str, Path] = {}
    said: list[tuple[str, str]] = []
    for number in range(IN_CORPUS):
        scene = make_scene(7, number)
        path = folder / f"{number:04d}.jpg"
        path.write_bytes(encode(draw(scene)))
        images[f"scenes/7/{number}"] = path
        said += [(f"scenes/7/{number}", caption.text) for caption in captions(scene)]
    copy = folder / "copy.jpg"
    draw(make_scene(7, 3)).resize((200, 200)).save(copy, quality=70)
    images["copy"] = copy
    image_store(folder / "store", images, said, encoder)
    return Vectorizer(open_snapshot(folder / "store"), lambda: encoder)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """Scenes of another seed, by file."""
    folder = tmp_path_factory.mktemp("unseen")
    scenes = {}
    for number in range(UNSEEN):
        scene = make_scene(8, number)
        path = folder / f"{number:04d}.jpg"
        path.write_bytes(encode(draw(scene)))
        scenes[str(path)] = scene
    return scenes


def test_pairs_of_unseen_scenes_are_distinguished(
    vectorizer: Vectorizer, unseen: dict[str, Scene]
) -> None:
    """Each scene with one of its captions, and with one that is false for it."""
    lot = random.Random(0)
    pairs = []
    for path, scene in unseen.items():
        pairs.append(Pair(path, lot.choice(captions(scene)).text, True))
        while fits((wrong := lot.choice(captions(lot.choice(list(unseen.values()))))).claim, scene):
            pass
        pairs.append(Pair(path, wrong.text, False))
    fitted = corpus_threshold(vectorizer.snapshot)
    report = judge(score_pairs(vectorizer, pairs), fitted.value)
    assert report.pairs == 2 * UNSEEN
    assert report.f1 is not None
    assert report.f1 > 0.95
    assert report.roc_auc is not None
    assert report.roc_auc > 0.99


def test_backgrounds_of_unseen_scenes_are_recognised(
    vectorizer: Vectorizer, unseen: dict[str, Scene]
) -> None:
    names = tuple(str(name) for name in BACKGROUNDS)
    labels = tuple(Label(name, (name,)) for name in names)
    classifier = Classifier(
        names,
        label_vectors(labels, TEMPLATES["drawing"], vectorizer.texts),
        logit_scale(vectorizer.encoder),
    )
    truth = Truth(known=True, listed={path: scene.background for path, scene in unseen.items()})
    told = truth.given(classify_files(vectorizer, classifier, list(unseen), 1))
    report = report_on(list(told), names)
    assert report.items == UNSEEN
    assert report.accuracy > 0.95


def test_a_recompressed_copy_is_found(vectorizer: Vectorizer) -> None:
    groups = near_duplicates(vectorizer.snapshot)
    assert {"copy", "scenes/7/3"} in [{m.image_id for m in group.members} for group in groups]


def test_explanations_point_at_the_thing_that_is_named(
    encoder: Encoder, vectorizer: Vectorizer, unseen: dict[str, Scene]
) -> None:
    """In most cases: 83 % were measured, and chance is 9 %."""
    right = asked = 0
    chance = 0.0
    for path, scene in list(unseen.items())[:12]:
        pixels = to_pixels(vectorizer.open_image(path), encoder.preprocess)
        for thing in scene.things:
            [text] = vectorizer.texts([f"a {thing.colour} {thing.kind}"])
            found = explain(encoder, pixels, text)
            boxes = [box_of(KINDS[thing.kind], thing.size, thing.lane_type, s) for s in thing.spots]
            asked += 1
            chance += sum((r - x) * (b - y) for x, y, r, b in boxes) / SIZE_PX**2
            if found.peak is not None:
                at = (found.peak[0] * SIZE_PX, found.peak[1] * SIZE_PX)
                right += any(x <= at[0] <= r and y <= at[1] <= b for x, y, r, b in boxes)
    assert right > 0.6 * asked > 4 * chance, (right, chance, asked)
