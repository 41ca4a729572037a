"""The text side of a model, in NumPy.

A query from the shell encodes one short text, and importing torch takes longer than the rest of the
query. This module loads neither torch nor the weights of the image side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mmindex.models.adapted import Affine
from mmindex.models.clip_texts import ClipPlan, read_clip_texts
from mmindex.models.encoder import Float32
from mmindex.models.files import TokenizerSpec, architecture, locate
from mmindex.models.fingerprint import describe, describe_unchanged, has_architecture
from mmindex.models.photos_texts import read_photos_texts
from mmindex.models.resolve import PHOTOS_NETWORK, SAFE, ModelRequest, refuse_unknown
from mmindex.models.tokenizer import Tokenizer, make_tokenizer, shorten
from mmindex.models.trim import spans
from mmindex.store.manifest import EncoderInfo

Int64 = NDArray[np.int64]

# Positions per batch: the intermediate values of a layer stay in the processor's cache.
_TOKENS: Final = 1_024


class Tower(Protocol):
    """A text tower."""

    def lengths(self, tokens: Int64) -> Int64:
        """Return the number of positions that each text in int64 (b, c) needs: int64 (b,)."""

    def __call__(self, tokens: Int64) -> Float32:
        """Encode int64 (b, length) as float32 (b, dim), not of unit length."""


@dataclass(slots=True)
class TextSide:
    """Encodes texts; see :class:`mmindex.models.encoder.TextEncoder`.

    Attributes:
        info: the description of the model.
        adapted: the map for texts of an adapted model; None for other models.
        cut_texts: the number of texts so far that were truncated to the context of the model.
    """

    info: EncoderInfo
    tokenize: Tokenizer
    tower: Tower
    adapted: Affine | None = None
    cut_texts: int = 0

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts into float32 (b, dim), unit length, in the order given.

        A row for which the model returns NaN, infinity or zeros does not have unit length.
        """
        out = np.empty((len(texts), self.info.dim), dtype=np.float32)
        if not texts:
            return out
        tokens = self.tokenize(shorten(texts))
        self.cut_texts += self.tokenize.count_cut(texts, tokens)
        lengths = self.tower.lengths(tokens)
        order = lengths.argsort(kind="stable")
        for span in spans(lengths[order].tolist(), _TOKENS):
            rows = order[span]
            vectors = self.tower(tokens[rows, : lengths[rows[-1]]])
            with np.errstate(invalid="ignore", divide="ignore"):
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            out[rows] = vectors if self.adapted is None else self.adapted(vectors)
        return out


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a model that encode texts.

    Attributes:
        config: the architecture, as open_clip's JSON.
        describe: reads all files of the model and returns its description; None if they have
            changed.
    """

    config: Mapping[str, Any]
    tokenizer: TokenizerSpec
    weights: Path | None
    adapted: Affine | None
    describe: Callable[[], EncoderInfo | None]

    def reader(self) -> Callable[[], Tower | None] | None:
        """Return a function that reads the tower; None if only torch can compute the tower."""
        if self.weights is None or self.weights.suffix != SAFE or self.tokenizer.options:
            return None
        if self.config.get("network") == PHOTOS_NETWORK:
            return partial(read_photos_texts, self.weights, self.config)
        plan = ClipPlan.of(self.config) if self.tokenizer.kind == "simple" else None
        return None if plan is None else partial(read_clip_texts, self.weights, plan)


def read_text_side(request: ModelRequest, index: EncoderInfo) -> TextSide | None:
    """Read the text side of a model, in float32.

    Args:
        request: the model.
        index: the description of the model of the index.

    Returns:
        The text side; None if only torch can compute it, or if open_clip is needed to find out
        whether this is still the model of the index.

    Raises:
        DataError: the weights are damaged.
        ModelMismatchError: the weights do not match the configuration.
        MmindexError: another file is missing or damaged.
    """
    refuse_unknown(request.name)
    whole = request.folder is not None or request.repository is not None
    parts = _of_files(request) if whole else _of_architecture(request, index)
    reader = None if parts is None else parts.reader()
    if parts is None or reader is None:
        return None
    with ThreadPoolExecutor(1) as pool:
        # Computing the hash of the weights takes about as long as everything else here.
        described = pool.submit(parts.describe)
        tower, tokenizer = reader(), make_tokenizer(parts.tokenizer)
        info = described.result()
    if tower is None or info is None:
        return None
    return TextSide(info, tokenizer, tower, parts.adapted)


def _of_files(request: ModelRequest) -> _Parts:
    files = locate(request)
    adapted = None if files.adapted is None else files.adapted.maps().text
    described = partial(describe, request, files, "fp32")
    return _Parts(files.config, files.tokenizer, files.weights, adapted, described)


def _of_architecture(request: ModelRequest, index: EncoderInfo) -> _Parts | None:
    """Return the parts of an architecture of open_clip, found with the description of the index.

    To find the weights without it, open_clip would be imported for its table of pretrained tags.
    """
    config, tokenizer = architecture(request.name)
    configs = (config, {**config, "quick_gelu": True})
    found = next((one for one in configs if has_architecture(index, one)), None)
    if not request.trained or found is None or len(index.inputs) != 1:
        return None
    weights = Path(index.inputs[0].path)
    if not weights.is_file():  # the store or the cache of models was moved
        return None
    described = partial(describe_unchanged, request, index, "fp32")
    return _Parts(found, tokenizer, weights, None, described)
