"""Parts of pages with forms: fields, pagers, and the facts of an image.

The macros in ``controls.html`` draw them with ``controls.css``. They work without scripts: forms
use GET, so that every view has a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form.

    Attributes:
        name: the name of the parameter.
        label: the visible label.
        value: the current value, or empty.
        kind: the type of the input.
        choices: for ``select``, values with their labels.
        hint: an example, or the allowed values.
    """

    name: str
    label: str
    value: str = ""
    kind: Literal["text", "number", "date", "select"] = "text"
    choices: Sequence[tuple[str, str]] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Pager:
    """The position in a list, and links to its other parts; an empty link is not shown.

    Attributes:
        first, last: positions of the shown items, from 1.
        total: the number of items; None if unknown.
    """

    first: int
    last: int
    total: int | None
    previous: str
    following: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about an image; ``href``: the link of its value."""

    label: str
    value: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """A link for an action with an image."""

    label: str
    href: str


def pager(
    offset: int, shown: int, size: int, total: int | None, address: Callable[[int], str]
) -> Pager:
    """Return the pager of a list that is shown in parts.

    Args:
        offset: the number of items before the shown ones.
        shown: the number of shown items.
        size: the number of items per page.
        total: the number of items; None if unknown: a full page then has a next page.
        address: returns the URL of the page with an offset.
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
