"""The hits of a query as one HTML file, see :mod:`mmindex.pages.page`.

Texts are isolated from the writing direction of others (``<bdi>``). The page contains no local
paths, only names relative to it, see :mod:`mmindex.pages.places`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmindex.core.display import probability_text, score_text
from mmindex.core.modality import Modality
from mmindex.core.records import Hit, all_weak
from mmindex.core.resources import user_path
from mmindex.pages.page import Thumb, render, shown_model, thumb
from mmindex.pages.places import Place, place_of
from mmindex.pages.scale import full_of, share
from mmindex.search.hits import captions_of, find_images
from mmindex.search.parts import Part
from mmindex.search.query import Answer
from mmindex.search.vectorize import warning_about
from mmindex.store.snapshot import Snapshot

# The most characters of a text that a card shows.
_MAX_CAPTIONS = 5
_MAX_CHARACTERS = 400
# The most images that a notebook saves in its file, with about 8 KB each.
_MAX_SHOWN = 50
_SMALL_PIXELS = 256


class ShownHit(Protocol):
    """A hit in a notebook."""

    @property
    def rank(self) -> int: ...  # noqa: D102 # as in :class:`mmindex.core.records.Hit`
    @property
    def score(self) -> float: ...  # noqa: D102
    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def uri(self) -> str: ...  # noqa: D102
    @property
    def caption(self) -> str | None: ...  # noqa: D102
    @property
    def weak(self) -> bool | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of a query, and the file of its page.

    Attributes:
        min_score: the lowest score, or None.
        where: the condition, or None.
        page: the file of the page, for links to images; None: no links.
        good: whether weak hits were left out.
    """

    min_score: float | None = None
    where: str | None = None
    page: Path | None = None
    good: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """A hit on the page, with the hits that have the same content.

    Attributes:
        share: the length of the score bar, in percent; None for no bar.
        alt: the alternative text: a caption, or the file name.
        found: the caption, if captions were searched.
        more: the number of captions that are not shown.
        copies: ids of the other hits with the same bytes, or the same text.
        alike: ids of other hits that are near-duplicates, and their copies.
        hidden: the number of near-duplicates that were left out of the answer.
        probability: the probability that the hit is right, as a text; empty if it is not known.
        weak: whether the hit is weak.
    """

    rank: int
    id: str
    place: Place
    thumb: Thumb
    alt: str
    score: str
    share: float | None
    found: str | None
    captions: Sequence[str]
    more: int
    copies: Sequence[str]
    alike: Sequence[str] = ()
    hidden: int = 0
    probability: str = ""
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """The reasons for an empty result, and advice."""

    reasons: tuple[str, ...]
    advice: tuple[str, ...]


def gallery_page(snapshot: Snapshot, answer: Answer, request: Request | None = None) -> str:
    """Return the HTML page of a result.

    A missing or damaged image is shown as a placeholder with the reason.

    Raises:
        DataError: the store's tables are damaged.
    """
    request = request or Request()
    asked = Modality.TEXT if answer.image is None else Modality.IMAGE
    full = full_of(snapshot.encoder, asked, answer)
    shown = cards(snapshot, answer, full, _linked(request.page))
    return render(
        "gallery.html",
        ["base.css", "cards.css"],
        answer=answer,
        request=request,
        title=_title(answer),
        found=found_text(answer, shown),
        all_weak=all_weak(answer.hits),
        image=thumb(answer.image) if answer.image is not None else None,
        cards=shown,
        full=full,
        nothing=None if shown else nothing(snapshot, request),
        model=shown_model(snapshot.encoder),
        warnings=[warning_about(snapshot)],
        manifest=snapshot.manifest,
    )


def hits_fragment(hits: Sequence[ShownHit], query: str) -> str:
    """Return hits as an HTML fragment for a notebook, with at most ``_MAX_SHOWN`` thumbnails."""
    shown = [
        (
            hit,
            thumb(hit.uri, _SMALL_PIXELS),
            place_of(hit.uri, hit.id).name,
            _shortened(hit.caption or hit.id),
        )
        for hit in hits[:_MAX_SHOWN]
    ]
    more = len(hits) - len(shown)
    return render("hits.html", [], query=_shortened(query), shown=shown, more=more)


def _title(answer: Answer) -> str:
    """Return the query as title; for a single image with a path, only the file name."""
    path = answer.query if answer.image is not None else ""
    if path and answer.image in (path, str(user_path(path))):
        return Part(Modality.IMAGE, path).title
    return answer.query


