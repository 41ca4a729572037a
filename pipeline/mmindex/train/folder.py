"""A model to train, its vocabulary, and its folder: open_clip's ``local-dir:`` layout."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from open_clip.tokenizer import bytes_to_unicode, get_clean_fn
from safetensors.torch import save_file
from torch import nn

from mmindex.core.errors import DataError, UsageError
from mmindex.core.progress import get_logger
from mmindex.models.files import ModelFiles, locate, require_transformers
from mmindex.models.openclip import build_network
from mmindex.models.resolve import CONFIG_FILE, LOCAL_DIR, NO_WEIGHTS, ModelRequest, open_clip_dir
from mmindex.models.tokenizer import Tokenize, make_tokenizer

MERGES_FILE: Final = "bpe_merges.txt.gz"
BYTE_TOKENS: Final = 512  # each byte inside a word and at the end of a word
SPECIAL_TOKENS: Final = 2  # start and end of text
_HEADER: Final = "#version: mmindex"
# The tokenizer's splits before merging, except for numerals that are not digits.
_WORDS: Final = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")

Pair = tuple[str, str]


def vocabulary_size(merges: int) -> int:
    """Return the number of tokens of a tokenizer with this number of merges."""
    return BYTE_TOKENS + merges + SPECIAL_TOKENS


def learn_merges(captions: Iterable[str], limit: int) -> list[Pair]:
    """Learn a byte-pair vocabulary: the pairs to merge, most frequent first, ties alphabetical.

    Byte-pair encoding after Sennrich et al. 2016 (arXiv 1508.07909). All 512 single bytes are
    always tokens, so every script is supported.

    Stops early when every word is one token, so a small corpus has fewer than ``limit`` merges.
    """
    words = _count_words(captions)
    merges: list[Pair] = []
    while len(merges) < limit:
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return merges


def write_merges(path: Path, merges: Iterable[Pair]) -> None:
    """Write the file that ``open_clip.tokenizer.SimpleTokenizer`` reads.

    It is gzip, with one header line and one merge per line; the same merges have the same bytes.
    """
    # No newline at the end: the reader would treat an empty last line as a merge.
    lines = [_HEADER, *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))


def _count_words(captions: Iterable[str]) -> Counter[tuple[str, ...]]:
    clean = get_clean_fn("lower")
    letters = bytes_to_unicode()
    texts = Counter(word for caption in captions for word in _WORDS.findall(clean(caption)))
    words: Counter[tuple[str, ...]] = Counter()
    for text, count in texts.items():
        spelt = [letters[byte] for byte in text.encode("utf-8")]
        words[(*spelt[:-1], spelt[-1] + "</w>")] += count
    return words


def _merged(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    merged: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            merged.append(pair[0] + pair[1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return tuple(merged)


WEIGHTS_FILE: Final = "open_clip_model.safetensors"


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A network with everything needed for its input and for saving it.

    Attributes:
        network: open_clip's CLIP or CustomTextCLIP, float32.
        tokenize: texts to int64 (n, context).
        files: the configuration and tokenizer that it was made from.
    """

    network: nn.Module
    tokenize: Tokenize
    files: ModelFiles


def load_trainable(request: ModelRequest, seed: int) -> TrainableModel:
    """Return a request's model, ready to train; missing weights are drawn from ``seed``.

    Raises:
        UsageError: the network is not one of open_clip's.
        MmindexError: see :func:`mmindex.models.files.locate` and
            :func:`mmindex.models.openclip.build_network`.
    """
    files = locate(request)
    if files.adapted is not None:
        raise UsageError(
            f"model {request.name!r} is an adapted model, which `train` cannot change",
            f"train its parent, {files.adapted.adaptation.parent.name}, and adapt the result",
        )
    if files.built_in:
        raise UsageError(
            f"model {request.name!r} is not an open_clip model, which `train` needs",
            "use an architecture, or a folder that open_clip can read",
        )
    network = build_network(files, seed)
    return TrainableModel(network, make_tokenizer(files.tokenizer), files)


def whole_config(files: ModelFiles) -> dict[str, Any]:
    """Return ``open_clip_config.json`` of a model, for every kind of model name."""
    return {"model_cfg": files.config, "preprocess_cfg": _preprocess(files)}


def learn_vocabulary(
    config: dict[str, Any], captions: Iterable[str], merges: int, folder: Path
) -> ModelRequest:
    """Write a configuration with a new vocabulary into ``folder``: an untrained model.

    Args:
        config: ``model_cfg`` and perhaps ``preprocess_cfg``; its vocabulary is replaced.
        captions: the text to learn byte pairs from.
        merges: the maximum number of merges.
        folder: an existing folder for the configuration and the merges file.

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
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors creates files that only their owner can read
    if model.files.tokenizer.kind == "siglip":
        # open_clip selects SigLIP's tokenizer by the architecture's name, which a folder lacks.
        get_logger("train").info(
            "weights only: use them with `pretrained`", model=model.files.base, file=WEIGHTS_FILE
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
        # In the configuration, the file name is relative to the folder.
        named = folder / files.config["text_cfg"]["tokenizer_kwargs"]["bpe_path"]
        shutil.copyfile(merges, named)


def _preprocess(files: ModelFiles) -> dict[str, Any]:
    """Return every key explicitly, so that a later default cannot change the vectors."""
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
    """Round the weights to float16 values, so that the measured weights are the saved ones."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())


def replaced(model: TrainableModel, network: torch.nn.Module) -> TrainableModel:
    """Return the same model with other weights."""
    return TrainableModel(network, model.tokenize, model.files)
