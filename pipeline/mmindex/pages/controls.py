"""What pages with forms are made of: fields, pages of hits, and the facts of one image.

The macros of ``controls.html`` draw them; ``controls.css`` belongs to them. They work without
scripts: forms are sent with GET, so that every view has an address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form.

    Attributes:
        name: of the parameter.
        label: what people read.
        value: what it holds now; empty: nothing.
        kind: of the input.
        choices: for ``select``: values with their labels.
        hint: an example, or what can be written here.
    """

    name: str
    label: str
    value: str = ""
    kind: Literal["text", "number", "date", "select"] = "text"
    choices: Sequence[tuple[str, str]] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Pager:
    """Where one is in a list, and the way to its other parts; no address, no way.

    Attributes:
        first, last: positions of what is shown, from 1.
        total: how many there are; None: not known.
    """

    first: int
    last: int
    total: int | None
    previous: str
    following: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One line about an image; ``href``: where its value leads."""

    label: str
    value: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """A link that does something with an image."""

    label: str
    href: str


def pager(
    offset: int, shown: int, size: int, total: int | None, address: Callable[[int], str]
) -> Pager:
    """The pager of a list that is shown in parts.

    Args:
        offset: how many come before what is shown.
        shown: how many are shown.
        size: how many fit on a page.
        total: how many there are; None: not known, then a full page has another behind it.
        address: of the page with an offset.
    """
    last = offset + shown
    more = shown == size if total is None else last < total
    return Pager(
        first=offset + 1 if shown else offset,
        last=last,
        total=total,
        previous=address(max(0, offset - size)) if offset else "",
        following=address(last) if more and shown else "",
    )
