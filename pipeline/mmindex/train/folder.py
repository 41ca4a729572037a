"""A model to train, and its folder: open_clip's ``local-dir:`` layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import nn

from mmindex.core.errors import DataError
from mmindex.core.progress import get_logger
from mmindex.models.files import ModelFiles, locate, require_transformers
from mmindex.models.openclip import build_network
from mmindex.models.resolve import CONFIG_FILE, LOCAL_DIR, NO_WEIGHTS, ModelRequest, open_clip_dir
from mmindex.models.tokenizer import Tokenize, make_tokenizer
from mmindex.train.tokens import MERGES_FILE, learn_merges, vocabulary_size, write_merges

WEIGHTS_FILE: Final = "open_clip_model.safetensors"


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A network with all that is needed to feed it and to save it.

    Attributes:
        network: open_clip's CLIP or CustomTextCLIP, float32.
        tokenize: texts to int64 (n, context).
        files: the configuration and tokenizer that it was made from.
    """

    network: nn.Module
    tokenize: Tokenize
    files: ModelFiles


def load_trainable(request: ModelRequest, seed: int) -> TrainableModel:
    """The model that a request means, ready to train; without weights they are drawn from ``seed``.

    Raises:
        MmindexError: see :func:`mmindex.models.files.locate` and
            :func:`mmindex.models.openclip.build_network`.
    """
    files = locate(request)
    network = build_network(files, seed)
    return TrainableModel(network, make_tokenizer(files.tokenizer), files)


def whole_config(files: ModelFiles) -> dict[str, Any]:
    """``open_clip_config.json`` of a model, whatever kind of name it was asked for by."""
    return {"model_cfg": files.config, "preprocess_cfg": _preprocess(files)}


def learn_vocabulary(
    config: dict[str, Any], captions: Iterable[str], merges: int, folder: Path
) -> ModelRequest:
    """Put a configuration with a vocabulary of its own into ``folder``: an untrained model.

    Args:
        config: ``model_cfg`` and perhaps ``preprocess_cfg``; its vocabulary is replaced.
        captions: what to learn byte pairs from.
        merges: at most so many pairs are merged.
        folder: exists; gets the configuration and the merges file.

    Raises:
        DataError: ``config`` has no text tower with byte-pair tokens.
    """
    text = config.get("model_cfg", {}).get("text_cfg", {})
    if not text or "hf_model_name" in text:
        raise DataError("model_cfg has no text tower whose vocabulary could be learned")
    learned = learn_merges(captions, merges)
    write_merges(folder / MERGES_FILE, learned)
    text = {
        **text,
        "vocab_size": vocabulary_size(len(learned)),
        "tokenizer_kwargs": {"bpe_path": MERGES_FILE},
    }
    whole = {**config, "model_cfg": {**config["model_cfg"], "text_cfg": text}}
    (folder / CONFIG_FILE).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return ModelRequest(f"{LOCAL_DIR}{folder.absolute()}", NO_WEIGHTS)


def save_folder(model: TrainableModel, folder: Path, *, half: bool) -> None:
    """Write configuration, tokenizer and weights into ``folder``, which exists.

    Args:
        half: store floating-point weights as float16 (open_clip loads them into float32).
    """
    weights = {
        name: (value.half() if half and value.is_floating_point() else value).cpu().contiguous()
        for name, value in model.network.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it readable by its owner alone
    if model.files.tokenizer.kind == "siglip":
        # open_clip picks SigLIP's tokenizer by the architecture's name, which a folder hides.
        get_logger("train").info(
            "weights only: use them with --pretrained", model=model.files.base, file=WEIGHTS_FILE
        )
        return
    _save_tokenizer(model.files, folder)
    config = json.dumps(whole_config(model.files), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8")


def _save_tokenizer(files: ModelFiles, folder: Path) -> None:
    if files.tokenizer.kind == "hf":
        require_transformers("saving the tokenizer")
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(files.tokenizer.source).save_pretrained(str(folder))
    merges = files.tokenizer.merges
    if merges is not None and not merges.is_relative_to(open_clip_dir()):
        # The configuration names it relative to the folder, under the name that it has.
        named = folder / files.config["text_cfg"]["tokenizer_kwargs"]["bpe_path"]
        shutil.copyfile(merges, named)


def _preprocess(files: ModelFiles) -> dict[str, Any]:
    """Every key written out, so that a later default cannot change the vectors."""
    given = asdict(files.preprocess)
    return {
        "size": [given["height"], given["width"]],
        "mode": "RGB",
        "mean": list(given["mean"]),
        "std": list(given["std"]),
        "interpolation": given["interpolation"],
        "resize_mode": given["resize_mode"],
        "fill_color": given["fill"],
    }


@torch.no_grad()
def round_to_half(network: nn.Module) -> None:
    """Round the weights to what float16 can hold, so that what is measured is what is saved."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())


def replaced(model: TrainableModel, network: torch.nn.Module) -> TrainableModel:
    """The same model with other weights."""
    return TrainableModel(network, model.tokenize, model.files)
