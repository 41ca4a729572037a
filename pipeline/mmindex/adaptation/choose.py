"""Choose the best candidate, and test whether it is better than the unchanged model.

Images are split into folds, each with all its captions. In every round, one fold is for testing,
another one for choosing the settings, and the rest for fitting. The test fold is used neither for
fitting nor for choosing, so the measured difference to the unchanged model applies to new images
(S. Varma and R. Simon, Bias in error estimation when using cross-validation for model selection,
BMC Bioinformatics 7, 2006). A large corpus needs only one round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Final

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 # the usual name

from mmindex.adaptation.correlate import Fit, Moments, Noise, Settings, Whitened
from mmindex.adaptation.measure import Figures, Gain, Ranks, gain, rank
from mmindex.adaptation.pairs import Int64, Pairs
from mmindex.adaptation.polish import polish
from mmindex.models.adapted import Maps

_FOLDS: Final = 5
# With at least this many images, one round distinguishes a gain of one point from noise.
_ONE_ROUND: Final = 2_500
_MOST_TESTED: Final = 2_000  # images
_MOST_CHOSEN_BY: Final = 500
# Captions vary less than images, and an image has several: their covariance is better known.
_RIDGES: Final = (0.1, 0.3, 1.0, 3.0, 10.0)
_TEXT_SHARE: Final = 1 / 3
_TRUST: Final = 0.4
_OTHER_TRUSTS: Final = (0.0, 0.7)
_STEPS: Final = 30


@dataclass(frozen=True, slots=True)
class Split:
    """The folds, and their roles in every round.

    Attributes:
        folds: int64 (k,) each, images; together all of them.
        rounds: numbers of the fold for testing and of the one for choosing.
    """

    folds: tuple[Int64, ...]
    rounds: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, images: int, seed: int) -> Split:
        """Split this number of images at random."""
        order = np.random.default_rng(seed).permutation(images)
        if images < _ONE_ROUND:
            folds = tuple(np.sort(fold) for fold in np.array_split(order, _FOLDS))
            return cls(folds, tuple((n, (n + 1) % _FOLDS) for n in range(_FOLDS)))
        tested = min(_MOST_TESTED, images // _FOLDS)
        ends = (tested, tested + min(_MOST_CHOSEN_BY, tested))
        return cls(tuple(np.sort(fold) for fold in np.split(order, ends)), ((0, 1),))


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen settings and their measured effect.

    Attributes:
        settings: the median of the rounds' choices, for a fit to all pairs.
        before, after: recall on the tested images, unchanged and with each round's own choice.
        gain: the difference between them.
        logit_scale: factor for the cosine similarities of new images before a softmax.
        tested: number of images tested.
        gallery: the largest number of images that a query searched.
    """

    settings: Settings
    before: Figures
    after: Figures
    gain: Gain
    logit_scale: float
    tested: int
    gallery: int


@dataclass(frozen=True, slots=True)
class _Round:
    """The result of one round; ``settings`` are its choice, for a fit to all pairs."""

    settings: Settings
    before: Ranks
    after: Ranks
    scale: float


def choose(pairs: Pairs, noise: Noise, seed: int) -> Choice:
    """Evaluate all candidates.

    Args:
        pairs: all pairs.
        noise: noise of the towers' features, in the vectors.
        seed: seed of the folds, the polish and the intervals.
    """
    split = Split.of(len(pairs), seed)
    with _one_thread():
        parts = [pairs.only(fold) for fold in split.folds]
        moments = [Moments.of(part) for part in parts]
        rounds = [_run(parts, moments, pair, noise, seed) for pair in split.rounds]
    before = Ranks.joined([one.before for one in rounds])
    after = Ranks.joined([one.after for one in rounds])
    return Choice(
        settings=_middle([one.settings for one in rounds]),
        before=Figures.of(before, seed),
        after=Figures.of(after, seed),
        gain=gain(before, after, seed),
        logit_scale=float(np.exp(np.mean([np.log(one.scale) for one in rounds]))),
        tested=len(before.image_to_text),
        gallery=max(len(parts[test]) for test, _ in split.rounds),
    )


