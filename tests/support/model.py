"""The expected content and answers of a store, computed without its code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import Snapshot
from support.corpora import jpeg
from support.models import FakeEncoder
from support.stores import encode_files, key_of

Images = dict[str, int]  # number of the drawing by file name
_TIE = 2e-3  # rounding of float16 vectors: closer scores can change places


@cache
def key(number: int) -> str:
    return key_of(jpeg(number))


@cache
def vector(number: int) -> NDArray[np.float32]:
    (found,) = encode_files(FakeEncoder(), [jpeg(number)])
    return found.astype(np.float16).astype(np.float32)


@cache
def questions() -> NDArray[np.float32]:
    return FakeEncoder().encode_texts(["a red square", "green", "something blue", "white", "black"])


@dataclass(slots=True)
class Version:
    """A published version: the folder at that time, and what had been forgotten by then."""

    seen: Images
    forgotten: frozenset[str]
    blank: frozenset[int]
    created_days: float

    @property
    def images(self) -> Images:
        """Return the images that can be found in it."""
        return visible(self.seen, self.forgotten, self.blank)


def visible(seen: Images, names: frozenset[str], numbers: frozenset[int]) -> Images:
    """Return the images without those whose name or content was forgotten."""
    return {
        name: number for name, number in seen.items() if name not in names and number not in numbers
    }


@dataclass(slots=True)
class Books:
    """All versions that can exist, by number, and those that must exist."""

    versions: dict[int, Version] = field(default_factory=dict)
    current: int = 0
    floor: int = 1
    forgotten: frozenset[str] = frozenset()
    blank: frozenset[int] = frozenset()

    def staying(self, today: float, held: set[int], keep: int = 3, days: float = 7.0) -> set[int]:
        """Return the versions that gc keeps."""
        committed = sorted(n for n in self.versions if self.floor <= n <= self.current)
        young = {n for n in committed if today - self.versions[n].created_days < days}
        return {*committed[-keep:], *young, *(held & set(self.versions))}

    def publish(self, version: Version) -> None:
        self.current += 1
        self.versions[self.current] = version


def wrong_answers(snapshot: Snapshot, images: Images) -> list[str]:
    """Return the answers of a version that differ from brute force over ``images``."""
    numbers = sorted(set(images.values()))
    searcher = Searcher(snapshot, "image", threads=1)
    if searcher.n != len(numbers):
        return [f"version {snapshot.manifest.version}: {searcher.n} vectors, not {len(numbers)}"]
    k = min(3, len(numbers))
    _, ids = searcher.search(questions(), k)
    return best_keys(images, k).wrong([searcher.keys(row) for row in ids])


@dataclass(frozen=True, slots=True)
class Ranking:
    """The correct order of images for every query."""

    scores: dict[str, NDArray[np.float32]]  # scores of each key, one per query
    best: NDArray[np.float32]

    def wrong(self, answers: list[list[str]]) -> list[str]:
        """Return the answers (keys for each query) that are not the best ones."""
        found = []
        for row, keys in enumerate(answers):
            if len(set(keys)) != self.best.shape[1] or not set(keys) <= self.scores.keys():
                found.append(f"question {row}: {keys}")
                continue
            true = np.array([self.scores[key][row] for key in keys])
            if np.abs(true - self.best[row]).max() > _TIE:
                found.append(f"question {row}: scores {true}, not {self.best[row]}")
        return found


def best_keys(images: Images, k: int) -> Ranking:
    """Return the ``k`` best answers to every query among these images."""
    numbers = sorted(set(images.values()))
    scores = {key(number): questions() @ vector(number) for number in numbers}
    best = -np.sort(-np.stack(list(scores.values()), axis=1), axis=1)[:, :k]
    return Ranking(scores, best)
