"""Models written by ``mmindex adapt``: a parent model, and an affine map after each tower.

The folder contains ``open_clip_config.json``, which names the parent and its hashes, and
``maps.safetensors``. If the parent was a local folder or file, its files are in the subfolder
``parent``; otherwise the parent is found by its name, as in the original build.

A map is applied to the parent's vectors after they were scaled to unit length. Shards contain
these vectors, so :mod:`mmindex.encode.mapping` can map the vectors of a store without its images
and without the parent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, ModelMismatchError, first_lines, os_errors
from mmindex.core.modality import Modality
from mmindex.models.encoder import Float32
from mmindex.models.resolve import (
    ADAPTED_NETWORK,
    CONFIG_FILE,
    LOCAL_DIR,
    ModelRequest,
    read_config,
)
from mmindex.store.manifest import EncoderInfo

MAPS_FILE: Final = "maps.safetensors"
PARENT_FOLDER: Final = "parent"
# These must not change, because the maps were fitted to the vectors of this parent. The precision
# can change: cosines between vectors of one model in two precisions are at least 0.997.
_IDENTITY: Final = ("architecture", "weights", "preprocess", "tokenizer")
_LOGIT_SCALE: Final = "logit_scale"


@dataclass(frozen=True, slots=True)
class Affine:
    """The map ``x -> x @ weight.T + bias``, with the result scaled to unit length.

    Attributes:
        weight: float32 (dim, dim).
        bias: float32 (dim,).
    """

    weight: Float32
    bias: Float32

    def __call__(self, vectors: NDArray[np.floating[Any]]) -> Float32:
        """Map vectors (n, dim) of unit length to float32 (n, dim) of unit length.

        A row that is mapped to zero becomes NaN, as in the output of encoders.
        """
        mapped = vectors.astype(np.float32) @ self.weight.T + self.bias
        with np.errstate(invalid="ignore", divide="ignore"):
            unit: Float32 = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        return unit


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of both sides.

    Attributes:
        image, text: the map of each side.
        logit_scale: factor for cosine similarities before a softmax.
    """

    image: Affine
    text: Affine
    logit_scale: float

    def of(self, side: Modality) -> Affine:
        """Return the map of one side."""
        return self.image if side is Modality.IMAGE else self.text


@dataclass(frozen=True, slots=True)
class Adaptation:
    """The content of an adapted model's folder.

    Attributes:
        parent: the model before the maps.
        identity: the parent's hashes, by their names in :class:`EncoderInfo`.
        config_file, maps_file: paths of the files in the folder.
    """

    parent: ModelRequest
    identity: Mapping[str, str]
    config_file: Path
    maps_file: Path

    def require_parent(self, found: EncoderInfo) -> None:
        """Check that a model is the parent that the maps were fitted to.

        Raises:
            ModelMismatchError: it is a different model.
        """
        for name in _IDENTITY:
            if getattr(found, name) != self.identity[name]:
                raise ModelMismatchError(
                    f"{self.config_file.parent} was adapted from another {found.model} "
                    f"{found.pretrained}".rstrip()
                    + f": its {name} has changed",
                    "restore that model, or run `mmindex adapt` again",
                )


def parent_card(parent: ModelRequest, info: EncoderInfo) -> dict[str, Any]:
    """Return ``model_cfg`` for an adapted model's folder.

    Args:
        parent: the parent as the folder refers to it; see :func:`read_adaptation`.
        info: the parent's name, hashes and dimension.
    """
    hashes = {name: getattr(info, name) for name in ("fingerprint", *_IDENTITY)}
    return {
        "network": ADAPTED_NETWORK,
        "embed_dim": info.dim,
        "parent": {"model": parent.name, "pretrained": parent.pretrained, **hashes},
    }


def read_adaptation(request: ModelRequest, folder: Path) -> Adaptation:
    """Read the folder of an adapted model.

    Raises:
        DataError: the configuration does not describe an adapted model, or the maps are missing.
        MmindexError: a file cannot be read.
    """
    config_file = folder / CONFIG_FILE
    model = read_config(config_file).get("model_cfg")
    card = model.get("parent") if isinstance(model, dict) else None
    fields = ("model", "pretrained", *_IDENTITY)
    if not isinstance(card, dict) or not all(isinstance(card.get(name), str) for name in fields):
        raise DataError(f"{config_file}: model_cfg does not name the parent model")
    if not (folder / MAPS_FILE).is_file():
        raise DataError(f"{folder / MAPS_FILE} is missing", "run `mmindex adapt` again")
    parent = _parent(card["model"], card["pretrained"], folder, request.allow_pickle_weights)
    if parent is None:
        raise DataError(
            f"{config_file}: the parent {card['model']!r} {card['pretrained']!r} is neither known "
            f"by its name nor in the folder {PARENT_FOLDER!r}"
        )
    identity = {name: card[name] for name in _IDENTITY}
    return Adaptation(parent, identity, config_file, folder / MAPS_FILE)


def _parent(name: str, pretrained: str, folder: Path, allow_pickle: bool) -> ModelRequest | None:
    """Return the request for the parent; None if its path is outside the folder."""
    inside = folder / PARENT_FOLDER
    if name == f"{LOCAL_DIR}{PARENT_FOLDER}":
        name = f"{LOCAL_DIR}{inside}"
    elif name.startswith(LOCAL_DIR):
        return None
    if "/" in pretrained:
        first, _, file = pretrained.partition("/")
        if first != PARENT_FOLDER or Path(file).name != file or file in ("", "..", "."):
            return None
        pretrained = str(inside / file)
    return ModelRequest(name, pretrained, allow_pickle)


def save_maps(maps: Maps, path: Path) -> None:
    """Write the maps. Equal maps result in equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save

    tensors = {
        "image.weight": maps.image.weight,
        "image.bias": maps.image.bias,
        "text.weight": maps.text.weight,
        "text.bias": maps.text.bias,
        _LOGIT_SCALE: np.array([maps.logit_scale], dtype=np.float32),
    }
    path.write_bytes(save({name: np.ascontiguousarray(one) for name, one in tensors.items()}))


def load_maps(path: Path, dim: int) -> Maps:
    """Read the maps of a model whose vectors have ``dim`` dimensions.

    Raises:
        DataError: the file is damaged, or its maps have other shapes or are not finite.
        MmindexError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with os_errors(path):
        data = path.read_bytes()
    try:
        stored = load(data)
    except SafetensorError as error:
        raise DataError(f"maps {path}: damaged: {first_lines(error, 2)}") from error

    def part(name: str, *shape: int) -> Float32:
        value = stored.get(name)
        if value is None or value.shape != shape or value.dtype != np.float32:
            raise DataError(f"maps {path}: {name} is not float32 {shape}")
        if not np.isfinite(value).all():
            raise DataError(f"maps {path}: {name} is not finite")
        return np.asarray(value, dtype=np.float32)

    image = Affine(part("image.weight", dim, dim), part("image.bias", dim))
    text = Affine(part("text.weight", dim, dim), part("text.bias", dim))
    return Maps(image, text, float(part(_LOGIT_SCALE, 1)[0]))


def config_text(model_cfg: Mapping[str, Any]) -> str:
    """Return the content of ``open_clip_config.json`` for an adapted model."""
    return json.dumps({"model_cfg": model_cfg}, indent=2) + "\n"
