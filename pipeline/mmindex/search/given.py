"""Check the arguments of a query from Python and convert them to parts of a question."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmindex.core.arguments import as_count, expect, expect_several, shown
from mmindex.core.errors import DataError, ModelMismatchError, UsageError
from mmindex.core.modality import Modality
from mmindex.core.records import ItemError
from mmindex.search.hits import Limit
from mmindex.search.parts import Part, read_part
from mmindex.search.rank import By
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmindex.search.vectorize import Vectorizer

# A file, or the uri or id of an image in the corpus; an opened image; uint8 (h, w, 3) or (h, w).
ImageLike: TypeAlias = "str | os.PathLike[str] | Image | NDArray[np.uint8]"


def text_part(text: str) -> Part:
    """Return a text part."""
    expect(text, str, "text", "a str")
    if not text.strip():
        raise UsageError("`text` is empty", "pass a text, for example: a red bus")
    return Part(Modality.TEXT, text)


def image_part(image: ImageLike, name: str) -> Part:
    """Return an image part."""
    if isinstance(image, str | os.PathLike):
        where = os.fspath(image)
        expect(where, str, name, "a path of type str")
        if not where:
            raise UsageError(f"`{name}` is empty", "a file, or the uri or id of an image")
        return Part(Modality.IMAGE, where)
    return Part(Modality.IMAGE, "an image", _opened(image, name))


def opened_image(image: ImageLike, vectorizer: Vectorizer) -> Image:
    """Open an image, RGB and upright.

    Raises:
        NoInputError: there is no such file, uri or id.
        DataError: it cannot be decoded.
    """
    if isinstance(image, str | os.PathLike):
        return vectorizer.open_image(image_part(image, "image").value)
    return _opened(image, "image")


def _opened(image: object, name: str) -> Image:
    """Convert an image in memory to RGB."""
    from PIL import Image as pillow  # noqa: N813 # the module, beside its class

    from mmindex.media.images import as_rgb

    if isinstance(image, np.ndarray):
        shape = image.shape
        if image.dtype != np.uint8 or (len(shape) != 2 and shape[2:] != (3,)):
            raise TypeError(
                f"{name}: an array must be uint8 (h, w, 3) or (h, w), not {image.dtype} {shape}"
            )
        if not image.size:
            raise DataError(f"`{name}`: an array of shape {shape} has no pixels")
        image = pillow.fromarray(image)
    if not isinstance(image, pillow.Image):
        raise TypeError(
            f"{name}: expected a path, uri or id, a PIL image or an array, not {shown(image)}"
        )
    try:
        return as_rgb(image)
    except ItemError as error:
        raise DataError(f"`{name}`: {error.reason}: {error.detail}") from error


def either_part(one: ImageLike, name: str, snapshot: Snapshot) -> Part:
    """Return a text or image part for ``plus`` and ``minus``."""
    if isinstance(one, str):
        return read_part(one, snapshot)
    return image_part(one, name)


def several(given: Any) -> Sequence[Any]:
    """Return one value or several (a list or tuple) as a sequence."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def as_side(to: object, name: str = "to") -> Modality:
    """Check the value of ``to``: ``image`` or ``text``."""
    expect(to, str, name, "'image' or 'text'")
    try:
        return Modality(str(to))
    except ValueError:
        raise UsageError(f"`{name}`: {to!r} is not 'image' or 'text'") from None


def as_limit(k: int, min_score: float | None, *, distinct: bool, good: bool) -> Limit:
    """Return the limits of a result."""
    if min_score is not None:
        if not _is_number(min_score):
            raise TypeError(f"min_score: expected a number, not {shown(min_score)}")
        if not -1 <= min_score <= 1:
            raise UsageError(f"`min_score` is {min_score}; it must be from -1 to 1")
    return Limit(
        as_count(k, "k"),
        None if min_score is None else float(min_score),
        expect(distinct, bool, "distinct", "a bool"),
        expect(good, bool, "good", "a bool"),
    )


def as_words(text: str | None, hybrid: bool) -> str | None:
    """Return the text of a hybrid search; None if it is no such search."""
    if hybrid and text is None:
        raise UsageError("a hybrid search needs a text", "pass a text, or remove `hybrid`")
    return text if hybrid else None


def check_alone(keywords: object, parts: Iterable[object], *, others: bool) -> None:
    """Check the arguments of a search by keywords, which has no other parts."""
    expect(keywords, str, "keywords", "a str")
    if others or any(part is not None for part in parts):
        raise UsageError(
            "`keywords` searches by words only and cannot be combined with other parts",
            "pass the text with `hybrid`, or use only `keywords`",
        )


def as_by(*, keywords: bool, hybrid: bool) -> By:
    """Return what to rank images by."""
    keywords = expect(keywords, bool, "keywords", "a bool")
    hybrid = expect(hybrid, bool, "hybrid", "a bool")
    if keywords and hybrid:
        raise UsageError(
            "`keywords` searches by words alone and cannot be combined with `hybrid`",
            "remove one of them",
        )
    return "words" if keywords else "both" if hybrid else "meaning"


def as_weights(weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """Return the weights of the parts; see :func:`mmindex.search.fusion.part_weights`."""
    if weights is None:
        return None
    expect_several(weights, "weights")
    for weight in weights:
        if not _is_number(weight):
            raise TypeError(f"weights: expected numbers, not {shown(weight)}")
    return tuple(float(weight) for weight in weights)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_texts(texts: Iterable[object]) -> None:
    """Check that these are texts that are not empty."""
    for number, text in enumerate(texts):
        _check_text(text, f"texts[{number}]")


def as_texts(texts: Iterable[str | bytes], *, strict: bool) -> Iterator[str | bytes]:
    """Yield the texts and check each one when it is reached.

    Args:
        texts: any number of them; bytes are a line of a file.
        strict: raise an error for an empty text.
    """
    expect_several(texts, "texts")
    return _checked(texts, strict=strict)


def _checked(texts: Iterable[str | bytes], *, strict: bool) -> Iterator[str | bytes]:
    for number, text in enumerate(texts):
        if not isinstance(text, bytes):
            _check_text(text, f"texts[{number}]", strict=strict)
        yield text


def _check_text(text: object, name: str, *, strict: bool = True) -> None:
    expect(text, str, name, "a str")
    if strict and not str(text).strip():
        raise UsageError(f"{name} is empty", "pass a text, for example: a red bus")


def unit_vector(vector: ArrayLike, dim: int) -> NDArray[np.float32]:
    """Check and normalise a query vector: float32 (dim,), unit length."""
    given = np.asarray(vector)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"vector: expected an array of numbers, not {shown(vector)}")
    if given.shape != (dim,):
        raise ModelMismatchError(
            f"`vector` has shape {given.shape}, but the index has {dim} dimensions",
            "encode it with the model of the index",
        )
    exact = given.astype(np.float64)
    length = float(np.linalg.norm(exact))
    if not np.isfinite(length) or length == 0:
        raise DataError("`vector` is not finite, or it is all zeros")
    unit: NDArray[np.float32] = (exact / length).astype(np.float32)
    return unit
