"""Opt-outs in the headers of a response."""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDictProxy

from mmindex.fetch.client import PRODUCT

# "none" is noindex and nofollow together; the noai family is DeviantArt's convention of 2022.
_OPT_OUTS: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# Directives with a colon of their own, which therefore are not names of robots.
_WITH_VALUE: Final = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
_NAMED: Final = re.compile(r"\s*([^:,\s]+)\s*:(.*)", re.DOTALL)


def opt_out(headers: CIMultiDictProxy[str]) -> str | None:
    """Return the header in which the server asks not to be indexed, or None.

    ``X-Robots-Tag`` counts if it is for all robots or for mmindex
    (https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag#xrobotstag);
    ``TDM-Reservation: 1`` is the reservation of the TDM Reservation Protocol
    (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/).
    """
    for value in headers.getall("X-Robots-Tag", ()):
        found = _tag_opt_out(value)
        if found is not None:
            return f"X-Robots-Tag: {found}"
    if headers.get("TDM-Reservation", "").strip() == "1":
        return "TDM-Reservation: 1"
    return None


def _tag_opt_out(value: str) -> str | None:
    """Return the first opt-out for mmindex; a robot's name applies to the end of the value."""
    for_us = True
    for part in value.split(","):
        named = _NAMED.fullmatch(part)
        if named and named[1].lower() not in _WITH_VALUE:
            for_us = named[1].lower() in (PRODUCT, "*")
            part = named[2]  # noqa: PLW2901  # the directive behind the name
        if for_us and part.strip().lower() in _OPT_OUTS:
            return part.strip().lower()
    return None
