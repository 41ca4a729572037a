"""The best recall that any model can reach on scenes, from what captions actually assert."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb
from typing import Final

from mmindex.core.errors import UsageError
from mmindex.scenes.captions import captions
from mmindex.scenes.claims import Claim, fits
from mmindex.scenes.scene import Scene, make_scene

CUTOFFS: Final = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Recalls:
    """Recall at 1, 5 and 10, in percent."""

    at_1: float
    at_5: float
    at_10: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The recall of the best possible model on a gallery of scenes, five captions each.

    A caption that fits n images finds its own among the top K with probability min(1, K/n). For an
    image, a model that only knows which captions fit it ranks these at random
    (`image_to_text_blind`, hypergeometric); one that also prefers captions that fit fewer images
    does better (`image_to_text`, the ceiling).
    """

    images: int
    captions: int
    ambiguous_captions: int
    mean_fits: float
    text_to_image: Recalls
    image_to_text: Recalls
    image_to_text_blind: Recalls


def ceiling(seed: int, count: int, first: int = 0) -> Ceiling:
    """Return the ceiling of scenes `first` to `first + count - 1`; 1,000 take a few seconds."""
    return ceiling_of(make_scene(seed, number) for number in range(first, first + count))


def ceiling_of(scenes: Iterable[Scene]) -> Ceiling:
    """Return the ceiling of any gallery of scenes. Raises UsageError if it is empty."""
    gallery = tuple(scenes)
    if not gallery:
        raise UsageError("the ceiling of no scenes is not defined", "give at least one scene")
    owned = [caption.claim for scene in gallery for caption in captions(scene)]
    each = len(owned) // len(gallery)
    matches = matching_scenes(owned, gallery)
    fitting: list[list[int]] = [[] for _ in gallery]
    for caption, rows in enumerate(matches):
        for row in rows:
            fitting[row].append(caption)
    sizes = [len(rows) for rows in matches]
    blind, informed = [], []
    for row, numbers in enumerate(fitting):
        own = range(row * each, (row + 1) * each)
        classes = [(sizes[number], number in own) for number in numbers]
        informed.append([_some_own(classes, k) for k in CUTOFFS])
        blind.append([_some_own([(0, is_own) for _, is_own in classes], k) for k in CUTOFFS])
    return Ceiling(
        images=len(gallery),
        captions=len(owned),
        ambiguous_captions=sum(size > 1 for size in sizes),
        mean_fits=sum(sizes) / len(sizes),
        text_to_image=_mean([[min(1.0, k / size) for k in CUTOFFS] for size in sizes]),
        image_to_text=_mean(informed),
        image_to_text_blind=_mean(blind),
    )


def matching_scenes(claims: Iterable[Claim], gallery: tuple[Scene, ...]) -> list[list[int]]:
    """Return for each claim the rows of `gallery` that it fits, ascending.

    Rows with all named kinds and colours are found by intersecting sets first, so that only a few
    rows per claim are checked in full.
    """
    postings: dict[tuple[str, str | None], set[int]] = {}
    for row, scene in enumerate(gallery):
        for thing in scene.things:
            for colour in (thing.colour, None):
                postings.setdefault((thing.kind, colour), set()).add(row)
    found = []
    for claim in claims:
        named = [postings.get((one.kind, one.colour), set()) for one in claim.objects]
        rows = set.intersection(*named) if named else range(len(gallery))
        found.append(sorted(row for row in rows if fits(claim, gallery[row])))
    return found


def _some_own(classes: list[tuple[int, bool]], top: int) -> float:
    """Return the chance of an own caption in the top `top`: lower classes first, ties at random."""
    room = top
    for level in sorted({size for size, _ in classes}):
        tied = [is_own for size, is_own in classes if size == level]
        own = sum(tied)
        if len(tied) < room and not own:
            room -= len(tied)
            continue
        taken = min(room, len(tied))
        return 1.0 - comb(len(tied) - own, taken) / comb(len(tied), taken)
    return 0.0


def _mean(rows: list[list[float]]) -> Recalls:
    at_1, at_5, at_10 = (100.0 * sum(column) / len(rows) for column in zip(*rows, strict=True))
    return Recalls(at_1, at_5, at_10)
