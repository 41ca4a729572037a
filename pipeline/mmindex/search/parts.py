"""The parts of a query: wanted and unwanted texts and images, with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.core.resources import is_file
from mmindex.search.hits import find_image
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

_TEXT, _IMAGE = "text:", "image:"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A text, or an image.

    Attributes:
        kind: the kind of the part.
        value: the text; for an image its file, or the uri or id of an image in the corpus.
        given: the image itself (RGB), or a vector (float32 (dim,), unit length); ``value`` is then
            only its title.
    """

    kind: Modality
    value: str
    given: Image | NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def is_opened(self) -> bool:
        """Whether the part is an image in memory."""
        return self.given is not None and not isinstance(self.given, np.ndarray)

    @property
    def title(self) -> str:
        """The text or id; for a file only its name, because pages can be shared."""
        local = self.kind is Modality.IMAGE and self.given is None and _is_local(self.value)
        return self.value.rpartition("/")[2] if local else self.value


@dataclass(frozen=True, slots=True)
class Question:
    """A query of several parts.

    Attributes:
        wanted: at least one.
        unwanted: parts to subtract.
        weights: one for each part, wanted parts first, or one for each wanted part; None for the
            defaults of :mod:`mmindex.search.fusion`.
        others: leave out the query images.
        words: a text whose words also rank the images (hybrid search); None: only vectors do.
    """

    wanted: tuple[Part, ...]
    unwanted: tuple[Part, ...] = ()
    weights: tuple[float, ...] | None = None
    others: bool = False
    words: str | None = None

    @property
    def plain(self) -> Part | None:
        """The part of a plain query; None for a composed query."""
        composed = len(self.wanted) != 1 or self.unwanted or self.others or self.words is not None
        return None if composed else self.wanted[0]

    @property
    def title(self) -> str:
        """The query in one line, without folders: ``at night + beach.jpg - people``."""
        minus = "".join(f" - {part.title}" for part in self.unwanted[:_SHOWN])
        more = len(self.unwanted) - _SHOWN
        return _listed(self.wanted) + minus + (f" - {more} more" if more > 0 else "")

    @property
    def is_image(self) -> bool:
        """Whether the query is a single image; a vector is not an image."""
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
    """Decide whether a part is a text or an image.

    An existing file, or an id or uri in the corpus, is an image; anything else is a text. The
    prefix ``text:`` or ``image:`` overrides this.

    Raises:
        UsageError: the part is empty.
    """
    if text.startswith((_TEXT, _IMAGE)):
        kind, _, value = text.partition(":")
        part = Part(Modality(kind), value)
    else:
        part = Part(Modality.IMAGE if _is_image(text, snapshot) else Modality.TEXT, text)
    if not part.value.strip():
        raise UsageError(
            "a part of the query is empty", "pass a text or a file to `plus` and `minus`"
        )
    return part


def _is_image(text: str, snapshot: Snapshot) -> bool:
    if "\0" in text:
        return False
    if is_file(text):
        return True
    # All ids and uris contain a slash; looking one up reads a column of the corpus.
    return "/" in text and any(
        find_image(snapshot, column, text) is not None for column in ("image_id", "uri")
    )


def _is_local(where: str) -> bool:
    """Return whether an image is named by a local path, not by an id."""
    return where.startswith(("/", "~", "file://")) or is_file(where)
