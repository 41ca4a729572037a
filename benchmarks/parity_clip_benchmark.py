"""Compare recall with LAION's CLIP_benchmark (``zeroshot_retrieval``) on the same embeddings.

    pip install --no-deps --target PEER clip-benchmark    # outside the environment of mmindex
    python benchmarks/parity_clip_benchmark.py --peer PEER [--cases 12]

Both programs get the same vectors: CLIP_benchmark through its own ``evaluate`` with a model that
looks them up, mmindex through a published store. With random float vectors, rounding could affect
the comparison. The vectors are therefore exact: integers divided by 2048 whose squares add up to
one. Their norm is 1, and every product and sum in a score is exact in float32, so both programs
compute identical scores and normalisation changes nothing. The number of queries is a power of two,
so the mean that CLIP_benchmark computes in float32 is also exact.

If scores are equal, CLIP_benchmark leaves the order to ``torch.topk``, which guarantees none, and
mmindex puts the lower row first. If such ties can affect the result, both figures are compared
within the bounds that the possible orders of the ties allow, and these cases are counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch

from mmindex.evaluate.corpus import caption_queries, image_queries, load_corpus
from mmindex.evaluate.recall import exact_scan, summarize
from support.models import fake_info
from support.stores import Side, captions_table, images_table, key_of, make_store

KS = (1, 5, 10)
DIM = 32
_SCALE = 2_048
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Case:
    images: np.ndarray
    texts: np.ndarray
    owner: np.ndarray  # image of each caption, ascending, as CLIP_benchmark numbers them


def exact_vectors(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return float32 (n, DIM) with norm exactly 1; each value is a multiple of 1/2048."""
    return np.stack([exact_vector(rng) for _ in range(n)])


def exact_vector(rng: np.random.Generator) -> np.ndarray:
    free = rng.standard_normal(DIM - 4)
    free *= 0.9 / np.linalg.norm(free)
    whole = np.rint(free * _SCALE).astype(np.int64)
    rest = _SCALE**2 - int((whole**2).sum())
    row = np.concatenate([whole, four_squares(rest, rng)])
    return (rng.permutation(row) / _SCALE).astype(np.float32)


def four_squares(total: int, rng: np.random.Generator) -> np.ndarray:
    """Return four integers whose squares add up to ``total`` (they exist for every number)."""
    while True:
        a = int(rng.integers(0, int(total**0.5) + 1))
        b = int(rng.integers(0, int((total - a * a) ** 0.5) + 1))
        rest = total - a * a - b * b
        c = np.arange(int(rest**0.5) + 1)
        d = np.sqrt(rest - c**2).astype(np.int64)
        hits = np.flatnonzero(c**2 + d**2 == rest)
        if len(hits):
            c_found = int(rng.choice(hits))
            signs = rng.choice([-1, 1], 4)
            return signs * np.array([a, b, c_found, int(d[c_found])])


def captions_each(rng: np.random.Generator, images: int) -> np.ndarray:
    """Return 1 to 7 captions per image, 4 on average, with a power of two in total."""
    counts = rng.integers(1, 8, images)
    while (short := 4 * images - counts.sum()) != 0:
        step = 1 if short > 0 else -1
        movable = np.flatnonzero((counts + step >= 1) & (counts + step <= 7))
        counts[rng.choice(movable)] += step
    return counts


