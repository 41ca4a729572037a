"""Write about the images of a store: descriptions, answers and lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from mmindex.core.errors import (
    DataError,
    MmindexError,
    ModelMismatchError,
    NoInputError,
    UsageError,
)
from mmindex.decoder.features import Features
from mmindex.decoder.generate import GREEDY, Generated, Search, generate, likelihoods
from mmindex.decoder.model import DecoderModel, find_decoder
from mmindex.decoder.words import split_words
from mmindex.models.adapted_network import AdaptedNetwork
from mmindex.models.files import locate
from mmindex.models.openclip import OpenClipEncoder
from mmindex.models.preprocess import PreprocessSpec, to_pixels
from mmindex.search.named import open_image
from mmindex.search.vectorize import Vectorizer, request_of
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mmindex.search.filters import Rows

_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Written:
    """A text about an image of the corpus.

    Attributes:
        id, uri: of the image.
        text: the text; None if the image cannot be used.
        score: mean log-probability of its words.
        error: why the image cannot be used.
    """

    id: str
    uri: str
    text: str | None = None
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A given answer with the mean log-probability of its words, at most 0."""

    answer: str
    score: float


class Writer:
    """The decoder of a store's model with the image tower that it reads."""

    def __init__(self, model: DecoderModel, features: Features, preprocess: PreprocessSpec) -> None:
        self.model, self._features, self._preprocess = model, features, preprocess

    def write(
        self, images: Sequence[Image], prompt: str, search: Search = GREEDY
    ) -> list[Generated]:
        """Return one text for each RGB image.

        Raises:
            UsageError: the prompt has no words, or too many.
        """
        return generate(self.model, self._maps(images), [prompt] * len(images), search)

    def rank(self, image: Image, question: str, answers: Sequence[str]) -> list[Ranked]:
        """Return the given answers, the most likely first.

        Raises:
            UsageError: the question or an answer has no words, or the question has too many.
        """
        for answer in answers:
            if not split_words(answer):
                raise UsageError(f"the answer {answer[:80]!r} has no words")
        scores = likelihoods(self.model, self._maps([image]), question, answers)[0].tolist()
        ranked = [Ranked(*pair) for pair in zip(answers, scores, strict=True)]
        return sorted(ranked, key=lambda one: -one.score)

    def corpus(
        self, snapshot: Snapshot, prompt: str, search: Search, rows: Rows | None = None
    ) -> Iterator[Written]:
        """Write about every image of a version, in table order; unusable images have an error.

        Args:
            rows: bool (images,), the images to write about; None for all.

        Raises:
            UsageError: the prompt has no words, or too many.
        """
        self.model.vocabulary.prompt(prompt)
        names = _named(snapshot, rows)
        while part := list(islice(names, _BATCH)):
            opened = [_opened(uri) for _, uri in part]
            images = [one for one in opened if not isinstance(one, MmindexError)]
            texts = iter(self.write(images, prompt, search) if images else ())
            for (name, uri), one in zip(part, opened, strict=True):
                if isinstance(one, MmindexError):
                    yield Written(name, uri, error=one.message)
                    continue
                found = next(texts)
                yield Written(name, uri, found.text, found.score)

    def _maps(self, images: Sequence[Image]) -> list[Tensor]:
        pixels = [to_pixels(image, self._preprocess) for image in images]
        return [part.cpu() for part in self._features(np.stack(pixels))]


def open_writer(vectorizer: Vectorizer) -> Writer:
    """Return the writer of a store, whose decoder is beside the weights of its model.

    Raises:
        ModelMismatchError: the model has no decoder, or the decoder belongs to other weights.
        DataError: the decoder is damaged.
    """
    files, info = locate(request_of(vectorizer.snapshot)), vectorizer.snapshot.encoder
    weights = (
        info.weights if files.adapted is None else files.adapted.adaptation.identity["weights"]
    )
    folder = None if files.config_file is None else files.config_file.parent
    decoder = find_decoder(folder, info.model, weights)
    encoder = vectorizer.encoder
    if not isinstance(encoder, OpenClipEncoder):
        raise ModelMismatchError(f"model {info.model!r} cannot be used with a decoder")
    network = encoder.model
    if isinstance(network, AdaptedNetwork):
        network = network.parent
    maps = decoder.network.shape.maps
    features = Features(network, encoder.preprocess, len(maps))
    if features.shape() != maps:
        raise DataError(f"the decoder of {info.model!r} reads feature maps of another size")
    return Writer(decoder, features, encoder.preprocess)


def _named(snapshot: Snapshot, rows: Rows | None) -> Iterator[tuple[str, str]]:
    first = 0
    for batch in snapshot.batches("images", ["image_id", "uri"], 8_192):
        names = zip(contents(batch["image_id"]), contents(batch["uri"]), strict=True)
        for row, pair in enumerate(names, start=first):
            if rows is None or rows[row]:
                yield pair
        first += batch.num_rows


def _opened(uri: str) -> Image | MmindexError:
    try:
        return open_image(uri)
    except (DataError, NoInputError) as error:
        return error
