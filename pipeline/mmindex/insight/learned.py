"""Files of labels that were learned from images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

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
from mmindex.insight.labels import MAX_LABELS
from mmindex.store.manifest import EncoderInfo

SUFFIX: Final = ".safetensors"
_CARD: Final = "mmindex.labels"
_AGAIN: Final = "run `classify` with `learn` again"


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
    """Read a classifier for a model.

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
            if card.get("fingerprint") != info.fingerprint:
                raise ModelMismatchError(
                    f"{path}: the labels were learned with the model {card.get('model')!r:.80}, "
                    f"not with the model of this store, {info.model!r}",
                    _AGAIN,
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _read(card, tensors, info.dim)
    except (SafetensorError, ValueError, TypeError, RecursionError, DataError) as error:
        raise DataError(f"labels {path}: damaged: {first_lines(error, 2)}", _AGAIN) from error


def _read(card: dict[str, Any], tensors: dict[str, NDArray[Any]], dim: int) -> Classifier:
    labels, scale = card.get("labels"), card.get("scale")
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise DataError("the names of the labels are missing")
    if not 2 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
        raise DataError(f"there are not 2 to {MAX_LABELS:,} different labels")
    vectors = _checked(tensors, "vectors", np.dtype(np.float32), (len(labels), dim))
    cache = card.get("cache")
    return Classifier(
        labels=tuple(labels),
        vectors=vectors,
        scale=_number(scale),
        cache=None if cache is None else _read_cache(cache, tensors, dim, len(labels)),
    )


def _read_cache(given: Any, tensors: dict[str, NDArray[Any]], dim: int, labels: int) -> Cache:
    if not isinstance(given, list) or len(given) != 2:
        raise DataError("the settings of the cache are missing")
    owners = tensors.get("cache.labels")
    if owners is None or owners.ndim != 1 or owners.dtype != np.int64:
        raise DataError("cache.labels is missing")
    if len(owners) == 0 or owners.min() < 0 or owners.max() >= labels:
        raise DataError("cache.labels is empty, or contains numbers of unknown labels")
    images = _checked(tensors, "cache.images", np.dtype(np.float32), (len(owners), dim))
    return Cache(images, owners, _number(given[0]), _number(given[1]))


def _checked(
    tensors: dict[str, NDArray[Any]], name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    found = tensors.get(name)
    if found is None or found.dtype != dtype or found.shape != shape:
        raise DataError(f"{name} is not {dtype} {shape}")
    if not np.isfinite(found).all():
        raise DataError(f"{name} is not finite")
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{value!r:.40} is not a finite number")
    return float(value)
