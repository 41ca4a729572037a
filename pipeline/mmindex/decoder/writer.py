"""Write about the images of a store: descriptions, answers and lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

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
from mmindex.decoder.tasks import Task
from mmindex.decoder.words import split_words
from mmindex.models.adapted_network import AdaptedNetwork
from mmindex.models.files import locate
from mmindex.models.openclip import OpenClipEncoder
from mmindex.models.preprocess import PreprocessSpec, to_pixels
from mmindex.search.named import open_image
from mmindex.search.vectorize import Vectorizer, request_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


_BATCH: Final = 32
_PROMPTS: Final = 2_048  # answered before the first of them is yielded


@dataclass(frozen=True, slots=True)
class Written:
    """A text about an image of the corpus.

    Attributes:
        id, uri: those of the image.
        prompt: the prompt.
        name: the id of the question; empty if it has none.
        found: the text, or the error if there is none.
    """

    id: str
    uri: str
    prompt: str
    name: str
    found: Generated | MmindexError


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

    def each(self, tasks: Iterable[Task], search: Search) -> Iterator[Written]:
        """Yield a text or an error for each prompt of each task, in order."""
        waiting = iter(tasks)
        while part := list(islice(waiting, _BATCH)):
            opened = [_opened(task.uri) for task in part]
            images = [one for one in opened if not isinstance(one, MmindexError)]
            maps = self._maps(images) if images else []
            rows = iter(range(len(images)))
            places = [None if isinstance(one, MmindexError) else next(rows) for one in opened]
            asked = [
                (place, prompt)
                for task, place in zip(part, places, strict=True)
                for prompt in task.prompts
                if place is not None and self.refusal(prompt) is None
            ]
            texts = self._texts(maps, asked, search)
            for task, one in zip(part, opened, strict=True):
                for name, prompt in zip_longest(task.names, task.prompts, fillvalue=""):
                    bad = one if isinstance(one, MmindexError) else self.refusal(prompt)
                    yield Written(task.id, task.uri, prompt, name, bad or next(texts))

    def refusal(self, prompt: str) -> UsageError | None:
        """Return the error if a prompt has no known words or too many words; otherwise None."""
        try:
            self.model.vocabulary.prompt(prompt)
        except UsageError as error:
            return error
        return None

    def blind(self, prompts: Iterable[str], search: Search) -> dict[str, str]:
        """Return the answer of the decoder to each valid prompt without an image."""
        different = [one for one in dict.fromkeys(prompts) if self.refusal(one) is None]
        shape = self.model.network.shape
        maps = [torch.zeros(1, places, channels) for channels, places in shape.maps]
        hidden = replace(search, blind=True)
        found = generate(self.model, maps, different, hidden, [0] * len(different))
        return dict(zip(different, (one.text for one in found), strict=True))

    def _texts(
        self, maps: Sequence[Tensor], asked: Sequence[tuple[int, str]], search: Search
    ) -> Iterator[Generated]:
        """Yield the text for each row of the maps and prompt."""
        for first in range(0, len(asked), _PROMPTS):
            rows, prompts = zip(*asked[first : first + _PROMPTS], strict=True)
            yield from generate(self.model, maps, prompts, search, rows)

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


def _opened(uri: str) -> Image | MmindexError:
    try:
        return open_image(uri)
    except (DataError, NoInputError) as error:
        return error