def cards(
    snapshot: Snapshot,
    answer: Answer,
    full: float | None,
    show: Callable[[Hit], tuple[Place, Thumb]],
    leaders: Callable[[Sequence[str]], Sequence[str]] = lambda keys: keys,
) -> list[Card]:
    """Return the cards of a result: hits with the same content share one.

    Args:
        snapshot: the version.
        answer: the hits.
        full: the score of a full bar; None for no bars.
        show: returns the place and the thumbnail of a hit.
        leaders: the key whose card an image shares, by key, see
            :func:`mmindex.insight.dedup.near_leaders`.
    """
    found = _stacks(snapshot, answer)
    captions: dict[str, list[str]] = {}
    together: Sequence[str] = list(found)
    if answer.to is Modality.IMAGE:
        captions = captions_of(snapshot, [stack[0].image_id for stack in found.values()])
        together = leaders(together)
    groups: dict[str, list[str]] = {}
    for key, leader in zip(found, together, strict=True):
        groups.setdefault(leader, []).append(key)
    drawn = []
    for leader, (_, *others) in groups.items():
        stack, near = found[leader], [hit for key in others for hit in found[key]]
        drawn.append(_card(stack, near, captions.get(stack[0].image_id, []), full, show))
    return drawn


def _linked(page: Path | None) -> Callable[[Hit], tuple[Place, Thumb]]:
    """Return a hit with an embedded thumbnail and a link to its file."""

    def show(hit: Hit) -> tuple[Place, Thumb]:
        image = thumb(hit.uri)
        return place_of(hit.uri, hit.image_id, None if image.missing else page), image

    return show


def _stacks(snapshot: Snapshot, answer: Answer) -> dict[str, list[Hit]]:
    """Group hits with the same bytes (for captions, the same text), ordered by the best hit."""
    keys: dict[str, str] = {}
    if answer.to is Modality.IMAGE:
        found = find_images(snapshot, "image_id", {hit.image_id for hit in answer.hits})
        keys = {image_id: image.key for image_id, image in found.items()}
    stacks: dict[str, list[Hit]] = {}
    for hit in answer.hits:
        same = keys[hit.image_id] if hit.caption is None else hit.caption
        stacks.setdefault(same, []).append(hit)
    return stacks


def _card(
    stack: Sequence[Hit],
    near: Sequence[Hit],
    captions: Sequence[str],
    full: float | None,
    show: Callable[[Hit], tuple[Place, Thumb]],
) -> Card:
    hit = stack[0]
    place, image = show(hit)
    said = hit.caption if hit.caption is not None else next(iter(captions), "")
    return Card(
        rank=hit.rank,
        id=hit.id,
        place=place,
        thumb=image,
        alt=_shortened(said if said.strip() else place.name),
        score=score_text(hit.score),
        share=share(hit.score, full),
        found=None if hit.caption is None else _shortened(hit.caption),
        captions=[_shortened(text) for text in captions[:_MAX_CAPTIONS]],
        more=max(0, len(captions) - _MAX_CAPTIONS),
        copies=[other.id for other in stack[1:]],
        alike=[other.id for other in near],
        hidden=hit.copies or 0,
        probability="" if hit.probability is None else probability_text(hit.probability),
        weak=bool(hit.weak),
    )


def nothing(snapshot: Snapshot, request: Request, left: int | None = None) -> Nothing:
    """Explain an empty result.

    Args:
        snapshot: the version.
        request: the arguments of the query.
        left: the number of images that match the condition; None if not counted yet.
    """
    reasons, advice = [], []
    if request.where is not None:
        from mmindex.search.filters import select_images  # only if needed: DuckDB

        if left is None:
            left = int(select_images(snapshot, request.where).sum())
        of = f"{left:,} of {snapshot.manifest.counts.indexed:,} images"
        reasons.append(f"The condition {_shortened(request.where)!r} is true for {of}.")
        advice.append("Remove the condition, or use one that matches more images.")
    if request.good:
        reasons.append("No hit is better than those of queries without an answer.")
        advice.append("To see the best hits anyway, include weak hits.")
    if request.min_score is not None:
        reasons.append(f"No hit has a score of {request.min_score:g} or more.")
        advice.append("Lower or remove the score limit to see the scores of the best hits.")
    return Nothing(tuple(reasons), (*advice, "Use other words, or search with an image."))


def found_text(answer: Answer, cards: Sequence[Card]) -> str:
    """Return a count such as ``12 images``, or ``10 different images in 12 files``."""
    count, different = len(answer.hits), len(cards)
    noun = "image" if answer.to is Modality.IMAGE else "caption"
    plural = "" if different == 1 else "s"
    if count == different:
        return f"{count:,} {noun}{plural}"
    kind = "files" if answer.to is Modality.IMAGE else "places"
    return f"{different:,} different {noun}{plural} in {count:,} {kind}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
