"""Layers of transformers that encode texts, in NumPy.

Importing torch takes longer than a query with one short text. These layers compute the same values
as those of torch, within float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmindex.models.encoder import Float32

Activation = Callable[[Float32], Float32]


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer.

    Attributes:
        weight: float32 (outputs, inputs), as torch stores it.
        bias: float32 (outputs,).
    """

    weight: Float32
    bias: Float32

    def __call__(self, inner: Float32) -> Float32:
        """Convert float32 (..., inputs) to float32 (..., outputs)."""
        # One product of two matrices is faster than one product per text. With few positions, this
        # order is up to twice as fast as the other one, which would transpose the weight.
        out: Float32 = (self.weight @ inner.reshape(-1, inner.shape[-1]).T).T
        out += self.bias
        return out.reshape(*inner.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer normalisation over the last axis, with gain and bias, float32 (width,)."""

    weight: Float32
    bias: Float32
    epsilon: float

    def __call__(self, inner: Float32) -> Float32:
        """Normalise float32 (..., width)."""
        centred: Float32 = inner - inner.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        centred /= np.sqrt(variance + np.float32(self.epsilon))
        centred *= self.weight
        centred += self.bias
        return centred


@dataclass(frozen=True, slots=True)
class Block:
    """A layer of a transformer without its residual connections.

    Towers differ in whether they normalise before or after attention and the feed-forward network.

    Attributes:
        heads: the number of attention heads.
        attend: computes the queries, keys and values of all heads, in this order.
        attended: the output projection of attention.
        widen, activate, narrow: the feed-forward network.
        norms: the normalisations for attention and for the feed-forward network.
    """

    heads: int
    attend: Linear
    attended: Linear
    widen: Linear
    activate: Activation
    narrow: Linear
    norms: tuple[Norm, Norm]

    def attention(self, tokens: Float32, mask: Float32) -> Float32:
        """Compute attention between the positions of float32 (b, length, width).

        Args:
            tokens: the values at the positions.
            mask: float32, added to the scores after broadcasting to (b, heads, length, length).
        """
        batch, length, width = tokens.shape
        parts = self.attend(tokens).reshape(batch, length, 3, self.heads, -1)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2)
        scores *= np.float32((width // self.heads) ** -0.5)
        scores += mask
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        seen = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        return self.attended(seen)

    def feed_forward(self, tokens: Float32) -> Float32:
        """Apply the feed-forward network to float32 (b, length, width)."""
        return self.narrow(self.activate(self.widen(tokens)))


def gelu(inner: Float32) -> Float32:
    """Multiply by the normal distribution function, with an error below 1.5e-7.

    Formula 7.1.26 of M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 1964.
    """
    size = np.abs(inner)
    size *= np.float32(2**-0.5)
    step = 1 / (1 + np.float32(0.3275911) * size)
    tail = np.full_like(step, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail *= step
        tail += np.float32(factor)
    tail *= step
    tail *= np.exp(-np.square(size))
    # erf(-x) = -erf(x)
    return inner * np.where(inner < 0, tail, 2 - tail) * np.float32(0.5)


def quick_gelu(inner: Float32) -> Float32:
    """Multiply by the logistic function of 1.702 times the value, as in the first CLIP models."""
    with np.errstate(over="ignore"):  # 1 / infinity is 0, the correct limit
        out: Float32 = inner / (1 + np.exp(np.float32(-1.702) * inner))
    return out
