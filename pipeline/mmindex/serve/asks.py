"""Convert the parameters of a request to a query, and answer it.

No parameter can open a file: an image is the id of an image in the served version, or an upload.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast, get_args

from starlette.datastructures import QueryParams

from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.modality import Modality
from mmindex.search.given import check_alone
from mmindex.search.hits import Limit
from mmindex.search.parts import Part, Question
from mmindex.search.query import Answer, Session
from mmindex.search.rank import By
from mmindex.serve.live import Served
from mmindex.serve.settings import MAX_DEPTH, MAX_HITS, MAX_PARTS, MAX_QUERY_CHARACTERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmindex.core.records import Hit
    from mmindex.search.hits import IndexedImage

_UPLOADS: Final = 256  # uploaded images to keep for their URLs, about 50 KB each


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded image.

    Attributes:
        key: sha256 of its bytes, in hex.
        vector: float32 (dim,), unit length, from the model with ``fingerprint``.
        fingerprint: the fingerprint of the model.
        thumbnail: a JPEG.
    """

    key: str
    vector: NDArray[np.float32]
    fingerprint: str
    thumbnail: bytes


class Uploads:
    """The latest uploads by key."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, upload: Upload) -> None:
        """Add an image and remove the oldest one."""
        with self._lock:
            self._kept[upload.key] = upload
            self._kept.move_to_end(upload.key)
            if len(self._kept) > _UPLOADS:
                self._kept.popitem(last=False)

    def get(self, key: str) -> Upload:
        """Return an image.

        Raises:
            NoInputError: it is no longer available.
        """
        with self._lock:
            upload = self._kept.get(key)
        if upload is None:
            raise NoInputError("the uploaded image is no longer available", "send the image again")
        return upload


@dataclass(frozen=True, slots=True)
class Ask:
    """The query of a request.

    Attributes:
        text: the text to search for; can be empty if there are images.
        images: ids of images to add to the query.
        minus: texts to subtract.
        unlike: ids of images to subtract.
        upload: the key of an uploaded image, or empty.
        where: a condition on images, or None.
        to: the side to search.
        k: the number of hits.
        offset: the number of best hits to skip.
        min_score: the lowest score, or None.
        columns: additional columns of the images.
        others: leave out the query images.
        sort: the column to sort the hits by, see ``query --sort``.
        good: leave out weak hits.
        by: rank by the meaning of the text, by its words, or by both.
    """

    text: str = ""
    images: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    upload: str = ""
    where: str | None = None
    to: Modality = Modality.IMAGE
    k: int = 20
    offset: int = 0
    min_score: float | None = None
    columns: tuple[str, ...] = ()
    others: bool = False
    sort: str | None = None
    good: bool = False
    by: By = "meaning"

    @property
    def limit(self) -> Limit:
        """The number of hits to find."""
        return Limit(self.offset + self.k, self.min_score, good=self.good)

    @property
    def is_plain_text(self) -> bool:
        """Whether the query is the meaning of a single text."""
        return bool(self.text) and self.by == "meaning" and not self.has_more

    @property
    def has_more(self) -> bool:
        """Whether the query has parts besides its text."""
        return bool(self.images or self.minus or self.unlike or self.upload)

    @property
    def needs_model(self) -> bool:
        """Whether a text must be encoded."""
        return bool((self.text and self.by != "words") or self.minus)

    @property
    def is_empty(self) -> bool:
        """Whether the query is empty."""
        return not (self.text or self.images or self.upload)


_KNOWN: Final = frozenset({
    "q", "image", "minus", "unlike", "picture", "where", "to", "k", "offset", "min_score",
    "columns", "others", "sort", "good", "by",
})  # fmt: skip


def read_ask(params: QueryParams, more: Collection[str] = ()) -> Ask:
    """Parse the parameters of a request.

    Args:
        params: the parameters of the query string.
        more: names of additional parameters to ignore.

    Raises:
        UsageError: one is unknown, out of range or too long.
    """
    unknown = sorted(params.keys() - _KNOWN - set(more))
    if unknown:
        raise UsageError(
            f"unknown parameter {unknown[0][:100]!r}", f"parameters: {', '.join(sorted(_KNOWN))}"
        )
    to = params.get("to") or "image"
    if to not in ("image", "text"):
        raise UsageError(f"to={to[:20]!r} is not 'image' or 'text'")
    by = params.get("by") or "meaning"
    if by not in get_args(By):
        raise UsageError(f"by={by[:20]!r} is not {', '.join(map(repr, get_args(By)))}")
    ask = Ask(
        text=_text("q", params.get("q", "")).strip(),
        images=_several("image", params),
        minus=tuple(_text("minus", one) for one in _several("minus", params)),
        unlike=_several("unlike", params),
        upload=params.get("picture", ""),
        where=params.get("where") or None,
        to=Modality(to),
        k=read_number("k", params.get("k") or "20", 1, MAX_HITS),
        offset=read_number("offset", params.get("offset") or "0", 0, MAX_DEPTH),
        min_score=_score(params.get("min_score") or ""),
        columns=tuple(name for name in params.get("columns", "").split(",") if name),
        others=params.get("others", "") in ("1", "true"),
        sort=params.get("sort") or None,
        good=params.get("good", "") in ("1", "true"),
        by=cast("By", by),
    )
    if ask.offset + ask.k > MAX_DEPTH:
        raise UsageError(
            f"offset={ask.offset} and k={ask.k} exceed the {MAX_DEPTH:,} best hits",
            "use a more specific query",
        )
    return ask


def _several(name: str, params: QueryParams) -> tuple[str, ...]:
    values = tuple(value for value in params.getlist(name) if value)
    if len(values) > MAX_PARTS:
        raise UsageError(f"{name} has {len(values)} values; at most {MAX_PARTS} are allowed")
    return values


def _text(name: str, text: str) -> str:
    if len(text) > MAX_QUERY_CHARACTERS:
        raise UsageError(
            f"{name} has {len(text):,} characters; at most {MAX_QUERY_CHARACTERS:,} are allowed"
        )
    return text


def read_number(name: str, text: str, low: int, high: int) -> int:
    """Return the number in a parameter.

    Raises:
        UsageError: it is not a number, or out of range.
    """
    plain_digits = text.isascii() and text.isdigit() and len(text) <= 12
    if not plain_digits or not low <= int(text) <= high:
        raise UsageError(f"{name}={text[:20]!r} is not a number from {low} to {high:,}")
    return int(text)


def _score(text: str) -> float | None:
    if not text:
        return None
    try:
        score = float(text)
    except ValueError:
        score = 2.0
    if not -1 <= score <= 1:
        raise UsageError(f"min_score={text[:20]!r} is not a number from -1 to 1")
    return score


def find(served: Served, image_id: str) -> IndexedImage:
    """Return the image with an id in the served version.

    Raises:
        NoInputError: there is none.
    """
    found = served.finder.get(image_id) if image_id else None
    if found is None:
        raise NoInputError(
            f"version {served.number} has no image {image_id[:200]!r}", "search for its id again"
        )
    return found


def question(served: Served, ask: Ask, uploads: Uploads) -> Question:
    """Return the query of a request; every image in it has its vector.

    Raises:
        NoInputError: an id or an uploaded image does not exist.
        UsageError: the query is empty.
    """
    wanted = [Part(Modality.TEXT, ask.text)] if ask.text else []
    wanted += [_image(served, image_id) for image_id in ask.images]
    if ask.upload:
        upload = uploads.get(ask.upload)
        if upload.fingerprint != served.snapshot.encoder.fingerprint:
            raise NoInputError("the service now uses another model", "send the image again")
        wanted.append(Part(Modality.IMAGE, "your image", upload.vector))
    if not wanted:
        raise UsageError("the query is empty", "pass a text (q), an image id or an image")
    unwanted = [Part(Modality.TEXT, text) for text in ask.minus]
    unwanted += [_image(served, image_id) for image_id in ask.unlike]
    words = ask.text if ask.by == "both" and ask.text else None
    return Question(tuple(wanted), tuple(unwanted), words=words)


def _image(served: Served, image_id: str) -> Part:
    key = find(served, image_id).key
    return Part(Modality.IMAGE, image_id, served.session.vectorizer.stored(key))


def answer(served: Served, session: Session, ask: Ask, uploads: Uploads) -> Answer:
    """Answer a request with all hits up to the last one requested.

    Args:
        served: the version.
        session: the session with the condition of the request.
        ask: the request.
        uploads: the uploaded images.
    """
    if ask.by == "words" and ask.text:
        check_alone(ask.text, (), others=ask.has_more)
        return session.keywords(ask.text, ask.to, ask.limit)
    asked = question(served, ask, uploads)
    left_out = set(ask.images) if ask.others else set()
    limit = replace(ask.limit, k=ask.limit.k + len(left_out))
    found = session.ask(asked, ask.to, limit)
    return replace(found, hits=without(found, left_out)) if left_out else found


def without(found: Answer, image_ids: set[str]) -> tuple[Hit, ...]:
    """Remove the hits of some images and renumber the ranks."""
    kept = (hit for hit in found.hits if hit.image_id not in image_ids)
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1))
