"""The decoder of the embedded model on unseen scenes, beside the nearest caption and two guesses.

The nearest caption is that of another scene. The guesses at answers are the most frequent answer of
each type of question, and the same decoder without the image.

Run with a number of scenes, and perhaps the folder of another decoder:
python benchmarks/bench_decoder.py 1000
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mmindex.decoder.facts import score_facts
from mmindex.decoder.features import Features
from mmindex.decoder.generate import Search, generate
from mmindex.decoder.measure import answered, majority, questions_about
from mmindex.decoder.model import DecoderModel, find_decoder
from mmindex.decoder.questions import DESCRIBE
from mmindex.decoder.scores import score_captions
from mmindex.decoder.train import drawn, read_scenes
from mmindex.models.devices import place
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.resolve import resolve_model
from mmindex.scenes import Scene, captions

SEED = 77


def main(count: int, folder: Path | None) -> None:
    request = resolve_model("embedded", None)
    encoder = load_encoder(request, place("cpu"))
    assert isinstance(encoder, OpenClipEncoder)
    model = find_decoder(folder or request.folder, "embedded", encoder.info.weights)
    scenes = read_scenes([f"scenes:{count}@{SEED}"])
    pixels = list(drawn(scenes, encoder.preprocess))
    features = Features(encoder.model, encoder.preprocess, len(model.network.shape.maps))
    maps = features.of_all(iter(pixels), len(scenes))
    print(f"{len(scenes):,} scenes of seed {SEED}, {model.network.parameter_count():,} parameters")
    compare_captions(model, scenes, maps, nearest(encoder, scenes, pixels))
    compare_answers(model, scenes, maps)


def nearest(
    encoder: OpenClipEncoder, scenes: Sequence[Scene], pixels: Sequence[np.ndarray]
) -> list[str]:
    """Return for each scene the caption of another one that is nearest to its image."""
    texts = [caption.text for scene in scenes for caption in captions(scene)]
    owners = np.repeat(np.arange(len(scenes)), len(texts) // len(scenes))
    images = np.concatenate([encoder.encode_images(part) for part in pixels])
    scores = images @ encoder.encode_texts(texts).T
    scores[owners[None] == np.arange(len(scenes))[:, None]] = -1
    return [texts[best] for best in scores.argmax(axis=1)]


def compare_captions(
    model: DecoderModel, scenes: Sequence[Scene], maps: Sequence[Tensor], copied: list[str]
) -> None:
    references = [[caption.text for caption in captions(scene)] for scene in scenes]
    told = {"nearest caption": copied}
    for beams in (1, 4):
        start = time.perf_counter()
        found = generate(model, maps, [DESCRIBE] * len(scenes), Search(beams=beams))
        rate = len(scenes) / (time.perf_counter() - start)
        told[f"decoder, {beams} beams ({rate:.0f}/s)"] = [one.text for one in found]
    print(f"{'captions':<28}BLEU-1 BLEU-4  CIDEr-D  ROUGE-L  repeated  F1 of objects, attributes, "
          "relations")  # fmt: skip
    for name, texts in told.items():
        one = score_captions(texts, references)
        facts = score_facts(texts, scenes)
        f1 = "  ".join(f"{score.f1:.3f}" for score in facts.values())
        print(f"{name:<28}{one.bleu[0]:.3f}  {one.bleu[3]:.3f}  {one.cider:7.3f}  {one.rouge:7.3f}"
              f"  {one.repeated:8.3f}  {f1}")  # fmt: skip


def compare_answers(model: DecoderModel, scenes: Sequence[Scene], maps: Sequence[Tensor]) -> None:
    asked = [one for scene in scenes for one in questions_about(scene)]
    often = majority(asked)
    told = answered(model, scenes, maps, blind=False)
    blind = answered(model, scenes, maps, blind=True)
    right: defaultdict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for one, own, guess in zip(asked, told, blind, strict=True):
        answers = (own, often[one.type], guess)
        right[one.type].append(tuple(answer == one.answer for answer in answers))  # type: ignore[arg-type]
    print(f"{'questions':<22}{'asked':>7}  decoder  majority   blind")
    questions = [row for name, rows in right.items() if "task" not in name for row in rows]
    for name, rows in [*right.items(), ("all questions", questions)]:
        shares = 100 * np.array(rows).mean(axis=0)
        print(f"{name:<22}{len(rows):>7,}  {shares[0]:7.1f}  {shares[1]:8.1f}  {shares[2]:6.1f}")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 300, Path(sys.argv[2]) if sys.argv[2:] else None
    )
