"""Positions of marks in charts, in percent of the width and height of the plot.

With percentages, a chart fits any screen without scaling its text; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# The first three bins add up to recall@1, 5 and 10.
_BINS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 1_000), (1_001, None))
_STEPS = (1, 2, 5)
_MOST_TICKS = 6


@dataclass(frozen=True, slots=True)
class Bin:
    """Ranks from ``first`` to ``last`` (None: open end), with query count and share in percent."""

    first: int
    last: int | None
    count: int
    share: float
    up_to_here: float

    @property
    def label(self) -> str:
        """Such as ``1``, ``2–5``, ``over 1,000``."""
        if self.last is None:
            return f"over {self.first - 1:,}"
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,}–{self.last:,}"


def rank_bins(ranks: Int64, gallery: int) -> tuple[Bin, ...]:
    """Count the queries by the rank of the correct answer.

    Args:
        ranks: int64 (q,), q > 0, from 1.
        gallery: number of searched rows; bins beyond are left out.
    """
    bins = []
    for first, last in _BINS:
        if first > max(gallery, 10):
            break
        inside = ranks >= first if last is None else (ranks >= first) & (ranks <= last)
        below = np.count_nonzero(ranks <= last) if last is not None else len(ranks)
        count = int(np.count_nonzero(inside))
        share = 100.0 * count / len(ranks)
        bins.append(Bin(first, last, count, share, 100.0 * int(below) / len(ranks)))
    return tuple(bins)


@dataclass(frozen=True, slots=True)
class Tick:
    """A value on an axis and its position."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in a chart and its label."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to percent of a length; ``log``: logarithmic, ``flip``: reversed."""

    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool = False
    flip: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value, 0 to 100."""
        return _place(value, self.low, self.high, log=self.log, flip=self.flip)


def _place(value: float, low: float, high: float, *, log: bool, flip: bool) -> float:
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    share = 50.0 if high == low else 100.0 * (value - low) / (high - low)
    return round(100.0 - share if flip else share, 3)


def log_axis(values: Sequence[float]) -> Axis:
    """Return an axis for positive values, with ticks at 1, 2 or 5 times a power of ten."""
    low, high = _rounded_down(min(values)), _rounded_up(max(values))
    if low == high:
        low, high = low / 2, high * 2
    marks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in _STEPS
    ]
    inside = [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]
    if len(inside) > _MOST_TICKS:
        inside = inside[:: math.ceil(len(inside) / _MOST_TICKS)]
    place = [_place(mark, low, high, log=True, flip=False) for mark in inside]
    ticks = (Tick(at, compact(mark)) for at, mark in zip(place, inside, strict=True))
    return Axis(low, high, tuple(ticks), log=True)


def _rounded_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in _STEPS if step * power <= value * 1.0001)


def _rounded_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(step * power for step in (*_STEPS, 10) if step * power >= value * 0.9999)


def percent_axis(values: Sequence[float]) -> Axis:
    """Return a vertical axis for percentages, rounded, within 0 and 100."""
    spread = max(max(values) - min(values), 2.0)
    step = next(step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 25.0) if spread / step <= 4)
    low = max(0.0, math.floor(min(values) / step) * step)
    high = min(100.0, math.ceil(max(values) / step) * step)
    if high - low < 2 * step:
        low = max(0.0, high - 2 * step)
        high = min(100.0, low + 2 * step)
    marks = [low + step * number for number in range(round((high - low) / step) + 1)]
    place = [_place(mark, low, high, log=False, flip=True) for mark in marks]
    ticks = (Tick(at, f"{mark:g} %") for at, mark in zip(place, marks, strict=True))
    return Axis(low, high, tuple(ticks), flip=True)


def compact(value: float) -> str:
    """Return a number in short form: ``850``, ``12k``, ``1.5M``."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
