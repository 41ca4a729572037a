"""The closed form: regularised canonical correlation, mixed with the unchanged model.

Canonical correlation (H. Hotelling, Relations between two sets of variates, Biometrika 28, 1936)
finds directions in which images and captions agree, after whitening both sides. With few pairs the
covariances must be regularised (H. D. Vinod, Canonical ridge and econometrics of joint production,
Journal of Econometrics 4, 1976). Two things are added here:

- The ridge is not a multiple of the identity, but the effect of noise in the towers' last features
  on the vectors (:mod:`mmindex.models.heads`). A head fitted to little data shrinks directions that
  the features represent well; the plain ridge treats those as noise.
- The whitened correlation is mixed with the one that would result in the unchanged model, so that a
  candidate can stay close to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from mmindex.adaptation.pairs import Pairs
from mmindex.models.adapted import Affine

# This share of the ridge is equal in all directions, because a head can remove some directions.
_EVEN: Final = 0.01
_ROWS: Final = 1_024  # images summed at once in float32: rounding stays below 1e-6
# The least mean variance, relative to the mean square: below it, all vectors are nearly equal, and
# subtracting the product of the means from a covariance leaves only rounding errors.
_LEAST_VARIANCE: Final = 1e-3
_TINY: Final = 1e-30  # divisor for a corpus without any variance


@dataclass(frozen=True, slots=True)
class Settings:
    """One candidate.

    Attributes:
        image_ridge, text_ridge: added to each covariance, relative to its mean variance.
        trust: share of the unchanged model in the whitened correlation, 0 to 1.
        steps: number of steps of the contrastive polish afterwards; 0 for none.
    """

    image_ridge: float
    text_ridge: float
    trust: float
    steps: int = 0

    def for_more(self, known: int, images: int) -> Settings:
        """Return settings chosen with ``known`` images, for a fit to ``images`` images.

        The covariance of twice as many images has half the variance and needs half the ridge.
        """
        share = known / images
        return replace(
            self, image_ridge=self.image_ridge * share, text_ridge=self.text_ridge * share
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over images; each image has the same weight, regardless of its number of captions.

    Attributes:
        count: number of images.
        image, text: float64 (dim,), sums of vectors; an image's captions are averaged.
        images, texts, both: float64 (dim, dim), sums of outer products: images with themselves,
            captions with themselves, images with captions.
    """

    count: int
    image: Tensor
    text: Tensor
    images: Tensor
    texts: Tensor
    both: Tensor

    @classmethod
    def of(cls, pairs: Pairs) -> Self:
        """Return the sums over some pairs, computed for ``_ROWS`` images at once."""
        dim = pairs.dim
        image, text = torch.zeros(2, dim, dtype=torch.float64)
        images, texts, both = torch.zeros(3, dim, dim, dtype=torch.float64)
        for start in range(0, len(pairs), _ROWS):
            part = np.arange(start, min(start + _ROWS, len(pairs)))
            rows = pairs.captions_of(part)
            counts = torch.from_numpy(pairs.counts[part])
            seen = torch.from_numpy(pairs.images[part]).float()
            # Captions are divided by the square root of their number: outer products then sum to a
            # mean.
            owner = torch.repeat_interleave(torch.arange(len(part)), counts)
            shares = (1.0 / counts.float())[owner, None]
            said = torch.from_numpy(pairs.texts[rows]).float()
            means = torch.zeros_like(seen).index_add_(0, owner, said * shares)
            image += seen.sum(0, dtype=torch.float64)
            text += means.sum(0, dtype=torch.float64)
            images += (seen.T @ seen).double()
            texts += ((said * shares).T @ said).double()
            both += (seen.T @ means).double()
        return cls(len(pairs), image, text, images, texts, both)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.image + other.image,
            self.text + other.text,
            self.images + other.images,
            self.texts + other.texts,
            self.both + other.both,
        )


@dataclass(frozen=True, slots=True)
class Noise:
    """The effect of noise in the towers' features on the vectors: float64 (dim, dim) each."""

    image: Tensor
    text: Tensor

    @classmethod
    def of(cls, image: Tensor | None, text: Tensor | None, dim: int) -> Self:
        """Scale each to mean variance 1; unknown noise of a tower is equal in all directions."""
        return cls(_scaled(image, dim), _scaled(text, dim))


