"""Queries: texts and pictures in, hits out.

A picture whose bytes the corpus knows is asked with its stored vector: no model is loaded then, and
it finds itself first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmindex.crawl.archive import read_uri
from mmindex.errors import DataError, NoInputError, UsageError
from mmindex.records import Hit, ItemError, Modality, Reason
from mmindex.search.hits import Cut, Picture, Ranked, find_picture, hits
from mmindex.search.published import Published, open_published
from mmindex.search.searcher import Searcher

if TYPE_CHECKING:
    from mmindex.encode.encoder import Encoder

# Lines of a query file answered together: enough for full speed of model, index and tables, few
# enough that answers come soon and that 256 x k hits fit in memory.
BATCH = 256

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """One query with its hits.

    Attributes:
        query: the text, or what named the picture.
        to: what was searched for.
        version: the version that answered.
        hits: best first.
        picture: where the query's picture is; None for a text.
        error: why there is no answer; ``hits`` is empty then.
    """

    query: str
    to: Modality
    version: int
    hits: tuple[Hit, ...]
    picture: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Session:
    """Answers any number of queries from one published version.

    Args:
        published: the version.
        load: loads the model that made the index; called once, and only when it is needed.

    Use it as a context manager: leaving lets go of the model.
    """

    published: Published
    load: Callable[[], Encoder]
    _encoder: Encoder | None = None
    _searchers: dict[Modality, Searcher] = field(default_factory=dict)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def text(self, text: str, to: Modality | None, cut: Cut) -> Answer:
        """Answer a text; ``to`` is images unless said otherwise.

        Raises:
            UsageError: the text is empty.
            NoInputError: there is nothing of the wanted kind to search.
            ModelMismatchError: the model is no longer the one that made the index.
        """
        if not text.strip():
            raise UsageError(
                "the query is empty", 'say what to look for: mmindex query "a red bus"'
            )
        [answer] = self._texts([text], to or Modality.IMAGE, cut)
        if answer.error is not None:
            raise DataError(answer.error)
        return answer

    def lines(self, lines: Iterable[bytes], to: Modality | None, cut: Cut) -> Iterator[Answer]:
        """Answer a file's lines, UTF-8, one text each: one answer a line, in order.

        A line that cannot be asked (empty, or not UTF-8) gets an answer that says so.
        """
        to = to or Modality.IMAGE
        self.published.require_index(to)
        pending = iter(lines)
        while batch := list(islice(pending, BATCH)):
            questions = [_question(line) for line in batch]
            good = [text for text, error in questions if error is None]
            answered = iter(self._texts(good, to, cut))
            for text, error in questions:
                yield next(answered) if error is None else self._refused(text, to, error)

    def image(self, where: str, to: Modality | None, cut: Cut) -> Answer:
        """Answer a picture: a file, the uri or the id of an image of the corpus.

        ``to`` is captions where the corpus has any, else images.

        Raises:
            NoInputError: there is no such file, uri or id.
            DataError: the picture cannot be decoded.
            ModelMismatchError: as :meth:`text`.
        """
        manifest = self.published.manifest
        if to is None:
            to = Modality.TEXT if Modality.TEXT in manifest.indexes else Modality.IMAGE
        self.published.require_index(to)
        vector, uri = self._picture(where)
        [found] = self._search(vector[None, :], to, cut)
        return Answer(where, to, manifest.version, found, picture=uri)

    def _texts(self, texts: Sequence[str], to: Modality, cut: Cut) -> list[Answer]:
        from mmindex.encode.encoder import good_rows

        self.published.require_index(to)
        if not texts:
            return []
        vectors = self._model().encode_texts(texts)
        good = good_rows(vectors)
        found = iter(self._search(vectors[good], to, cut))
        version = self.published.manifest.version
        return [
            Answer(text, to, version, next(found))
            if fine
            else self._refused(text, to, "the model gives no usable vector for this text")
            for text, fine in zip(texts, good.tolist(), strict=True)
        ]

    def _refused(self, text: str, to: Modality, why: str) -> Answer:
        return Answer(text, to, self.published.manifest.version, (), error=why)

    def _search(self, vectors: Float32, to: Modality, cut: Cut) -> list[tuple[Hit, ...]]:
        """Hits for float32 (q, dim) unit vectors."""
        searcher = self._searcher(to)
        depth = min(cut.k, self.published.manifest.indexes[to].n)
        scores, ids = searcher.search(np.ascontiguousarray(vectors), depth)
        ranked = []
        for row_scores, row_ids in zip(scores, ids, strict=True):
            there = row_ids >= 0
            ranked.append(Ranked(searcher.keys(row_ids[there]), row_scores[there].tolist()))
        return hits(self.published.objects, self.published.manifest, to, ranked, cut)

    def _searcher(self, side: Modality) -> Searcher:
        if side not in self._searchers:
            self._searchers[side] = Searcher(self.published.objects, self.published.manifest, side)
        return self._searchers[side]

    def _picture(self, where: str) -> tuple[Float32, str]:
        """The picture's vector, float32 (dim,), and its uri."""
        path = str(Path(where).expanduser()) if where.startswith("~") else where
        data = _bytes_of(path)
        if data is not None:
            known = self._row("key", hashlib.sha256(data).hexdigest())
            vector = self._encoded(path, data) if known is None else self._stored(known)
            return vector, path
        row = self._row("image_id", where) or self._row("uri", where)
        if row is None:
            raise NoInputError(
                f"--image {where}: no such file, and no image of the corpus has this id or uri",
                "ids look like coco/val2017/000000000139; `mmindex query TEXT` shows some",
            )
        return self._stored(row), row.uri

    def _row(self, column: str, value: str) -> Picture | None:
        return find_picture(self.published.objects, self.published.manifest, column, value)

    def _stored(self, picture: Picture) -> Float32:
        vector = self._searcher(Modality.IMAGE).vector_of(picture.key)
        # Rounding to float16 leaves a length of 1 +- 0.0005.
        length = np.float32(np.linalg.norm(vector))
        return np.asarray(vector / length, dtype=np.float32)

    def _encoded(self, where: str, data: bytes) -> Float32:
        from mmindex.config import LimitsConfig
        from mmindex.encode.encoder import good_rows
        from mmindex.encode.preprocess import to_pixels
        from mmindex.images import ImageLimits, decode

        try:
            picture = decode(data, ImageLimits.of(LimitsConfig()))
        except ItemError as error:
            raise DataError(f"--image {where}: {error.reason}: {error.detail}") from error
        model = self._model()
        vectors = model.encode_images(to_pixels(picture, model.preprocess)[None])
        if not good_rows(vectors).all():
            raise DataError(f"--image {where}: the model gives no usable vector for this picture")
        vector: Float32 = vectors[0]
        return vector

    def _model(self) -> Encoder:
        if self._encoder is None:
            from mmindex.encode.fingerprint import require_same_model

            encoder = self.load()
            require_same_model(self.published.encoder, encoder.info)
            self._encoder = encoder
        return self._encoder


