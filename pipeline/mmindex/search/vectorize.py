"""Encode texts and images as query vectors with the model of the index.

For an image whose bytes are in the corpus, the stored vector is used: no model is loaded, and the
image finds itself first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, MmindexError, NoVectorError, UsageError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.models.resolve import unfit
from mmindex.search.hits import IndexedImage, find_images
from mmindex.search.named import content_of, decoded, path_of, unknown
from mmindex.search.parts import Part
from mmindex.store.snapshot import Snapshot, open_snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmindex.models.encoder import Encoder, TextEncoder
    from mmindex.models.preprocess import Pixels
    from mmindex.models.resolve import ModelRequest

Float32 = NDArray[np.float32]

Loaded = TypeVar("Loaded", bound="TextEncoder")

LoadTexts = Callable[[], "TextEncoder | None"]

# Images per batch, and the largest total size of their files in memory.
_BATCH = 64
_BATCH_BYTES = 64 << 20
# With more texts, torch saves more time than it takes to load torch and the whole model. Depending
# on the size of the model, this is the case from about 150 to 1,000 texts on.
_FEW_TEXTS = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """A query image.

    Attributes:
        where: the name from the user.
        uri: the location of its bytes.
        vector: float32 (dim,), unit length.
        key: the key of its content; None if it is not in the corpus.
    """

    where: str
    uri: str
    vector: Float32
    key: str | None


def no_text_encoder() -> None:
    """Return None: the whole model encodes texts."""


@dataclass(slots=True)
class Vectorizer:
    """Encodes query vectors for one published version.

    Args:
        snapshot: the version.
        load: loads the model of the index; called once, when it is first needed.
        load_texts: loads what encodes texts, if less than the whole model can; otherwise it
            returns None.

    As a context manager, it releases the model at the end.
    """

    snapshot: Snapshot
    load: Callable[[], Encoder]
    load_texts: LoadTexts = no_text_encoder
    _encoder: Encoder | None = None
    _texts: TextEncoder | None = None
    # One thread encodes at a time, because a model uses all cores, and tokenizers and batch limits
    # are not thread-safe.
    _lock: RLock = field(default_factory=RLock)

    def __enter__(self) -> Vectorizer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model; safe to call twice."""
        with self._lock:
            if self._encoder is not None:
                self._encoder.close()
            self._encoder = self._texts = None

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use.

        Raises:
            ModelMismatchError: the model is no longer the model of the index.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._checked(self.load())
                self._texts = None
            return self._encoder

    @property
    def text_encoder(self) -> TextEncoder:
        """What encodes texts, loaded on first use: only the text side, or the whole model.

        As soon as the whole model is loaded, it also encodes texts, so that the text side is not in
        memory twice.

        Raises:
            ModelMismatchError: the model is no longer the model of the index.
        """
        with self._lock:
            if self._encoder is not None:
                return self._encoder
            if self._texts is None:
                loaded = self.load_texts()
                self._texts = self.encoder if loaded is None else self._checked(loaded)
            return self._texts

    def _checked(self, loaded: Loaded) -> Loaded:
        from mmindex.models.fingerprint import require_same_model

        require_same_model(self.snapshot.encoder, loaded.info)
        return loaded

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode texts: float32 (n, dim); rows can be unusable, see Encoder.

        The whole model encodes many texts at once: once loaded, it is faster than the text side.

        It logs a warning if texts are longer than the context of the model.
        """
        with self._lock:
            encoder = self.text_encoder if len(texts) <= _FEW_TEXTS else self.encoder
            before = encoder.cut_texts
            vectors = encoder.encode_texts(texts)
            cut = encoder.cut_texts - before
        if cut:
            get_logger("search").warning(
                "the text is longer than the context of the model: only its beginning is used",
                cut=cut,
                texts=len(texts),
            )
        return vectors

    def texts(self, texts: Sequence[str]) -> Float32:
        """Encode texts: float32 (n, dim), unit length.

        Raises:
            DataError: the model returns no usable vector for one of them.
        """
        from mmindex.models.encoder import good_rows

        vectors = self.encode_texts(texts)
        good = good_rows(vectors)
        if not good.all():
            bad = texts[int(np.flatnonzero(~good)[0])]
            raise NoVectorError(f"the model returns no usable vector for the text {bad[:80]!r}")
        return vectors

    def text(self, text: str) -> Float32:
        """Encode one text: float32 (dim,), unit length.

        Raises:
            UsageError: the text is empty.
            DataError: as :meth:`texts`.
        """
        if not text.strip():
            raise UsageError("the text is empty", "pass a text, for example: a red bus")
        vector: Float32 = self.texts([text])[0]
        return vector

    def named_image(self, where: str) -> Asked:
        """Encode an image: a file, or the uri or id of an image in the corpus.

        Raises:
            NoInputError: there is no such file, uri or id.
            DataError: the image cannot be decoded.
            ModelMismatchError: see :attr:`encoder`.
        """
        [found] = self.named_images([where])
        if isinstance(found, MmindexError):
            raise found
        return found

    def named_images(self, wheres: Sequence[str]) -> Iterator[Asked | MmindexError]:
        """Encode many images, in order; the result contains an error for each unusable image."""
        batch: list[tuple[str, bytes | MmindexError | None]] = []
        held = 0
        for where in wheres:
            content = content_of(where)
            batch.append((where, content))
            held += len(content) if isinstance(content, bytes) else 0
            if len(batch) == _BATCH or held >= _BATCH_BYTES:
                yield from self._batch(batch)
                batch, held = [], 0
        yield from self._batch(batch)

    def _batch(
        self, batch: Sequence[tuple[str, bytes | MmindexError | None]]
    ) -> list[Asked | MmindexError]:
        from mmindex.media.uris import key_of  # imported only for image queries, because of Pillow

        keys = {
            where: key_of(path_of(where), content)
            for where, content in batch
            if isinstance(content, bytes)
        }
        names = {where for where, content in batch if content is None}
        by_key = self._rows("key", set(keys.values()))
        by_name = self._rows("image_id", names)
        by_name |= self._rows("uri", names - by_name.keys())
        answers: list[Asked | MmindexError | None] = []
        pixels: list[Pixels] = []
        for where, content in batch:
            answer: Asked | MmindexError | None
            if isinstance(content, MmindexError):
                answer = content
            elif content is None:
                answer = self._named(where, by_name.get(where))
            elif (known := by_key.get(keys[where])) is not None:
                answer = Asked(where, path_of(where), self.stored(known.key), known.key)
            else:
                decoded = self._pixels(where, content)
                answer = decoded if isinstance(decoded, MmindexError) else None
                if not isinstance(decoded, MmindexError):
                    pixels.append(decoded)
            answers.append(answer)
        new = iter(self._encoded([where for (where, _), a in zip(batch, answers, strict=True)
                                  if a is None], pixels))  # fmt: skip
        return [next(new) if answer is None else answer for answer in answers]

    def images(self, opened: Sequence[Image]) -> Float32:
        """Encode images in memory, RGB: float32 (n, dim), unit length.

        Raises:
            DataError: the model returns no usable vector for one of them.
            ModelMismatchError: see :attr:`encoder`.
        """
        from mmindex.models.encoder import good_rows
        from mmindex.models.preprocess import to_pixels

        dim = self.snapshot.encoder.dim
        parts = [np.empty((0, dim), dtype=np.float32)]
        for start in range(0, len(opened), _BATCH):
            batch = opened[start : start + _BATCH]
            with self._lock:
                pixels = [to_pixels(image, self.encoder.preprocess) for image in batch]
                parts.append(self.encoder.encode_images(np.stack(pixels)))
        vectors: Float32 = np.concatenate(parts)
        good = good_rows(vectors)
        if not good.all():
            number = int(np.flatnonzero(~good)[0])
            raise NoVectorError(f"the model returns no usable vector for image {number}")
        return vectors

    def parts(self, parts: Sequence[Part]) -> tuple[Float32, list[Asked | None]]:
        """Encode the parts of a query.

        Returns:
            the vectors, float32 (parts, dim), unit length, and the query image of each part that is
            a file or an image in the corpus; None for all other parts.

        Raises:
            NoInputError, DataError, ModelMismatchError: as :meth:`named_image`.
        """
        opened = [part.given for part in parts if part.is_opened]
        named = [part for part in parts if part.given is None]
        texts = [part.value for part in named if part.kind is Modality.TEXT]
        # Images come first: if they need the whole model, it also encodes the texts.
        drawn = iter(self.images(opened) if opened else ())  # type: ignore[arg-type]  # images
        images = [part.value for part in named if part.kind is Modality.IMAGE]
        shown = iter(list(self.named_images(images)))
        said = iter(self.texts(texts) if texts else ())
        vectors = np.empty((len(parts), self.snapshot.encoder.dim), dtype=np.float32)
        asked: list[Asked | None] = [None] * len(parts)
        for row, part in enumerate(parts):
            if isinstance(part.given, np.ndarray):
                vectors[row] = part.given
            elif part.given is not None:
                vectors[row] = next(drawn)
            elif part.kind is Modality.TEXT:
                vectors[row] = next(said)
            else:
                found = next(shown)
                if isinstance(found, MmindexError):
                    raise found
                vectors[row], asked[row] = found.vector, found
        return vectors, asked

    def open_image(self, where: str) -> Image:
        """Open an image by file, uri or id: RGB and upright.

        Raises:
            NoInputError: there is no such file, uri or id, or the file no longer exists.
            DataError: the image cannot be decoded.
        """
        content = content_of(where)
        if content is None:
            row = self._rows("image_id", {where}).get(where)
            content = None if row is None else content_of(row.uri)
        if content is None:
            raise unknown(where)
        if isinstance(content, MmindexError):
            raise content
        return decoded(where, content)

    def stored(self, key: str) -> Float32:
        """Return the vector of an image in the corpus: float32 (dim,), unit length.

        Raises:
            NoInputError: the image index does not contain this key.
        """
        vector = self.snapshot.vector_of(Modality.IMAGE, key)
        # After rounding to float16, the length is 1 +- 0.0005.
        unit: Float32 = vector / np.linalg.norm(vector)
        return unit

    def _rows(self, column: str, values: set[str]) -> dict[str, IndexedImage]:
        return find_images(self.snapshot, column, values)

    def _named(self, where: str, row: IndexedImage | None) -> Asked | MmindexError:
        if row is None:
            return unknown(where)
        return Asked(where, row.uri, self.stored(row.key), row.key)

    def _pixels(self, where: str, data: bytes) -> Pixels | MmindexError:
        from mmindex.models.preprocess import to_pixels

        try:
            image = decoded(where, data)
        except DataError as error:
            return error
        return to_pixels(image, self.encoder.preprocess)

    def _encoded(self, wheres: Sequence[str], pixels: list[Pixels]) -> list[Asked | MmindexError]:
        from mmindex.models.encoder import good_rows

        if not pixels:
            return []
        with self._lock:
            vectors = self.encoder.encode_images(np.stack(pixels))
        return [
            Asked(where, path_of(where), vector, None)
            if good
            else NoVectorError(f"{where}: the model returns no usable vector for this image")
            for where, vector, good in zip(wheres, vectors, good_rows(vectors), strict=True)
        ]


def open_vectorizer(root: Path, device: str = "auto") -> Vectorizer:
    """Open the store at ``root`` for encoding query vectors.

    Args:
        root: the folder of the store.
        device: the device for the model, if it is needed: ``auto``, ``cpu``, ``cuda`` ...

    Raises:
        NoInputError: there is no store, or nothing in it that can be searched.
    """
    snapshot = open_snapshot(root)
    if (warning := warning_about(snapshot)) is not None:
        get_logger("search").warning(warning)
    return Vectorizer(
        snapshot, lambda: _load(snapshot, device), lambda: _load_texts(snapshot, device)
    )


def warning_about(snapshot: Snapshot) -> str | None:
    """Return a warning if the answers of a version are known to be poor; for logs and pages."""
    encoder = snapshot.encoder
    if not encoder.trained:
        return "the model is untrained: its answers are meaningless"
    return unfit(encoder.model, (source.spec for source in snapshot.manifest.sources))


def request_of(snapshot: Snapshot) -> ModelRequest:
    """Return the request for the model in the manifest, at the same location as for the build.

    Raises:
        MmindexError: the model no longer exists.
    """
    from mmindex.models.resolve import resolve_model

    info = snapshot.encoder
    settings = snapshot.manifest.config.get("model", {})
    return resolve_model(
        info.model,
        info.pretrained or None,
        allow_pickle_weights=bool(settings.get("allow_pickle_weights", False)),
    )


def _load(snapshot: Snapshot, device: str) -> Encoder:
    """Load the model in the manifest from the same location as for the build."""
    from mmindex.models.devices import place
    from mmindex.models.openclip import load_encoder

    request = request_of(snapshot)
    placement = place(device, model=request.name)
    # A query does not need more than one device.
    return load_encoder(request, type(placement)(placement.devices[:1], placement.precision))


def _load_texts(snapshot: Snapshot, device: str) -> TextEncoder | None:
    """Load the text side alone if it runs on the CPU without torch; otherwise return None."""
    from mmindex.models.devices import place
    from mmindex.models.text_side import read_text_side

    if place(device, model=snapshot.encoder.model).devices != ("cpu",):
        return None
    try:
        request = request_of(snapshot)
    except UsageError:  # loading the whole model reports it
        return None
    return read_text_side(request, snapshot.encoder)
