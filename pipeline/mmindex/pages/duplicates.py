"""Near-duplicate groups as one HTML file, see :mod:`mmindex.pages.page`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mmindex.core.display import score_text
from mmindex.insight.dedup import Group, KeptFor, Member
from mmindex.pages.page import Renderer, Thumb, render, shown_model, thumb
from mmindex.pages.places import Place, folder_of, place_of
from mmindex.search.vectorize import warning_about
from mmindex.store.snapshot import Snapshot

# Each image adds about 30 KB to the page.
_MOST_IMAGES: Final = 1_000
_MOST_IN_A_GROUP: Final = 40
_MOST_FOLDERS: Final = 15
_COPIES: Final = "Exact copies: keep the first one in the corpus."
_WHY: Final = {
    KeptFor.PIXELS: "Keep the first: it has the most pixels.",
    KeptFor.BYTES: "Keep the first: no other image has more pixels, and its file is the largest.",
    KeptFor.ORDER: "Keep the first: no other image is larger, and it is first in the corpus.",
}


@dataclass(frozen=True, slots=True)
class Card:
    """An image on the page; ``likeness``: its similarity with the image to keep."""

    member: Member
    place: Place
    thumb: Thumb
    likeness: str


@dataclass(frozen=True, slots=True)
class Section:
    """A group on the page; ``why``: why the first image is the one to keep."""

    number: int
    size: int
    spare_bytes: int
    why: str
    cards: Sequence[Card]


@dataclass(frozen=True, slots=True)
class Folder:
    """The images to delete in a folder."""

    name: str
    images: int
    spare_bytes: int


def dedup_page(
    snapshot: Snapshot,
    groups: Sequence[Group],
    threshold: float,
    page: Path | None = None,
    *,
    render: Renderer = render,
    link: Callable[[str], str] | None = None,
) -> str:
    """Return the HTML page of the groups; it states how many groups it leaves out.

    Args:
        snapshot: the version.
        groups: its near-duplicates, in the order of the page.
        threshold: the lowest similarity of linked pairs.
        page: the file of the page, for links to images; None: no links.
        render: renders the page, with a frame of its own.
        link: returns the URL of the image with an id, to replace the link to its file.
    """
    sections: list[Section] = []
    room = _MOST_IMAGES
    for number, group in enumerate(groups, start=1):
        shown = group.members[: min(_MOST_IN_A_GROUP, room)]
        if not shown:
            break
        room -= len(shown)
        cards = [_card(member, page, link) for member in shown]
        copies = all(member.same for member in group.members)
        why = _COPIES if copies else _WHY[group.kept_for]
        sections.append(Section(number, len(group.members), group.spare_bytes, why, cards))
    folders = _folders(groups)
    return render(
        "duplicates.html",
        ["base.css", "cards.css", "tables.css", "duplicates.css"],
        sections=sections,
        groups=len(groups),
        images=sum(len(group.members) for group in groups),
        spare_bytes=sum(group.spare_bytes for group in groups),
        folders=folders[:_MOST_FOLDERS],
        more_folders=folders[_MOST_FOLDERS:],
        threshold=threshold,
        model=shown_model(snapshot.encoder),
        warnings=[warning_about(snapshot)],
        manifest=snapshot.manifest,
    )


def _card(member: Member, page: Path | None, link: Callable[[str], str] | None) -> Card:
    image = thumb(member.uri)
    place = place_of(member.uri, member.image_id, None if image.missing else page)
    if link is not None:
        place = replace(place, href=link(member.image_id))
    likeness = "exact copy" if member.same else f"similarity {score_text(member.similarity)}"
    shown = [] if member.keep else [likeness]
    if member.across is not None:
        shown.append(member.across)
    return Card(member, place, image, " · ".join(shown))


def _folders(groups: Iterable[Group]) -> list[Folder]:
    """Return the folders of the images to delete; those that free the most bytes come first."""
    images: Counter[str] = Counter()
    spare: Counter[str] = Counter()
    for group in groups:
        for member in group.members:
            if not member.keep:
                folder = folder_of(member.image_id)
                images[folder] += 1
                spare[folder] += member.size_bytes
    return [Folder(name, images[name], size) for name, size in spare.most_common()]
