"""Accuracy of ``classify --learn`` on drawn scenes with 1 to 16 images of each label.

    python benchmarks/bench_few_shot.py [--seed 4242] [--runs 10] [--label kind]

The scenes contain one kind of thing and have a seed that the embedded model has not seen. Each run
draws the labelled images at random, learns from them, and measures the accuracy on all scenes that
were not drawn. All methods are shown, and `chosen` is what the command would use.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from mmindex.insight.classify import Classifier, logit_scale
from mmindex.insight.context import context_learner
from mmindex.insight.few_shot import METHODS, ZERO_SHOT, Examples, Method, learn
from mmindex.insight.labels import Label, find_templates, label_vectors
from mmindex.models.devices import place
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.preprocess import to_pixels
from mmindex.models.resolve import resolve_model
from mmindex.scenes import Scene, draw, make_scene

SHOTS = (1, 2, 4, 8, 16)
BATCH = 64
TEMPLATES = find_templates("drawing")
LABELS: dict[str, Callable[[Scene], str]] = {
    "kind": lambda scene: scene.things[0].kind,
    "colour": lambda scene: scene.things[0].colour,
    "size": lambda scene: scene.things[0].size,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--label", choices=sorted(LABELS), default="kind")
    parser.add_argument("--tests", type=int, default=8, help="least number of test images a label")
    options = parser.parse_args()
    encoder = load_encoder(resolve_model("embedded", None), place("cpu"))
    assert isinstance(encoder, OpenClipEncoder)
    scenes = single_scenes(options.seed, LABELS[options.label], max(SHOTS) + options.tests)
    images = np.concatenate([
        encoder.encode_images(np.stack([to_pixels(draw(one), encoder.preprocess) for one in part]))
        for part in (scenes[start : start + BATCH] for start in range(0, len(scenes), BATCH))
    ])  # fmt: skip
    names = sorted({LABELS[options.label](scene) for scene in scenes})
    numbers = np.array([names.index(LABELS[options.label](scene)) for scene in scenes])
    labels = [Label(name, (name,)) for name in names]
    zero = Classifier(
        tuple(names), label_vectors(labels, TEMPLATES, encoder.encode_texts), logit_scale(encoder)
    )
    learner = context_learner(encoder, labels, TEMPLATES)
    assert learner is not None
    methods: dict[str, Method] = {**METHODS, "context": learner}
    print(
        f"{len(scenes):,} scenes of seed {options.seed}, {len(names)} labels, {options.runs} runs"
    )
    report(zero, methods, Examples(images, numbers), options.runs)


def single_scenes(seed: int, label: Callable[[Scene], str], each: int) -> list[Scene]:
    """Return scenes with one kind of thing, the same number for each label."""
    found: Counter[str] = Counter()
    scenes: list[Scene] = []
    number = 0
    # Every label occurs in the first few hundred scenes.
    while number < 1_000 or min(found.values()) < each:
        scene = make_scene(seed, number)
        number += 1
        if len(scene.things) == 1 and found[label(scene)] < each:
            found[label(scene)] += 1
            scenes.append(scene)
    return scenes


def report(zero: Classifier, methods: dict[str, Method], every: Examples, runs: int) -> None:
    columns = [ZERO_SHOT, *methods, "chosen"]
    print(f"shots  {'  '.join(f'{name:>12}' for name in columns)}  gain +- SE    s  chosen")
    for shots in SHOTS:
        begun = time.perf_counter()
        rows = [one_run(zero, methods, every, shots, run) for run in range(runs)]
        seconds = (time.perf_counter() - begun) / runs
        means = "  ".join(f"{np.mean([row[name] for row, _ in rows]):12.1f}" for name in columns)
        gains = [row["chosen"] - row[ZERO_SHOT] for row, _ in rows]
        error = np.std(gains, ddof=1) / np.sqrt(runs)
        picked = Counter(name for _, name in rows).most_common()
        print(f"{shots:>5}  {means}  {np.mean(gains):+5.1f} {error:4.1f}  {seconds:4.0f}  "
              + ", ".join(f"{name} {count}" for name, count in picked), flush=True)  # fmt: skip


def one_run(
    zero: Classifier, methods: dict[str, Method], every: Examples, shots: int, run: int
) -> tuple[dict[str, float], str]:
    """Return the accuracy of each method in percent, and the method that was chosen."""
    drawn = drawn_rows(every.labels, shots, np.random.default_rng((shots, run)))
    shown, unseen = every.only(drawn), every.only(~drawn)

    def accuracy(classifier: Classifier) -> float:
        right = classifier.logits(unseen.images).argmax(axis=1) == unseen.labels
        return 100 * float(right.mean())

    learned = learn(zero, shown, methods)
    row = {ZERO_SHOT: accuracy(zero), "chosen": accuracy(learned.classifier)}
    for trial in learned.trials[1:]:
        settings = methods[trial.method](zero, shown)
        row[trial.method] = accuracy(next(
            one for number, one in enumerate(settings) if number == trial.setting
        ))  # fmt: skip
    return row, learned.chosen.method


def drawn_rows(labels: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    drawn = np.zeros(len(labels), dtype=np.bool_)
    for label in range(int(labels.max()) + 1):
        drawn[rng.choice(np.flatnonzero(labels == label), shots, replace=False)] = True
    return drawn


if __name__ == "__main__":
    main()