def make_case(seed: int, *, ties: bool) -> Case:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([64, 128, 256, 512]))
    owner = np.repeat(np.arange(n), captions_each(rng, n))
    images, texts = exact_vectors(rng, n), exact_vectors(rng, len(owner))
    # Half of the captions are similar to their image, so that recall is neither 0 nor 100 %: they
    # are the image with two numbers exchanged, which does not change the norm.
    for row in rng.choice(len(owner), len(owner) // 2, replace=False):
        texts[row] = images[owner[row]]
        swapped = rng.permutation(DIM)[: int(rng.choice([2, 8, 16]))]
        texts[row, swapped] = texts[row, rng.permutation(swapped)]
    if ties:  # the same image under several names, the same caption for several images
        images[rng.integers(0, n, n // 4)] = images[rng.integers(0, n, n // 4)]
        texts[rng.integers(0, len(texts), n)] = texts[rng.integers(0, len(texts), n)]
    return Case(images, texts, owner)


def ours(case: Case, folder: Path) -> dict[str, float]:
    """Return mmindex's recall, from a published store."""
    image_keys = [key_of(row.tobytes()) for row in case.images]
    texts = [row.tobytes().hex() for row in case.texts]
    unique_images = dict(zip(image_keys, case.images, strict=True))
    unique_texts = {key_of(text): row for text, row in zip(texts, case.texts, strict=True)}
    names = [f"i{number:06d}" for number in range(len(case.images))]
    snapshot = make_store(
        folder,
        images_table([(n, k, f"/{n}") for n, k in zip(names, image_keys, strict=True)]),
        captions_table([(names[o], t) for o, t in zip(case.owner, texts, strict=True)]),
        {
            "image": Side(list(unique_images), np.stack(list(unique_images.values()))),
            "text": Side(list(unique_texts), np.stack(list(unique_texts.values()))),
        },
        fake_info(dim=DIM),
    )
    corpus = load_corpus(snapshot)
    assert corpus.captions is not None
    every = np.arange(len(case.texts))
    asked = caption_queries(corpus.captions, corpus.image_of_caption, every)
    answered = np.unique(corpus.image_of_caption)
    shown = image_queries(corpus.images, corpus.image_of_caption, answered)
    figures = {}
    for name, scan in (
        ("image_retrieval_recall", exact_scan(asked, corpus.images, 10)),
        ("text_retrieval_recall", exact_scan(shown, corpus.captions, 10)),
    ):
        summary = summarize(scan.ranks)
        assert summary is not None
        for k, percent in zip(KS, (summary.r1, summary.r5, summary.r10), strict=True):
            figures[f"{name}@{k}"] = percent / 100
    return figures


class LookUp:
    """A model whose inputs are the embeddings themselves."""

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def encode_text(self, texts: torch.Tensor) -> torch.Tensor:
        return texts


def theirs(case: Case) -> dict[str, float]:
    """Return CLIP_benchmark's recall, from its own ``evaluate``."""
    from clip_benchmark.metrics import zeroshot_retrieval

    def batches() -> Iterator[tuple[torch.Tensor, list[list[int]]]]:
        for start in range(0, len(case.images), 50):
            part = range(start, min(start + 50, len(case.images)))
            rows = [np.flatnonzero(case.owner == image).tolist() for image in part]
            yield torch.from_numpy(case.images[start : start + 50]), rows

    texts = torch.from_numpy(case.texts)
    figures: dict[str, float] = zeroshot_retrieval.evaluate(
        LookUp(), batches(), lambda rows: texts[rows], "cpu", amp=False, recall_k_list=list(KS)
    )
    return figures


def bounds(case: Case) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest recall over all orders of ties, from the whole score matrix."""
    scores = case.texts.astype(np.float64) @ case.images.astype(np.float64).T
    right = case.owner[:, None] == np.arange(len(case.images))
    found = {}
    for name, s, r in (
        ("image_retrieval_recall", scores, right),
        ("text_retrieval_recall", scores.T, right.T),
    ):
        best = np.where(r, s, -np.inf).max(axis=1, keepdims=True)
        ahead = (s > best).sum(axis=1)
        tied_wrong = ((s == best) & ~r).sum(axis=1)
        for k in KS:
            low = float((ahead + tied_wrong < k).mean())
            found[f"{name}@{k}"] = low, float((ahead < k).mean())
    return found


def compare(case: Case, label: str, folder: Path) -> float:
    """Print one line, and return the largest difference of figures that ties cannot affect."""
    own, peer, between = ours(case, folder), theirs(case), bounds(case)
    worst, open_ = 0.0, 0
    for name, (low, high) in between.items():
        if low == high:
            worst = max(worst, abs(own[name] - peer[name]))
        else:
            open_ += 1
            assert low - TOLERANCE <= own[name] <= high + TOLERANCE, (name, own[name])
            assert low - TOLERANCE <= peer[name] <= high + TOLERANCE, (name, peer[name])
    print(
        f"{label}  {len(case.images):4d} images {len(case.texts):5d} captions  "
        + "  ".join(f"{own[name]:.6f}" for name in between)
        + f"  largest difference {worst:.1e}, decided by ties: {open_} of {len(between)}"
    )
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="folder with clip_benchmark")
    parser.add_argument("--cases", type=int, default=12)
    options = parser.parse_args()
    if options.peer is not None:
        sys.path.append(str(options.peer))
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.cases):
            ties = seed % 4 == 3
            label = f"case {seed:2d}{' with ties' if ties else '':10}"
            case = make_case(seed, ties=ties)
            worst = max(worst, compare(case, label, Path(folder) / str(seed)))
    print(f"largest difference over {options.cases} cases: {worst:.1e} (allowed {TOLERANCE:g})")
    if worst > TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    main()
