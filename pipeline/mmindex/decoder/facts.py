"""The facts that a description of a scene states, compared with the ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mmindex.decoder.scores import words_of
from mmindex.scenes import Scene
from mmindex.scenes.claims import RELATIONS, holds
from mmindex.scenes.vocabulary import COLOURS
from mmindex.scenes.words import (
    COLOUR_WORDS,
    COUNT_WORDS,
    NOUNS,
    RELATION_WORDS,
    SIZE_WORDS,
    WEARERS,
)

Fact = tuple[str, ...]
_Phrases = dict[tuple[str, ...], str]


def _phrases(table: Iterator[tuple[str, str]]) -> _Phrases:
    return {tuple(words.split()): name for words, name in table}


_KINDS: Final = _phrases((w, kind) for kind, nouns in NOUNS.items() for n in nouns for w in n)
_COLOURS: Final = _phrases((w, name) for name in COLOURS for w in COLOUR_WORDS.get(name, (name,)))
_SIZES: Final = _phrases((w, size) for size, words in SIZE_WORDS.items() for w in words)
_COUNTS: Final = _phrases((w, str(n)) for n, words in COUNT_WORDS.items() for w in words)
_RELATIONS: Final = _phrases((w, name) for name, words in RELATION_WORDS.items() for w in words)
_TABLES: Final = {
    "kind": _KINDS,
    "colour": _COLOURS,
    "size": _SIZES,
    "count": _COUNTS,
    "relation": _RELATIONS,
}
# Colours before these words do not belong to things: "a green meadow", "under grey clouds".
_BACKDROPS: Final = ("meadow", "field", "sky", "clouds", "rainbow")
_LONGEST: Final = max(len(phrase) for table in _TABLES.values() for phrase in table)


@dataclass(frozen=True, slots=True)
class Facts:
    """Kinds of things, their attributes, and relations between them."""

    objects: frozenset[Fact]
    attributes: frozenset[Fact]
    relations: frozenset[Fact]


def true_facts(scene: Scene) -> Facts:
    """Return everything that is true of a scene; medium sizes and single things need no words."""
    attributes: set[Fact] = set()
    for thing in scene.things:
        attributes.add((thing.kind, "colour", thing.colour))
        if thing.size != "medium":
            attributes.add((thing.kind, "size", thing.size))
        if thing.count > 1:
            attributes.add((thing.kind, "count", str(thing.count)))
    pairs = [(a, b) for a in scene.things for b in scene.things if a is not b]
    return Facts(
        frozenset((thing.kind,) for thing in scene.things),
        frozenset(attributes),
        frozenset((a.kind, r, b.kind) for a, b in pairs for r in RELATIONS if holds(r, a, b)),
    )


def stated_facts(text: str) -> Facts:
    """Return what a text states about kinds of things that scenes have."""
    objects: set[Fact] = set()
    attributes: set[Fact] = set()
    relations: set[Fact] = set()
    before, held, last, turned = "", list[Fact](), "", False
    for sort, name in _found(words_of(text)):
        if sort == "kind":
            objects.add((name,))
            attributes.update((name, *fact) for fact in held)
            if before and last and name != last:
                relations.add((name, before, last) if turned else (last, before, name))
            before = before if not last else ""  # kept for "left of a tree there is a cat"
            held, last = [], name
        elif sort == "there":
            turned = bool(before and last)
        elif sort == "relation":
            before, turned = name, False
        elif sort == "backdrop":
            before, held = "", []
        elif sort == "worn":
            attributes.add((last, "colour", name))
        else:
            held.append((sort, name))
    return Facts(frozenset(objects), frozenset(attributes), frozenset(relations))


def _found(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the known phrases of a text; a colour after clothes belongs to who wears them."""
    place, wearer, link = 0, False, False
    while place < len(words):
        for length in range(min(_LONGEST, len(words) - place), 0, -1):
            phrase = tuple(words[place : place + length])
            sort = next((sort for sort, table in _TABLES.items() if phrase in table), None)
            if sort is not None:
                name = _TABLES[sort][phrase]
                yield ("worn" if sort == "colour" and wearer and link else sort), name
                wearer, link = sort == "kind" and name in WEARERS, False
                place += length
                break
        else:
            if words[place] in (*_BACKDROPS, "there"):
                yield "backdrop" if words[place] != "there" else "there", words[place]
            link = link or words[place] in ("in", "with", "wearing")
            wearer = wearer and words[place] != "and"
            place += 1


@dataclass(frozen=True, slots=True)
class FactScore:
    """Precision, recall and F1 over all scenes, 0 to 1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def score_facts(texts: Sequence[str], scenes: Sequence[Scene]) -> dict[str, FactScore]:
    """Compare texts with the ground truth: ``objects``, ``attributes`` and ``relations``."""
    stated, true = list(map(stated_facts, texts)), list(map(true_facts, scenes))
    scores = {}
    for name in ("objects", "attributes", "relations"):
        pairs = [(getattr(s, name), getattr(t, name)) for s, t in zip(stated, true, strict=True)]
        right = sum(len(s & t) for s, t in pairs)
        scores[name] = FactScore(
            right / max(1, sum(len(s) for s, _ in pairs)),
            right / max(1, sum(len(t) for _, t in pairs)),
        )
    return scores
