"""Near-duplicate groups as one HTML file, see :mod:`mmindex.pages.page`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mmindex.insight.dedup import Group, Member
from mmindex.pages.page import Thumb, render, shown_model, thumb
from mmindex.search.vectorize import warning_about
from mmindex.store.snapshot import Snapshot

# Each picture is some 30 KB of the page.
_MOST_PICTURES: Final = 1_000
_MOST_IN_A_GROUP: Final = 40


@dataclass(frozen=True, slots=True)
class Card:
    """One image as the page shows it."""

    member: Member
    thumb: Thumb


@dataclass(frozen=True, slots=True)
class Section:
    """One group as the page shows it."""

    number: int
    size: int
    spare_bytes: int
    cards: Sequence[Card]


def dedup_page(snapshot: Snapshot, groups: Sequence[Group], threshold: float) -> str:
    """The HTML page of all groups, as far as a page can hold them; it says what it leaves out."""
    sections: list[Section] = []
    room = _MOST_PICTURES
    for number, group in enumerate(groups, start=1):
        shown = group.members[: min(_MOST_IN_A_GROUP, room)]
        if not shown:
            break
        room -= len(shown)
        cards = [Card(member, thumb(member.uri)) for member in shown]
        sections.append(Section(number, len(group.members), group.spare_bytes, cards))
    return render(
        "duplicates.html",
        ["gallery.css", "duplicates.css"],
        sections=sections,
        groups=len(groups),
        images=sum(len(group.members) for group in groups),
        spare_bytes=sum(group.spare_bytes for group in groups),
        threshold=threshold,
        model=shown_model(snapshot.encoder),
        warning=warning_about(snapshot),
        manifest=snapshot.manifest,
    )