def open_session(root: Path, device: str = "auto") -> Session:
    """Open the store at ``root`` for queries.

    Args:
        root: the store's folder.
        device: where the model runs, should it be needed: ``auto``, ``cpu``, ``cuda`` ...

    Raises:
        NoInputError: there is no store, or nothing in it that can be searched.
    """
    published = open_published(root)
    return Session(published, lambda: _load(published, device))


def _load(published: Published, device: str) -> Encoder:
    """The model that the manifest names, from the same place as when the index was made."""
    from mmindex.encode.devices import place
    from mmindex.encode.model import resolve_model
    from mmindex.encode.openclip import load_encoder

    info = published.encoder
    settings = published.manifest.config.get("model", {})
    request = resolve_model(
        info.model,
        info.pretrained or None,
        allow_pickle_weights=bool(settings.get("allow_pickle_weights", False)),
    )
    placement = place(device)
    # One query does not fill one device.
    return load_encoder(request, type(placement)(placement.devices[:1], placement.precision))


def _question(line: bytes) -> tuple[str, str | None]:
    """A line's text, and why it cannot be asked, if so."""
    content = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return content.decode("utf-8", "backslashreplace"), f"not valid UTF-8: {error.reason}"
    return text, None if text.strip() else "the query is empty"


def _bytes_of(where: str) -> bytes | None:
    """The bytes that a path or uri names; None where there is no such file."""
    try:
        return read_uri(where)
    except ItemError as error:
        if error.reason is Reason.MISSING:
            return None
        raise DataError(f"--image {where}: {error.reason}: {error.detail}") from error
