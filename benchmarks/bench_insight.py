"""Measure the quality of match, classify, explain, caption and --minus on unseen scenes.

    python benchmarks/bench_insight.py [--store DIR] [--count 500] [--seed 8]

DIR is a store built from scenes of another seed (``mmindex build --store DIR --source
scenes:2000@7``; without one, a small one is built): thresholds and captions come from it, but
not the test images. The true statements about a scene are known exactly (``fits``), so captions
that fit by chance count as correct. ``--photos`` names a folder of different photographs, for
dedup.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchkit.process import MMINDEX, run
from mmindex.insight.caption import describe
from mmindex.insight.classify import Classifier, classify_files, logit_scale, report_on
from mmindex.insight.dedup import near_duplicates
from mmindex.insight.explain import explain
from mmindex.insight.labels import TEMPLATES, Label, label_vectors
from mmindex.insight.match import corpus_threshold, judge, score_pairs
from mmindex.insight.pairs import Pair, read_pairs
from mmindex.insight.truth import Truth
from mmindex.models.preprocess import to_pixels
from mmindex.scenes import Claim, Mention, captions, draw, encode, fits, make_scene
from mmindex.scenes.scene import Scene, box_of
from mmindex.scenes.vocabulary import BACKGROUNDS, KINDS, SIZE_PX
from mmindex.search.fusion import fuse
from mmindex.search.searcher import Searcher
from mmindex.search.vectorize import Vectorizer, open_vectorizer

FULL = os.environ.get("BENCH") == "full"
METHODS = ("occlusion", "gradient")
WORDS = {"meadow": ("meadow", "green field"), "city": ("city", "town"), "snow": ("snow",)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, help="default: a small store, built first")
    parser.add_argument("--count", type=int, default=500 if FULL else 100)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    scenes = [make_scene(options.seed, number) for number in range(options.count)]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_vectorizer(options.store or small_store(Path(folder) / "store")) as vectorizer,
    ):
        paths = []
        for number, scene in enumerate(scenes):
            paths.append(Path(folder) / f"{number:05d}.jpg")
            paths[-1].write_bytes(encode(draw(scene)))
        bench_match(vectorizer, scenes, paths)
        bench_classify(vectorizer, scenes, paths)
        bench_explain(vectorizer, scenes, paths)
        bench_caption(vectorizer, scenes, paths)
        bench_minus(vectorizer)
        for threshold in (0.96, 0.98, 0.99):
            groups = near_duplicates(vectorizer.snapshot, threshold)
            linked = sum(len(group.members) for group in groups)
            print(f"dedup at {threshold}: {linked} images of the store linked")
        bench_copies(vectorizer, "scenes", paths[:200])
        if options.photos is not None:
            bench_copies(vectorizer, "photographs", sorted(options.photos.rglob("*.jpg")))


def small_store(target: Path) -> Path:
    run([*MMINDEX, "build", "--store", target, "--source", f"scenes:{2_000 if FULL else 500}@7"])
    return target


def bench_match(vectorizer: Vectorizer, scenes: list[Scene], paths: list[Path]) -> None:
    lot = random.Random(0)
    rows = []
    for number, scene in enumerate(scenes):
        said = captions(scene)
        rows.append((paths[number].name, lot.choice(said).text, 1))
        while True:  # a caption of another scene that is not true of this one
            other = lot.choice(captions(lot.choice(scenes)))
            if not fits(other.claim, scene):
                break
        rows.append((paths[number].name, other.text, 0))
    listed = paths[0].parent / "pairs.csv"
    with listed.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "text", "label"), *rows])
    fitted = corpus_threshold(vectorizer.snapshot)
    scored = score_pairs(vectorizer, read_pairs(listed))
    report = judge(scored, fitted.value)
    print(f"match: threshold {fitted.value:.4f}, corpus {100 * fitted.balanced_accuracy:.1f} %")
    for name in ("pairs", "accuracy", "precision", "recall", "f1", "roc_auc"):
        print(f"  {name:<10}{getattr(report, name):.4f}")
    # Hard pairs: the right caption with one colour changed.
    hard = [Pair(str(p), t, label) for p, t, label in _recoloured(scenes, paths, lot)]
    print(f"  with one colour changed: {judge(score_pairs(vectorizer, hard), fitted.value)}")


def _recoloured(scenes, paths, lot):
    colours = ["red", "green", "blue", "yellow", "white", "black", "pink", "orange", "purple"]
    for scene, path in zip(scenes, paths, strict=True):
        for said in captions(scene):
            words = said.text.split()
            places = [n for n, word in enumerate(words) if word in colours]
            if not places:
                continue
            place = lot.choice(places)
            changed = lot.choice([c for c in colours if c != words[place]])
            yield str(path), said.text, True
            yield str(path), " ".join([*words[:place], changed, *words[place + 1 :]]), False
            break


def bench_classify(vectorizer: Vectorizer, scenes: list[Scene], paths: list[Path]) -> None:
    names = tuple(str(name) for name in BACKGROUNDS)
    labels = tuple(Label(name, WORDS.get(name, (name,))) for name in names)
    truth = {str(path): scene.background for path, scene in zip(paths, scenes, strict=True)}
    for templates in TEMPLATES:
        vectors = label_vectors(labels, TEMPLATES[templates], vectorizer.texts)
        classifier = Classifier(names, vectors, logit_scale(vectorizer.encoder))
        told = classify_files(vectorizer, classifier, list(truth), 3)
        report = report_on(list(Truth(known=True, listed=truth).given(told)), names)
        print(
            f"classify backgrounds, {templates}: accuracy {100 * report.accuracy:.1f} %,"
            f" top 3 {100 * report.top_k_accuracy:.1f} %, macro F1 {100 * report.macro_f1:.1f} %"
        )
    kinds = sorted({thing.kind for scene in scenes for thing in scene.things})
    alone = [n for n, scene in enumerate(scenes) if len(scene.things) == 1]
    truth = {str(paths[n]): scenes[n].things[0].kind for n in alone}
    vectors = label_vectors(
        tuple(Label(kind, (kind,)) for kind in kinds), TEMPLATES["drawing"], vectorizer.texts
    )
    classifier = Classifier(tuple(kinds), vectors, logit_scale(vectorizer.encoder))
    told = classify_files(vectorizer, classifier, list(truth), 3)
    report = report_on(list(Truth(known=True, listed=truth).given(told)), tuple(kinds))
    print(
        f"classify the only kind of object of {report.items} scenes among {len(kinds)}:"
        f" accuracy {100 * report.accuracy:.1f} %, top 3 {100 * report.top_k_accuracy:.1f} %"
    )


def bench_explain(vectorizer: Vectorizer, scenes: list[Scene], paths: list[Path]) -> None:
    """The pointing game: is the peak inside the box of the object that the text names?"""
    encoder = vectorizer.encoder
    for method in METHODS:
        right = asked = 0
        chance = 0.0
        for scene, path in list(zip(scenes, paths, strict=True))[:40]:
            pixels = to_pixels(vectorizer.open_image(str(path)), encoder.preprocess)
            for thing in scene.things:
                [text] = vectorizer.texts([f"a {thing.colour} {thing.kind}"])
                peak = explain(encoder, pixels, text, method).peak
                kind = KINDS[thing.kind]
                boxes = [box_of(kind, thing.size, thing.lane_type, spot) for spot in thing.spots]
                asked += 1
                chance += sum((r - x) * (b - y) for x, y, r, b in boxes) / SIZE_PX**2
                if peak is not None:
                    at = (peak[0] * SIZE_PX, peak[1] * SIZE_PX)
                    right += any(x <= at[0] <= r and y <= at[1] <= b for x, y, r, b in boxes)
        print(
            f"explain, {method}: peak on the object in {100 * right / asked:.1f} % of {asked}"
            f" (chance {100 * chance / asked:.1f} %)"
        )


def bench_caption(vectorizer: Vectorizer, scenes: list[Scene], paths: list[Path]) -> None:
    claims = {}
    source = vectorizer.snapshot.manifest.sources[0].spec
    count, seed = (int(part) for part in source.removeprefix("scenes:").split("@"))
    for number in range(count):
        for said in captions(make_scene(seed, number)):
            claims[said.text] = said.claim
    for voters in (None, 4, 10, 30):
        true = 0
        for scene, path in zip(scenes[:100], paths, strict=False):
            [hit] = describe(vectorizer, str(path), 1, voters).captions
            true += fits(claims[hit.caption or ""], scene)
        share = 100 * true / min(100, len(scenes))
        print(f"caption, {voters or 'no'} voters: completely true for {share:.1f} %")


def bench_copies(vectorizer: Vectorizer, name: str, paths: list[Path]) -> None:
    """Measure the similarity of images to their copies, and to the nearest other image."""
    images = [vectorizer.open_image(str(path)) for path in paths]
    own = _vectors(vectorizer, images)
    others = own @ own.T
    np.fill_diagonal(others, -1)
    print(f"{len(images)} {name}: the most similar pair has {others.max():.4f}")
    for kind, change in COPIES.items():
        alike = (_vectors(vectorizer, [change(image) for image in images]) * own).sum(axis=1)
        linked = " / ".join(f"{100 * (alike >= cut).mean():.0f}" for cut in (0.96, 0.98, 0.99))
        print(f"  {kind:<14} median {np.median(alike):.3f}  lowest {alike.min():.3f}  {linked} %")


def _vectors(vectorizer: Vectorizer, images: list[Image.Image]) -> np.ndarray:
    encoder = vectorizer.encoder
    pixels = [to_pixels(image, encoder.preprocess) for image in images]
    parts = [np.stack(pixels[start : start + 32]) for start in range(0, len(pixels), 32)]
    return np.concatenate([encoder.encode_images(part) for part in parts])


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def _cut(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, top = int(width * share), int(height * share)
    return image.crop((left, top, width - left, height - top))


COPIES = {
    "half size": lambda one: one.resize((max(1, one.width // 2), max(1, one.height // 2))),
    "JPEG 40": lambda one: _jpeg(one, 40),
    "JPEG 15": lambda one: _jpeg(one, 15),
    "3 % cut off": lambda one: _cut(one, 0.03),
    "10 % cut off": lambda one: _cut(one, 0.1),
    "mirrored": ImageOps.mirror,
    "20 % brighter": lambda one: ImageEnhance.Brightness(one).enhance(1.2),
    "no colour": lambda one: one.convert("L").convert("RGB"),
}


def bench_minus(vectorizer: Vectorizer) -> None:
    """Return the share of the first ten with the wanted and without the unwanted, by weight."""
    published = vectorizer.snapshot
    searcher = Searcher(published, "image")
    source = published.manifest.sources[0].spec
    count, seed = (int(part) for part in source.removeprefix("scenes:").split("@"))
    scenes = {f"scenes/{seed}/{n:012d}": make_scene(seed, n) for n in range(count)}
    table = published.table("images", ["image_id", "key"])
    by_key = dict(zip(table["key"].to_pylist(), table["image_id"].to_pylist(), strict=True))
    wanted = [
        ("boat", "red"),
        ("tree", "snow"),
        ("house", "cat"),
        ("dog", "night"),
        ("car", "city"),
    ]
    for weight in (0.0, 0.15, 0.25, 0.5, 0.75, 1.0):
        have = lack = 0
        for plus, minus in wanted:
            vectors = vectorizer.texts([f"a {plus}", minus if minus != "cat" else "a cat"])
            query = fuse(vectors, (1.0, -weight)) if weight else vectors[0]
            _, ids = searcher.search(query[None], 10)
            for key in searcher.keys(ids[0]):
                scene = scenes[by_key[key]]
                have += fits(Claim(objects=(Mention(kind=plus),)), scene)
                lack += not _has(scene, minus)
        total = 10 * len(wanted)
        figures = f"{100 * have / total:.0f} % wanted, {100 * lack / total:.0f} % clean"
        print(f"minus {weight:.2f}: {figures}")


def _has(scene: Scene, word: str) -> bool:
    things = {thing.kind for thing in scene.things} | {thing.colour for thing in scene.things}
    return word in things | {scene.background, scene.time}


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
