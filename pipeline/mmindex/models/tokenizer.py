"""Texts to tokens, and how much of a batch of tokens a causal tower really has to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mmindex.core.errors import NetworkError, first_lines
from mmindex.models.files import TokenizerSpec, require_transformers
from mmindex.models.wordpiece import WordPiece, read_vocabulary

if TYPE_CHECKING:
    import torch

Tokenize = Callable[[list[str]], "torch.Tensor"]

# A longer text is cut here before it is tokenised: byte-pair encoding of one endless word takes
# quadratic time. Part of the fingerprint.
MAX_CHARACTERS = 4096

# The tokenizer's cache of words grows with every new word; English captions have some 100,000.
_CACHED_WORDS = 200_000


def make_tokenizer(spec: TokenizerSpec) -> Tokenize:
    """open_clip's tokenizer, as a function from texts to int64 (b, context_length).

    Cleaning (ftfy, HTML entities, white space, lower case) is part of open_clip's tokenizers.

    Raises:
        MissingPackageError: it needs transformers, which is not installed.
        NetworkError: its vocabulary is on the hub, which cannot be reached.
    """
    if spec.kind == "simple":
        return _simple(spec)
    if spec.kind == "wordpiece" and spec.merges is not None:
        return WordPiece(read_vocabulary(spec.merges), spec.context_length)
    require_transformers(f"the tokenizer {spec.source!r}")
    from open_clip.tokenizer import HFTokenizer, SigLipTokenizer

    made_by = HFTokenizer if spec.kind == "hf" else SigLipTokenizer
    try:
        tokenizer = made_by(spec.source, context_length=spec.context_length, **spec.options)
    except OSError as error:
        raise NetworkError(
            f"tokenizer {spec.source!r}: {first_lines(error)}",
            "save the tokenizer's files in a local-dir: folder",
        ) from error
    tokenize: Tokenize = tokenizer
    return tokenize


def _simple(spec: TokenizerSpec) -> Tokenize:
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer(
        bpe_path=str(spec.merges), context_length=spec.context_length, **spec.options
    )
    fresh = dict(tokenizer.cache)

    def tokenize(texts: list[str]) -> torch.Tensor:
        if len(tokenizer.cache) > _CACHED_WORDS:
            tokenizer.cache = dict(fresh)
        tokens: torch.Tensor = tokenizer(texts)
        return tokens

    return tokenize


def shorten(texts: Sequence[str]) -> list[str]:
    """Cut texts to what a tower can see: 77 tokens are rarely more than 500 characters."""
    return [text.strip()[:MAX_CHARACTERS] for text in texts]
