"""Tokenize texts and count those longer than the context of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import NetworkError, first_lines
from mmindex.models.files import TokenizerSpec, require_transformers
from mmindex.models.vocabulary import CACHED_WORDS
from mmindex.models.wordpiece import PAD, WordPiece, read_vocabulary

Int64 = NDArray[np.int64]
Tokenize = Callable[[list[str]], Int64]

# A longer text is truncated before it is tokenised, because byte-pair encoding of a very long word
# takes quadratic time. Part of the fingerprint.
MAX_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Converts texts to tokens: int64 (b, at most context_length).

    Attributes:
        tokenize: converts texts to tokens, for a context length.
        context_length: the number of positions of the text tower.
        pad: the padding token.
        class_last: whether the last position is a marker after the padding.
    """

    tokenize: Callable[[list[str], int], Int64]
    context_length: int
    pad: int
    class_last: bool = False

    def __call__(self, texts: list[str]) -> Int64:
        """Return the tokens of b texts, truncated to the context."""
        return self.tokenize(texts, self.context_length)

    def count_cut(self, texts: Sequence[str], tokens: Int64) -> int:
        """Return how many of b texts were truncated, by :func:`shorten` or at the context.

        Only texts that fill their row are tokenised again, with one more position: for a text that
        fits, this position is padding. (A position can contain an end marker that equals the
        padding, as in SigLIP; therefore the last two are checked.)

        Args:
            texts: the texts before they were shortened.
            tokens: the tokens of the shortened texts, int64 (b, c).
        """
        cut = [len(text.strip()) > MAX_CHARACTERS for text in texts]
        if tokens.shape[1] == self.context_length:
            rows = self._before_class(tokens)
            full = (rows[:, -2:] != self.pad).any(axis=1).tolist()
            asked = [row for row, fills in enumerate(full) if fills and not cut[row]]
            for row, fits in zip(asked, self._fit(rows[asked], texts, asked), strict=True):
                cut[row] = not fits
        return sum(cut)

    def _fit(self, rows: Int64, texts: Sequence[str], asked: list[int]) -> list[bool]:
        if not asked:
            return []
        longer = self.tokenize(shorten([texts[row] for row in asked]), self.context_length + 1)
        if longer.shape[1] <= self.context_length:  # padded only to the longest text
            return [True] * len(asked)
        longer = self._before_class(longer)
        padding = np.full((len(asked), 1), self.pad)
        padded = (np.concatenate(pair, axis=1) for pair in ((rows, padding), (padding, rows)))
        behind, before = ((longer == both).all(axis=1) for both in padded)
        fits: list[bool] = (behind | before).tolist()
        return fits

    def _before_class(self, tokens: Int64) -> Int64:
        return tokens[:, :-1] if self.class_last else tokens


def make_tokenizer(spec: TokenizerSpec) -> Tokenizer:
    """Return the tokenizer of a model; its tokens are those of open_clip's tokenizer for the model.

    Cleaning (ftfy, HTML entities, white space, lower case) is part of open_clip's tokenizers.

    Raises:
        MissingPackageError: it needs transformers, which is not installed.
        NetworkError: the vocabulary is on the hub, which cannot be reached.
    """
    if spec.kind == "simple" and spec.merges is not None:
        # Imported here: other tokenizers do not need the packages that clean texts.
        from mmindex.models.byte_pairs import read_merges

        pairs = _with_options(spec) if spec.options else read_merges(spec.merges)
        return Tokenizer(pairs, spec.context_length, pad=0)
    if spec.kind == "wordpiece" and spec.merges is not None:
        pieces = WordPiece(read_vocabulary(spec.merges), spec.context_length)
        return Tokenizer(pieces, spec.context_length, pieces.vocabulary[PAD])
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
    # open_clip's "clips" mode uses the padding of the vocabulary and puts the class token last.
    class_last = getattr(tokenizer, "tokenizer_mode", "") == "clips"

    def tokenize(texts: list[str], context_length: int) -> Int64:
        tokens: Int64 = tokenizer(texts, context_length).numpy()
        return tokens

    return Tokenizer(tokenize, spec.context_length, tokenizer.tokenizer.pad_token_id, class_last)


def _with_options(spec: TokenizerSpec) -> Callable[[list[str], int], Int64]:
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer(
        bpe_path=str(spec.merges), context_length=spec.context_length, **spec.options
    )
    fresh = dict(tokenizer.cache)

    def tokenize(texts: list[str], context_length: int) -> Int64:
        if len(tokenizer.cache) > CACHED_WORDS:
            tokenizer.cache = dict(fresh)
        tokens: Int64 = tokenizer(texts, context_length).numpy()
        return tokens

    return tokenize


def shorten(texts: Sequence[str]) -> list[str]:
    """Shorten texts before tokenising: 77 tokens are rarely more than 500 characters."""
    return [text.strip()[:MAX_CHARACTERS] for text in texts]