def _scaled(noise: Tensor | None, dim: int) -> Tensor:
    even = torch.eye(dim, dtype=torch.float64)
    if noise is None or not torch.isfinite(noise).all() or not float(noise.trace()) > 0:
        return even
    return (1 - _EVEN) * noise * (dim / noise.trace()) + _EVEN * even


@dataclass(frozen=True, slots=True)
class Fit:
    """Two maps: ``x -> (x - centre) @ map``.

    Attributes:
        image, text: float32 (dim, dim).
        image_centre, text_centre: float32 (dim,), the vectors that are mapped to zero.
    """

    image: Tensor
    text: Tensor
    image_centre: Tensor
    text_centre: Tensor

    def with_maps(self, image: Tensor, text: Tensor) -> Fit:
        """Return the same centres with other maps."""
        return replace(self, image=image, text=text)

    @property
    def affines(self) -> tuple[Affine, Affine]:
        """Return the maps of images and of texts in the form in which they are saved."""
        return (
            _affine(self.image, self.image_centre),
            _affine(self.text, self.text_centre),
        )


def _affine(turn: Tensor, centre: Tensor) -> Affine:
    bias = -(centre.double() @ turn.double()).float()
    return Affine(np.ascontiguousarray(turn.T.numpy()), bias.numpy())


@dataclass(frozen=True, slots=True)
class Whitened:
    """Pairs whitened with one choice of ridges, as the basis of candidates with any ``trust``."""

    left: Tensor
    right: Tensor
    correlation: Tensor
    unchanged: Tensor
    centres: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, moments: Moments, noise: Noise, settings: Settings) -> Self:
        """Whiten both sides.

        With ``L L'`` and ``R R'`` the regularised covariances, ``K = inv(L) C inv(R)'`` is the
        correlation of whitened vectors. The maps ``inv(L)' U sqrt(s)`` and ``inv(R)' V sqrt(s)``
        have the product ``inv(L)' K inv(R)``. It is the identity, the unchanged model, if K is ``L'
        R``.
        """
        count = moments.count
        image, text = moments.image / count, moments.text / count
        left = _root(
            moments.images / count - torch.outer(image, image), noise.image, settings.image_ridge
        )
        right = _root(
            moments.texts / count - torch.outer(text, text), noise.text, settings.text_ridge
        )
        cross = moments.both / count - torch.outer(image, text)
        half = torch.linalg.solve_triangular(left, cross, upper=False)
        correlation = torch.linalg.solve_triangular(right, half.T, upper=False).T
        unchanged = left.T @ right
        # Scaled to explain as much as possible of the measured correlation.
        unchanged *= (unchanged * correlation).sum().clamp_min(0) / (unchanged**2).sum()
        return cls(left, right, correlation, unchanged, (image.float(), text.float()))

    def fit(self, trust: float) -> Fit:
        """Return the maps with a share of the unchanged model."""
        mixed = (1 - trust) * self.correlation + trust * self.unchanged
        turned, strengths, back = torch.linalg.svd(mixed)
        roots = strengths.sqrt()
        image = torch.linalg.solve_triangular(self.left.T, turned * roots, upper=True)
        text = torch.linalg.solve_triangular(self.right.T, back.T * roots, upper=True)
        return Fit(_even(image), _even(text), *self.centres)


def _root(covariance: Tensor, noise: Tensor, ridge: float) -> Tensor:
    """Return the lower triangular L with ``L L' = covariance + ridge``."""
    scale = covariance.diagonal().mean().clamp_min(_LEAST_VARIANCE / len(covariance))
    root: Tensor = torch.linalg.cholesky(covariance + ridge * scale * noise)
    return root


def _even(turn: Tensor) -> Tensor:
    """Scale a map to a range suitable for float32; vectors are normalised after it."""
    return (turn / turn.pow(2).mean().sqrt().clamp_min(_TINY)).float()
