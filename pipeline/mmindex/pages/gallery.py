"""An answer as one HTML file, see :mod:`mmindex.pages.page`.

Texts are isolated from each other's writing direction (``<bdi>``); no local path is on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmindex.core.display import score_text
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.core.resources import user_path
from mmindex.pages.page import Thumb, render, shown_model, thumb
from mmindex.search.hits import captions_of
from mmindex.search.parts import Part
from mmindex.search.query import Answer
from mmindex.search.vectorize import warning_about
from mmindex.store.snapshot import Snapshot

# What a card shows of texts without end.
_MAX_CAPTIONS = 5
_MAX_CHARACTERS = 400
# What a notebook keeps of an answer in its file: some 8 KB a picture.
_MAX_SHOWN = 50
_SMALL_PIXELS = 256


class ShownHit(Protocol):
    """What a notebook shows of a hit."""

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


@dataclass(frozen=True, slots=True)
class Card:
    """One hit as the page shows it."""

    hit: Hit
    score: str
    share: float  # of the best score, in percent: the length of the bar
    thumb: Thumb
    found: str | None  # the caption that is the hit, when captions were searched
    captions: Sequence[str]
    more: int  # captions not shown


def gallery_page(snapshot: Snapshot, answer: Answer) -> str:
    """The HTML page of an answer.

    A picture that is gone or cannot be decoded is shown as a placeholder with the reason.

    Raises:
        DataError: the store's tables are damaged.
    """
    return render(
        "gallery.html",
        ["gallery.css"],
        answer=answer,
        title=_title(answer),
        noun=_noun(answer),
        picture=thumb(answer.picture) if answer.picture is not None else None,
        cards=_cards(snapshot, answer),
        model=shown_model(snapshot.encoder),
        warning=warning_about(snapshot),
        manifest=snapshot.manifest,
    )


def hits_fragment(hits: Sequence[ShownHit], query: str) -> str:
    """Hits as a piece of HTML for a notebook: at most ``_MAX_SHOWN`` small pictures."""
    shown = [
        (hit, thumb(hit.uri, _SMALL_PIXELS), _shortened(hit.caption or hit.id))
        for hit in hits[:_MAX_SHOWN]
    ]
    more = len(hits) - len(shown)
    return render("hits.html", [], query=_shortened(query), shown=shown, more=more)


def _title(answer: Answer) -> str:
    """The question; a picture alone that was named by its path goes by its file's name."""
    path = answer.query if answer.picture is not None else ""
    if path and answer.picture in (path, str(user_path(path))):
        return Part(Modality.IMAGE, path).title
    return answer.query


def _cards(snapshot: Snapshot, answer: Answer) -> list[Card]:
    captions: dict[str, list[str]] = {}
    if answer.to is Modality.IMAGE:
        images = [hit.image_id for hit in answer.hits]
        captions = captions_of(snapshot, images)
    best = max((hit.score for hit in answer.hits), default=0.0)
    return [_card(hit, best, captions.get(hit.image_id, [])) for hit in answer.hits]


def _card(hit: Hit, best: float, captions: Sequence[str]) -> Card:
    return Card(
        hit=hit,
        score=score_text(hit.score),
        share=round(100 * max(0.0, hit.score) / best, 1) if best > 0 else 0.0,
        thumb=thumb(hit.uri),
        found=None if hit.caption is None else _shortened(hit.caption),
        captions=[_shortened(text) for text in captions[:_MAX_CAPTIONS]],
        more=max(0, len(captions) - _MAX_CAPTIONS),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"


def _noun(answer: Answer) -> str:
    noun = "image" if answer.to is Modality.IMAGE else "caption"
    return noun if len(answer.hits) == 1 else f"{noun}s"
