"""A trained decoder: its file, and the answers that it generates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mmindex.core.errors import DataError, ModelMismatchError, first_lines, os_errors
from mmindex.decoder.network import DecoderNetwork, Shape
from mmindex.decoder.words import Vocabulary, read_words

DECODER_FILE: Final = "decoder.safetensors"
_CARD: Final = "mmindex.decoder"
_LARGEST: Final = {"words": 100_000, "width": 4_096, "layers": 64, "heads": 64}


@dataclass(frozen=True, slots=True)
class DecoderModel:
    """A network with its words.

    Attributes:
        network: the network.
        vocabulary: its words.
        weights: the hash of the weights of the model whose feature maps it reads, as in
            :class:`mmindex.store.manifest.EncoderInfo`.
        digest: the sha256 of its file; empty if it was not read from a file.
    """

    network: DecoderNetwork
    vocabulary: Vocabulary
    weights: str
    digest: str = ""


def save_decoder(model: DecoderModel, path: Path) -> None:
    """Write a decoder with float16 weights; equal decoders result in equal bytes.

    Raises:
        MmindexError: the file cannot be written.
    """
    from safetensors.torch import save

    card = {
        "shape": asdict(model.network.shape),
        "vocabulary": model.vocabulary.words,
        "weights": model.weights,
    }
    tensors = {
        name: value.detach().half().cpu().contiguous()
        for name, value in model.network.state_dict().items()
    }
    with os_errors(path):
        path.write_bytes(save(tensors, metadata={_CARD: json.dumps(card, sort_keys=True)}))


def load_decoder(path: Path) -> DecoderModel:
    """Read a decoder.

    Raises:
        DataError: the file is damaged, or not a decoder.
        MmindexError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with os_errors(path), path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(_CARD, "null"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        return replace(_built(card, tensors), digest=digest)
    except (SafetensorError, ValueError, RuntimeError, RecursionError, DataError) as error:
        raise DataError(f"decoder {path}: damaged: {first_lines(error, 2)}") from error


def _built(card: Any, tensors: dict[str, Tensor]) -> DecoderModel:
    if not isinstance(card, dict) or not isinstance(card.get("weights"), str):
        raise DataError("not a decoder of mmindex")
    vocabulary, shape = read_words(card.get("vocabulary")), _read_shape(card.get("shape"))
    if shape.words != len(vocabulary):
        raise DataError(f"{len(vocabulary)} words, but a network for {shape.words}")
    # Without memory: the shape in a damaged file can be huge, but the weights are in the file.
    with torch.device("meta"):
        network = DecoderNetwork(shape)
    network.load_state_dict(tensors, assign=True)
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise DataError("the weights are not finite")
    return DecoderModel(
        network.eval().requires_grad_(requires_grad=False), vocabulary, card["weights"]
    )


def _read_shape(given: Any) -> Shape:
    if not isinstance(given, dict) or given.keys() != Shape.__dataclass_fields__.keys():
        raise DataError("the shape of the network is missing")
    for name, largest in _LARGEST.items():
        if not isinstance(given[name], int) or not 1 <= given[name] <= largest:
            raise DataError(f"{name} {given[name]!r} is not a number from 1 to {largest}")
    maps = given["maps"]
    sizes = [number for one in maps for number in one] if isinstance(maps, list) else []
    if not sizes or not all(isinstance(size, int) and 1 <= size <= 100_000 for size in sizes):
        raise DataError(f"maps {maps!r} are not pairs of numbers")
    if given["width"] % given["heads"]:
        raise DataError("the width is not a multiple of the number of heads")
    return Shape(**{**given, "maps": tuple((channels, places) for channels, places in maps)})


def find_decoder(folder: Path | None, model: str, weights: str) -> DecoderModel:
    """Return the decoder beside the weights of a model.

    Args:
        folder: the folder of the model; None if it has none.
        model: its name, for messages.
        weights: the hash of its weights.

    Raises:
        ModelMismatchError: there is no decoder, or it belongs to other weights.
        DataError: it is damaged.
    """
    path = None if folder is None else folder / DECODER_FILE
    if path is None or not path.is_file():
        raise ModelMismatchError(
            f"model {model!r} has no decoder, which writes descriptions and answers",
            "train one with `mmindex train --decoder`, or use the embedded model",
        )
    found = load_decoder(path)
    if found.weights != weights:
        raise ModelMismatchError(
            f"decoder {path} was trained with other weights of {model!r}",
            "train it again with `mmindex train --decoder`",
        )
    return found
