"""What a query is made of: texts and pictures, wanted or not, with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.core.resources import is_file
from mmindex.search.hits import find_picture
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

_TEXT, _IMAGE = "text:", "image:"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A text, or a picture.

    Attributes:
        kind: which of the two.
        value: the text; of a picture its file, or the uri or id of an image of the corpus.
        given: the picture itself (RGB), or a vector (float32 (dim,), unit length); ``value`` is
            only its title then.
    """

    kind: Modality
    value: str
    given: Image | NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def is_opened(self) -> bool:
        """Whether it is a picture in memory."""
        return self.given is not None and not isinstance(self.given, np.ndarray)

    @property
    def title(self) -> str:
        """A text or an id as it is; of a file its name alone, for pages that travel."""
        local = self.kind is Modality.IMAGE and self.given is None and _is_local(self.value)
        return self.value.rpartition("/")[2] if local else self.value


@dataclass(frozen=True, slots=True)
class Question:
    """A query of several parts.

    Attributes:
        wanted: at least one.
        unwanted: what hits should be far from.
        weights: one for each part, wanted ones first, or one for each wanted part; None: the
            defaults of :mod:`mmindex.search.fusion`.
        others: leave out the wanted pictures themselves ("more like these").
    """

    wanted: tuple[Part, ...]
    unwanted: tuple[Part, ...] = ()
    weights: tuple[float, ...] | None = None
    others: bool = False

    @property
    def plain(self) -> Part | None:
        """The one part that a plain query has; None for a composed one."""
        composed = len(self.wanted) != 1 or self.unwanted or self.others
        return None if composed else self.wanted[0]

    @property
    def title(self) -> str:
        """The question in one line: ``at night + beach.jpg - people``; no folders of pictures."""
        minus = "".join(f" - {part.title}" for part in self.unwanted[:_SHOWN])
        more = len(self.unwanted) - _SHOWN
        return _listed(self.wanted) + minus + (f" - {more} more" if more > 0 else "")

    @property
    def is_picture(self) -> bool:
        """Whether it is one picture and nothing else; a vector is none."""
        alone = self.plain
        return (
            alone is not None
            and alone.kind is Modality.IMAGE
            and not isinstance(alone.given, np.ndarray)
        )


def _listed(parts: Sequence[Part]) -> str:
    shown = " + ".join(part.title for part in parts[:_SHOWN])
    return shown + (f" + {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")


def read_part(text: str, snapshot: Snapshot) -> Part:
    """Tell whether a part is a text or a picture.

    An existing file, and an id or uri of the corpus, is a picture; everything else is a text.
    ``text:`` or ``image:`` in front says so in so many words.

    Raises:
        UsageError: there is nothing.
    """
    if text.startswith((_TEXT, _IMAGE)):
        kind, _, value = text.partition(":")
        part = Part(Modality(kind), value)
    else:
        part = Part(Modality.IMAGE if _is_picture(text, snapshot) else Modality.TEXT, text)
    if not part.value.strip():
        raise UsageError(
            "a part of the query is empty", "pass a text or a file to `plus` and `minus`"
        )
    return part


def _is_picture(text: str, snapshot: Snapshot) -> bool:
    if "\0" in text:
        return False
    if is_file(text):
        return True
    # Ids and uris all hold a slash; looking one up reads a column of the corpus.
    return "/" in text and any(
        find_picture(snapshot, column, text) is not None for column in ("image_id", "uri")
    )


def _is_local(where: str) -> bool:
    """Whether a picture is named by where it lies on this machine, not by an id."""
    return where.startswith(("/", "~", "file://")) or is_file(where)
