"""Files of labels that were learned from images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmindex.core.durable import check_target, file_aside
from mmindex.core.errors import (
    DataError,
    ModelMismatchError,
    UsageError,
    first_lines,
    os_errors,
)
from mmindex.insight.classify import Cache, Classifier
from mmindex.insight.few_shot import MOST_SHARPNESS, MOST_WEIGHT, most_examples
from mmindex.insight.labels import MAX_LABELS
from mmindex.models.fingerprint import made_with
from mmindex.store.manifest import EncoderInfo

_File: TypeAlias = Any  # safe_open, whose methods are not typed

SUFFIX: Final = ".safetensors"
_CARD: Final = "mmindex.labels"
_AGAIN: Final = "run `classify` with `learn` again"
_MOST_SCALE: Final = 1e6  # as for the option `scale`
_MOST_LENGTH: Final = 1e6  # of the vector of a label; usually about 1
_UNIT: Final = 1.01  # the largest length of the vector of an image, with rounding errors


def is_learned(path: Path) -> bool:
    """Return whether a file of labels contains learned ones, by its extension."""
    return path.suffix.lower() == SUFFIX


def check_learned_target(path: Path) -> None:
    """Check that learned labels can be written to a file, before learning starts.

    Raises:
        UsageError: the file has another extension.
        CannotCreateError: the folder does not exist, or ``path`` is a folder.
    """
    if not is_learned(path):
        raise UsageError(
            f"`out={path}`: the extension must be {SUFFIX}", f"for example `out=labels{SUFFIX}`"
        )
    check_target(path)


def save_learned(path: Path, classifier: Classifier, method: str, info: EncoderInfo) -> None:
    """Write a classifier; equal classifiers result in equal bytes.

    Args:
        method: the method that it was learned with.
        info: the model that it was learned with.

    Raises:
        MmindexError: the file cannot be written.
    """
    from safetensors.numpy import save

    cache = classifier.cache
    card = {
        "labels": classifier.labels,
        "model": info.model,
        "fingerprint": info.fingerprint,
        "method": method,
        "scale": classifier.scale,
        "cache": None if cache is None else (cache.weight, cache.sharpness),
    }
    tensors: dict[str, NDArray[Any]] = {"vectors": np.ascontiguousarray(classifier.vectors)}
    if cache is not None:
        tensors |= {"cache.images": np.ascontiguousarray(cache.images)}
        tensors |= {"cache.labels": np.ascontiguousarray(cache.labels)}
    data = save(tensors, metadata={_CARD: json.dumps(card, sort_keys=True)})
    with os_errors(path), file_aside(path) as aside:
        aside.write_bytes(data)


def load_learned(path: Path, info: EncoderInfo) -> Classifier:
    """Read a classifier for a model, in any precision.

    Raises:
        DataError: the file is damaged, or contains no learned labels.
        ModelMismatchError: the labels were learned with another model.
        MmindexError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with os_errors(path):
        path.open("rb").close()
    try:
        with safe_open(path, framework="np") as file:
            card = json.loads((file.metadata() or {}).get(_CARD, "null"))
            if not isinstance(card, dict):
                raise DataError("it contains no learned labels")
            if not made_with(info, str(card.get("fingerprint"))):
                raise ModelMismatchError(
                    f"{path}: the labels were learned with the model {card.get('model')!r:.80}, "
                    f"not with the model of this store, {info.model!r}",
                    _AGAIN,
                )
            return _read(card, file, info.dim)
    except (SafetensorError, ValueError, TypeError, RecursionError, DataError) as error:
        raise DataError(f"labels {path}: damaged: {first_lines(error, 2)}", _AGAIN) from error


def _read(card: dict[str, Any], file: _File, dim: int) -> Classifier:
    labels = card.get("labels")
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise DataError("the names of the labels are missing")
    if not 2 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
        raise DataError(f"there are not 2 to {MAX_LABELS:,} different labels")
    cache = card.get("cache")
    return Classifier(
        labels=tuple(labels),
        vectors=_vectors(file, "vectors", (len(labels), dim), _MOST_LENGTH),
        scale=_number(card.get("scale"), "scale", _MOST_SCALE),
        cache=None if cache is None else _read_cache(cache, file, dim, len(labels)),
    )


def _read_cache(given: Any, file: _File, dim: int, labels: int) -> Cache:
    if not isinstance(given, list) or len(given) != 2:
        raise DataError("the settings of the cache are missing")
    shape = _shape(file, "cache.labels", "I64")
    most = most_examples(labels)
    if len(shape) != 1 or not 1 <= shape[0] <= most:
        raise DataError(f"cache.labels has the shape {shape!s:.40}, not 1 to {most:,} numbers")
    owners = file.get_tensor("cache.labels")
    if owners.min() < 0 or owners.max() >= labels:
        raise DataError("cache.labels contains numbers of unknown labels")
    return Cache(
        images=_vectors(file, "cache.images", (len(owners), dim), _UNIT),
        labels=owners,
        weight=_number(given[0], "the weight of the cache", MOST_WEIGHT),
        sharpness=_number(given[1], "the sharpness of the cache", MOST_SHARPNESS),
    )


def _vectors(file: _File, name: str, shape: tuple[int, int], longest: float) -> NDArray[np.float32]:
    if (found := _shape(file, name, "F32")) != shape:
        raise DataError(f"{name} has the shape {found!s:.40}, not {shape}")
    vectors: NDArray[np.float32] = file.get_tensor(name)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (lengths <= longest).all():  # also if one is not finite
        raise DataError(
            f"{name} contains a vector of length {lengths.max():.3g}, more than {longest:,g}"
        )
    return vectors


def _shape(file: _File, name: str, dtype: str) -> tuple[int, ...]:
    """Return the shape of a tensor of this type, without reading it."""
    tensor = file.get_slice(name)
    if (found := tensor.get_dtype()) != dtype:
        raise DataError(f"{name} has the type {found!s:.20}, not {dtype}")
    return tuple(tensor.get_shape())


def _number(value: Any, name: str, most: float) -> float:
    # Compare before the conversion: an int can be larger than every float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise DataError(f"{name} is {value!r:.40}, not a number from 0 to {most:,.0f}")
    return float(value)
