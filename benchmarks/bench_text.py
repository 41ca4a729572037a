"""Captions encoded per second, compared with open_clip's tokenizer and encode_text.

    bench_text.py [--captions captions_val2017.json] [--model ViT-B-32]

Weights are seeded. Both sides use batches of 256 and include tokenization. For a causal tower,
mmindex computes only as many positions as the longest text in a batch has; open_clip always
computes 77.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchkit import models
from benchkit.report import Report, in_turn, options_of, timed

BATCH = 256


def by_open_clip(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            features = model.encode_text(tokenizer(texts[start : start + BATCH]))
            parts.append(torch.nn.functional.normalize(features, dim=-1).numpy())
    return np.concatenate(parts)


def measure(options: argparse.Namespace, folder: Path) -> None:
    import open_clip

    report = Report("text", options)
    count = 4_096 if options.full else 1_024
    source, texts = models.captions(options.captions, count)
    encoder = models.load(options.model, models.seeded_weights(options.model, folder))
    tokenizer = open_clip.get_tokenizer(options.model)
    lengths = (tokenizer(texts) != 0).sum(dim=1).numpy()
    # One batch on each side first, to fill caches and start threads.
    theirs = by_open_clip(encoder.model, tokenizer, texts[:BATCH])
    ours = encoder.encode_texts(texts[:BATCH])
    cosine = float(np.einsum("ij,ij->i", ours, theirs).min())
    times = in_turn(
        {
            "open_clip": lambda: timed(lambda: by_open_clip(encoder.model, tokenizer, texts)),
            "mmindex": lambda: timed(lambda: encoder.encode_texts(texts)),
        },
        options.runs,
    )
    median = {name: statistics.median(found) for name, found in times.items()}
    rows = [
        {
            "program": name,
            "texts/s": count / median[name],
            "times open_clip": median["open_clip"] / median[name],
            "lowest cosine": 1.0 if name == "open_clip" else cosine,
        }
        for name in times
    ]
    title = f"{options.model}, {count} captions of {source}, {lengths.mean():.1f} tokens each"
    report.table(title, rows)


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--captions", type=Path, help="COCO's annotations; default: drawn scenes'")
    parser.add_argument("--model", default="ViT-B-32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(options, Path(name))


if __name__ == "__main__":
    main()