def fit(pairs: Pairs, noise: Noise, choice: Choice, seed: int) -> Maps:
    """Fit the chosen settings to all pairs."""
    with _one_thread():
        fitted = _fit(pairs, Moments.of(pairs), noise, choice.settings, seed)
    return Maps(*fitted.affines, choice.logit_scale)


def _run(
    parts: list[Pairs],
    moments: list[Moments],
    numbers: tuple[int, int],
    noise: Noise,
    seed: int,
) -> _Round:
    test, chooser = numbers
    known = [n for n in range(len(parts)) if n not in numbers]
    pairs, total = _joined([parts[n] for n in known]), _sum([moments[n] for n in known])
    gallery = parts[chooser].only(np.arange(min(len(parts[chooser]), _MOST_CHOSEN_BY)))
    settings = _chosen(pairs, total, gallery, noise, seed)
    grown = _joined([pairs, parts[chooser]])
    wider = settings.for_more(len(pairs), len(grown))
    fitted = _fit(grown, total + moments[chooser], noise, wider, seed)
    tested = parts[test]
    return _Round(
        settings.for_more(len(pairs), len(grown) + len(tested)),
        rank(tested, None),
        rank(tested, fitted.affines),
        _logit_scale(tested, fitted),
    )


def _chosen(pairs: Pairs, total: Moments, gallery: Pairs, noise: Noise, seed: int) -> Settings:
    """Return the settings with the best recall in ``gallery``: first the ridges, then the rest."""

    def tried(ridge: float, trusts: Iterable[float]) -> Iterator[tuple[float, Settings, Fit]]:
        settings = Settings(ridge, ridge * _TEXT_SHARE, _TRUST)
        whitened = Whitened.of(total, noise, settings)
        for trust in trusts:
            fitted = whitened.fit(trust)
            yield rank(gallery, fitted.affines).score, replace(settings, trust=trust), fitted

    found = [one for ridge in _RIDGES for one in tried(ridge, (_TRUST,))]
    best = max(found, key=_score)
    best = max([best, *tried(best[1].image_ridge, _OTHER_TRUSTS)], key=_score)
    settings = replace(best[1], steps=_STEPS)
    polished = polish(best[2], pairs, noise, settings, seed)
    return settings if rank(gallery, polished.affines).score > best[0] else best[1]


def _score(tried: tuple[float, Settings, Fit]) -> float:
    return tried[0]


def _fit(pairs: Pairs, total: Moments, noise: Noise, settings: Settings, seed: int) -> Fit:
    fitted = Whitened.of(total, noise, settings).fit(settings.trust)
    return polish(fitted, pairs, noise, settings, seed) if settings.steps else fitted


def _middle(found: Sequence[Settings]) -> Settings:
    return Settings(
        median_low(one.image_ridge for one in found),
        median_low(one.text_ridge for one in found),
        median_low(one.trust for one in found),
        median_low(one.steps for one in found),
    )


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.texts for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )


def _sum(moments: list[Moments]) -> Moments:
    total = moments[0]
    for one in moments[1:]:
        total = total + one
    return total


def _logit_scale(pairs: Pairs, fitted: Fit) -> float:
    """Return the scale with the lowest contrastive loss on images not used for fitting."""
    image, text = fitted.affines
    chosen = np.arange(min(len(pairs), _MOST_CHOSEN_BY))
    images = torch.from_numpy(image(pairs.images[chosen]))
    texts = torch.from_numpy(text(pairs.texts[pairs.starts[chosen]]))
    scores, goal = images @ texts.T, torch.arange(len(chosen))
    scales = torch.logspace(0, 2, 81)  # 1 to 100, the range that CLIP allows
    losses = [
        F.cross_entropy(scores * s, goal) + F.cross_entropy(scores.T * s, goal) for s in scales
    ]
    return float(scales[int(torch.stack(losses).argmin())])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: equal results on every machine, and more threads hardly help at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
