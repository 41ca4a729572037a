"""Fit the biases of :mod:`mmindex.search.hubness`, and measure what they change.

The bank consists of captions of one half of the images. The captions of the other half decide
whether the biases are used. The own captions of an image never count for its bias: otherwise,
images with captions in the bank would be ranked lower than others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.evaluate.bootstrap import mean_over_images, recall_figures
from mmindex.evaluate.corpus import Corpus, Items, load_corpus, sample
from mmindex.evaluate.evaluation import HubnessBlock
from mmindex.store.snapshot import Snapshot

_BANK: Final = 3_000
_NEAREST: Final = 50
# Twice as much made results worse for 159 photographs and for 2,000 drawn scenes.
_SHARE: Final = 0.5
_QUERIES: Final = 2_000
_FEWEST: Final = 100  # captions of each half; with fewer, the decision would be chance
_ROWS: Final = 2_048
_CONFIDENCE: Final = 1.645  # standard errors: 95 % one-sided

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Texts:
    """Some captions: float32 (t, dim) vectors, and int64 (t,) ids of their images."""

    vectors: Float32
    owners: Int64


def fit_hubness(snapshot: Snapshot, config: EvaluateConfig) -> Float32 | None:
    """Return the bias of each image by id, float32 (rows,); None if it does not help.

    It helps if the mean reciprocal rank of the right images of held-out captions rises, with a
    confidence of 95 %. Captions of one image are not independent, so the error is that of images.

    Args:
        snapshot: the version or its draft, indexed.
        config: the seed of samples.

    Raises:
        DataError: tables, ids and vectors do not match, or an object is damaged.
    """
    if Modality.TEXT not in snapshot.manifest.indexes:
        return None
    corpus = load_corpus(snapshot)
    bank = _texts(corpus, _BANK, config.seed, fitting=True)
    held_out = _texts(corpus, _QUERIES, config.seed, fitting=False)
    logger = get_logger("evaluate")
    if min(len(bank.owners), len(held_out.owners)) < _FEWEST:
        logger.info("too few captions to fit a correction of hubness")
        return None
    bias = _biases(corpus.images, bank)
    before, after = _ranks(corpus.images, held_out, bias)
    gain, error = mean_over_images(1 / after - 1 / before, held_out.owners)
    helps = gain > _CONFIDENCE * error
    logger.info("correction of hubness", used=helps, mrr_gain=round(gain, 4), error=round(error, 4))
    return bias if helps else None


def measure_hubness(corpus: Corpus, bias: Float32, config: EvaluateConfig) -> HubnessBlock:
    """Measure recall of held-out captions with and without biases."""
    held_out = _texts(corpus, _QUERIES, config.seed, fitting=False)
    before, after = _ranks(corpus.images, held_out, bias)
    return HubnessBlock(
        queries=len(before),
        without=recall_figures(before),
        corrected=recall_figures(after),
    )


def _texts(corpus: Corpus, most: int, seed: int, *, fitting: bool) -> _Texts:
    """Return a sample of the captions of one half of the images, as in :mod:`.lists`."""
    if corpus.captions is None:
        return _Texts(np.empty((0, 0), np.float32), np.empty(0, np.int64))
    owners = corpus.images.id_of_row[corpus.image_of_caption]
    rows = np.flatnonzero(owners % 2 == (0 if fitting else 1))
    rows = rows[sample(len(rows), most, seed)]
    vectors = corpus.captions.vectors.take(corpus.captions.id_of_row[rows])
    return _Texts(vectors.astype(np.float32), owners[rows])


def _biases(images: Items, bank: _Texts) -> Float32:
    bias = np.zeros(images.vectors.n, dtype=np.float32)
    nearest = min(_NEAREST, len(bank.owners) // 2)
    for ids, vectors in images.vectors.blocks(_ROWS):
        scores = vectors.astype(np.float32) @ bank.vectors.T
        scores[ids[:, None] == bank.owners] = -1.0
        best = np.partition(scores, -nearest, axis=1)[:, -nearest:]
        bias[ids] = _SHARE * best.mean(axis=1)
    return bias


def _ranks(images: Items, asked: _Texts, bias: Float32) -> tuple[Int64, Int64]:
    """Return the rank of each caption's image without and with biases: int64 (t,) each."""
    own = images.vectors.take(asked.owners).astype(np.float32)
    plain = np.einsum("td,td->t", asked.vectors, own)[:, None]
    corrected = plain - bias[asked.owners][:, None]
    ranks = np.ones((2, len(asked.owners)), dtype=np.int64)
    for ids, vectors in images.vectors.blocks(_ROWS):
        scores = asked.vectors @ vectors.astype(np.float32).T
        others = ids != asked.owners[:, None]  # rounding differs between the two products
        ranks[0] += np.count_nonzero((scores > plain) & others, axis=1)
        ranks[1] += np.count_nonzero((scores - bias[ids] > corrected) & others, axis=1)
    return ranks[0], ranks[1]
