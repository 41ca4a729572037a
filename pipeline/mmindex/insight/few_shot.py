"""Classifiers from a few labelled images, chosen by cross-validation.

A few images can make a classifier worse than none. Zero-shot classification is therefore always a
candidate. Another method is chosen only if it is clearly better on images that were used neither to
learn nor to choose its setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.evaluate.paired import mcnemar
from mmindex.insight.classify import Cache, Classifier

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

ZERO_SHOT: Final = "zero-shot"
_FOLDS: Final = 5
_SIGNIFICANCE: Final = 0.05  # of the comparisons of all methods with zero-shot together
# Strengths of the prior of the probe, from strong to weak. With the first, the vectors are nearly
# those of the texts; with the last, the texts have almost no effect.
_PRIORS: Final = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
_WEIGHTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_SHARPNESS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
MOST_WEIGHT: Final = max(_WEIGHTS)
MOST_SHARPNESS: Final = max(_SHARPNESS)
# Learning computes a logit for each image and label: 160 MB as float64.
_MOST_PAIRS: Final = 20_000_000
_MOST_EXAMPLES: Final = 10_000
_LBFGS_STEPS: Final = 50
_LBFGS_HISTORY: Final = 10
_LBFGS_TOLERANCE: Final = 1e-6  # of the loss


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled images.

    Attributes:
        images: float32 (n, dim), unit length.
        labels: int64 (n,), the number of the label of each image.
    """

    images: Float32
    labels: Int64

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: NDArray[np.bool_]) -> Examples:
        """Return the examples in the rows of a mask."""
        return Examples(self.images[rows], self.labels[rows])


Method = Callable[[Classifier, Examples], Iterator[Classifier]]
"""Yields classifiers learned from examples: one per setting of the method, in a fixed order."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a method in cross-validation.

    Attributes:
        method: the name of the method.
        setting: the number of the setting that is best on all examples.
        right: bool (n,), whether each example got its correct label. The classifier has not learned
            from the example, and its setting is the best one on the other folds.
        likelihood: the mean log-probability of the correct label, from the same classifiers.
    """

    method: str
    setting: int
    right: NDArray[np.bool_]
    likelihood: float

    @property
    def accuracy(self) -> float:
        """The share of examples that got their correct label."""
        return float(self.right.mean())

    def is_above(self, other: Trial, methods: int) -> bool:
        """Return whether the accuracy is significantly higher than that of ``other``.

        Args:
            methods: the number of methods that are compared; the more, the stricter is the test.
        """
        gained = int((self.right & ~other.right).sum())
        lost = int((other.right & ~self.right).sum())
        return gained > lost and mcnemar(gained, lost) <= _SIGNIFICANCE / methods


@dataclass(frozen=True, slots=True)
class Learned:
    """The chosen classifier.

    Attributes:
        classifier: the classifier, learned from all examples.
        chosen: the trial of its method.
        trials: one trial for each method, zero-shot first.
    """

    classifier: Classifier
    chosen: Trial
    trials: tuple[Trial, ...]


def probe(zero: Classifier, examples: Examples) -> Iterator[Classifier]:
    """Learn label vectors by logistic regression that starts at the vectors of the texts.

    The prior of each vector is a normal distribution around the vector of its text. With few
    images, the vectors therefore stay close to those of the texts.
    """
    import torch

    images = torch.from_numpy(examples.images.astype(np.float64))
    labels = torch.from_numpy(examples.labels)
    start = torch.from_numpy(zero.vectors.astype(np.float64))
    vectors = start.clone().requires_grad_()
    for prior in _PRIORS:
        strength = prior * start.shape[1] / (2 * len(examples))
        optimizer = torch.optim.LBFGS(
            [vectors],
            max_iter=_LBFGS_STEPS,
            history_size=_LBFGS_HISTORY,
            tolerance_change=_LBFGS_TOLERANCE,
            line_search_fn="strong_wolfe",
        )

        def loss(strength: float = strength, optimizer: torch.optim.LBFGS = optimizer) -> float:
            optimizer.zero_grad()
            logits = zero.scale * images @ vectors.T
            total = torch.nn.functional.cross_entropy(logits, labels)
            total = total + strength * (vectors - start).square().sum()
            total.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            return float(total.detach())

        optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch's is not typed
        yield replace(zero, vectors=vectors.detach().numpy().astype(np.float32))


def tip_adapter(zero: Classifier, examples: Examples) -> Iterator[Classifier]:
    """Add the similarity to the examples to the logits; see :class:`Cache`."""
    for weight, sharpness in product(_WEIGHTS, _SHARPNESS):
        yield replace(zero, cache=Cache(examples.images, examples.labels, weight, sharpness))


def most_examples(labels: int) -> int:
    """Return the largest number of examples for a number of labels."""
    return min(_MOST_EXAMPLES, _MOST_PAIRS // labels)


METHODS: Final[Mapping[str, Method]] = {"probe": probe, "tip-adapter": tip_adapter}


def learn(zero: Classifier, examples: Examples, methods: Mapping[str, Method]) -> Learned:
    """Choose a method and its setting by cross-validation, and apply it to all examples.

    Args:
        zero: the classifier without examples.
        examples: at least one for each label, and at least two.
        methods: the methods to try, by name.
    """
    baseline = _cross_validate(ZERO_SHOT, lambda one, _: iter([one]), zero, examples)
    trials = [_cross_validate(name, method, zero, examples) for name, method in methods.items()]
    best = max(trials, key=_quality, default=baseline)
    if best is baseline or not best.is_above(baseline, len(trials)):
        return Learned(zero, baseline, (baseline, *trials))
    classifiers = methods[best.method](zero, examples)
    chosen = next(one for number, one in enumerate(classifiers) if number == best.setting)
    return Learned(chosen, best, (baseline, *trials))


def _quality(trial: Trial) -> tuple[float, float]:
    return trial.accuracy, trial.likelihood


def _cross_validate(name: str, method: Method, zero: Classifier, examples: Examples) -> Trial:
    """Return the trial of a method."""
    fold_of = _folds(examples.labels)
    folds = range(int(fold_of.max()) + 1)
    right: list[NDArray[np.bool_]] = []
    chances: list[Float64] = []
    for fold in folds:
        held_out = fold_of == fold
        test = examples.only(held_out)
        for number, one in enumerate(method(zero, examples.only(~held_out))):
            if number == len(right):
                right.append(np.zeros(len(examples), dtype=np.bool_))
                chances.append(np.zeros(len(examples)))
            logits = one.logits(test.images)
            right[number][held_out] = logits.argmax(axis=1) == test.labels
            chances[number][held_out] = _log_probabilities(logits, test.labels)

    def best_on(rows: NDArray[np.bool_]) -> int:
        return max(
            range(len(right)),
            key=lambda number: (right[number][rows].mean(), chances[number][rows].mean()),
        )

    # A fold must not be used to choose the setting that it measures.
    chosen = np.array([best_on(fold_of != fold) for fold in folds])[fold_of]
    rows = np.arange(len(examples))
    return Trial(
        name,
        best_on(fold_of >= 0),
        np.array(right)[chosen, rows],
        float(np.array(chances)[chosen, rows].mean()),
    )


def _log_probabilities(logits: Float64, labels: Int64) -> Float64:
    """Return the log-probability of one label for each row of logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    return np.asarray(own - np.log(np.exp(shifted).sum(axis=1)))


def _folds(labels: Int64) -> Int64:
    """Return the fold of each example; the examples of a label are spread over the folds."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % min(_FOLDS, len(labels))
    return folds
