"""A corpus prepared for training: captions as tokens and, optionally, images as pixels, on disk.

Both are in flat files that are mapped into memory, so a run's memory does not grow with the corpus,
except for the list of items itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mmindex.core.config import LimitsConfig
from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex.core.progress import bar, counter, get_logger
from mmindex.core.records import ItemError, SourceItem
from mmindex.core.workers import WORKERS
from mmindex.media.images import ImageLimits, decode
from mmindex.models.preprocess import PreprocessSpec, to_pixels
from mmindex.models.tokenizer import Tokenize, shorten
from mmindex.scenes import SceneRange, captions, draw, encode, make_scene
from mmindex.sources.captions import usable_captions
from mmindex.sources.kinds.scenes import parse_scenes
from mmindex.sources.spec import SourceOptions, open_source, parse_spec
from mmindex.train.settings import CaptionedImage, TrainingItem


@dataclass(frozen=True, slots=True)
class Scenes(Sequence[CaptionedImage]):
    """Scenes that are drawn each time they are read, without files.

    Attributes:
        scenes: the range of scenes.
    """

    scenes: SceneRange

    def __len__(self) -> int:
        return self.scenes.count

    @overload
    def __getitem__(self, index: int) -> CaptionedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CaptionedImage]: ...
    def __getitem__(self, index: int | slice) -> CaptionedImage | Sequence[CaptionedImage]:
        """Return the item of one scene, or a list of several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        seed, number = self.scenes.seed, self.scenes.numbers[index]
        scene = make_scene(seed, number)
        texts = tuple(caption.text for caption in captions(scene))
        return TrainingItem(partial(_draw_scene, seed, number), texts, _uri(seed, number))

    @property
    def uris(self) -> Sequence[str]:
        """The identities of the scenes, without drawing them."""
        return [_uri(self.scenes.seed, number) for number in self.scenes.numbers]


def _uri(seed: int, number: int) -> str:
    return f"scenes/{seed}/{number}"


def _draw_scene(seed: int, number: int) -> bytes:
    return encode(draw(make_scene(seed, number)))


def captioned_items(text: str, options: SourceOptions) -> Sequence[CaptionedImage]:
    """Return the captioned images of a source; those without a caption are left out.

    Args:
        text: a source spec.
        options: options for reading it.

    Raises:
        DataError: no image has a caption.
        MmindexError: see :func:`mmindex.sources.spec.open_source`.
    """
    spec = parse_spec(text)
    if spec.kind == "scenes":
        scenes = parse_scenes(spec.where)
        return Scenes(SceneRange(scenes.seed, scenes.count))
    items = [
        TrainingItem(event.read, captions, event.uri)
        for event in open_source(spec, options)
        if isinstance(event, SourceItem)
        if (captions := tuple(text for _, text in usable_captions(event.captions)))
    ]
    if not items:
        raise DataError(f"{spec}: no image has a caption", "training needs images with captions")
    return items


def without(
    items: Sequence[CaptionedImage], held_out: Sequence[CaptionedImage]
) -> Sequence[CaptionedImage]:
    """Return the items that are not held out: recall on training images would be meaningless.

    Images are identified by location; copies elsewhere are not found.

    Raises:
        UsageError: every item is held out.
    """
    measured = set(_uris(held_out)) - {""}
    kept = [place for place, uri in enumerate(_uris(items)) if uri not in measured]
    if len(kept) == len(items):
        return items
    if not kept:
        raise UsageError(
            "all training images are also used for validation, so none is left",
            "remove `validate` to hold out a part of `source`",
        )
    get_logger("train").warning(
        "validation images are left out of training", images=len(items) - len(kept)
    )
    return [items[place] for place in kept]


def _uris(items: Sequence[CaptionedImage]) -> Sequence[str]:
    return items.uris if isinstance(items, Scenes) else [one.uri for one in items]


def split_off(
    items: Sequence[CaptionedImage], count: int
) -> tuple[Sequence[CaptionedImage], Sequence[CaptionedImage]]:
    """Split items for training and validation: every n-th item, ``count`` in all, is held out."""
    stride = max(2, len(items) // max(1, count))
    held_out = [items[i] for i in range(0, len(items), stride)][:count]
    kept = [items[i] for i in range(len(items)) if i % stride or i // stride >= count]
    return kept, held_out


T = TypeVar("T")

_TOKENISE_AT_ONCE: Final = 1024  # images in the sample; their captions need little memory
LIMITS: Final = ImageLimits.of(LimitsConfig())


@dataclass(frozen=True, slots=True)
class Decoder:
    """Reads an item's image in the form of the network's input, before normalisation."""

    spec: PreprocessSpec

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        return self.spec.height, self.spec.width, 3

    def __call__(self, item: CaptionedImage) -> NDArray[np.uint8] | None:
        """Return uint8 (height, width, 3), or None if the image cannot be read."""
        try:
            return to_pixels(decode(item.read(), LIMITS), self.spec)
        except (ItemError, OSError):
            return None


@dataclass(frozen=True)
class Tokens:
    """All captions of a corpus as token rows.

    Attributes:
        path: int32 (captions, context), flat.
        offsets: int64 (images + 1,): image i owns rows offsets[i] to offsets[i + 1].
        fingerprint: sha256 over all captions in order.
    """

    path: Path
    context: int
    offsets: NDArray[np.int64]
    fingerprint: str

    @cached_property
    def rows(self) -> NDArray[np.int32]:
        """The mapped file."""
        shape = (int(self.offsets[-1]), self.context)
        return np.memmap(self.path, np.int32, "r", shape=shape)

    def of(self, image: int) -> NDArray[np.int32]:
        """Return the captions of one image: int32 (captions, context)."""
        rows: NDArray[np.int32] = self.rows[self.offsets[image] : self.offsets[image + 1]]
        return rows

    def pick(
        self, indices: NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Choose different captions of each image at random: int64 (count, b, context).

        For an image with fewer captions than ``count``, some are repeated.
        """
        picked = []
        for index in indices:
            first, last = self.offsets[index], self.offsets[index + 1]
            order = rng.permutation(last - first)
            picked.append(first + np.resize(order, count))
        rows: NDArray[np.int64] = self.rows[np.stack(picked, axis=1)].astype(np.int64)
        return rows


def tokenise(items: Sequence[CaptionedImage], tokenize: Tokenize, path: Path) -> Tokens:
    """Write the captions' tokens to ``path``.

    Raises:
        DataError: an item has no caption to learn from.
    """
    digest = hashlib.sha256()
    counts, context = [0], 0
    with os_errors(path), path.open("wb") as file:
        for batch in _batched(items):
            texts = [text for item in batch for text in item.captions]
            counts += [len(item.captions) for item in batch]
            for text in texts:
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            if texts:
                tokens = tokenize(shorten(texts)).astype(np.int32)
                file.write(tokens.tobytes())
                context = tokens.shape[1]
    if 0 in counts[1:]:
        raise DataError(f"image {counts[1:].index(0)} of the training corpus has no caption")
    return Tokens(path, context, np.cumsum(counts, dtype=np.int64), digest.hexdigest())


def _batched(items: Sequence[CaptionedImage]) -> Iterator[list[CaptionedImage]]:
    for start in bar(
        range(0, len(items), _TOKENISE_AT_ONCE), total=None, label="captions", unit="batch"
    ):
        stop = min(len(items), start + _TOKENISE_AT_ONCE)
        yield [items[index] for index in range(start, stop)]


@dataclass(frozen=True)
class Pixels:
    """Decoded images in one flat file.

    Attributes:
        path: uint8 of ``shape``, (images, height, width, 3).
        unreadable: positions whose image could not be read; their pixels are zero.
    """

    path: Path
    shape: tuple[int, ...]
    unreadable: tuple[int, ...]

    @cached_property
    def rows(self) -> NDArray[np.uint8]:
        """The mapped file."""
        return np.memmap(self.path, np.uint8, "r", shape=self.shape)


class _Decoded(Dataset[NDArray[np.uint8] | None]):
    def __init__(self, items: Sequence[CaptionedImage], decoder: Decoder) -> None:
        self._items, self._decoder = items, decoder

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> NDArray[np.uint8] | None:
        return self._decoder(self._items[index])


def cache_pixels(
    items: Sequence[CaptionedImage], decoder: Decoder, folder: Path, identity: str, workers: int
) -> Pixels:
    """Decode every image once into ``folder``; reuse a finished cache with the same identity.

    Args:
        identity: changes when the corpus does.
        workers: decoding processes; 0 decodes in this one.
    """
    path, note = folder / "pixels.u8", folder / "pixels.json"
    shape = (len(items), *decoder.shape)
    wanted = {"identity": identity, "shape": list(shape), "preprocess": decoder.spec.to_json()}
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in the file
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if {key: found.get(key) for key in wanted} == wanted:
            return Pixels(path, shape, tuple(found["unreadable"]))
    note.unlink(missing_ok=True)
    unreadable = []
    with (
        os_errors(path),
        path.open("wb") as file,
        counter(total=len(items), label="decode", unit="image") as progress,
    ):
        blank = np.zeros(decoder.shape, np.uint8)
        for index, image in enumerate(loaded(_Decoded(items, decoder), workers, chunk=64)):
            if image is None:
                unreadable.append(index)
            file.write((blank if image is None else image).tobytes())
            progress.update(1)
    note.write_text(json.dumps({**wanted, "unreadable": unreadable}), encoding="utf-8")
    return Pixels(path, shape, tuple(unreadable))


class _Chunked(Dataset[list[Any]]):
    def __init__(self, whole: Any, chunk: int) -> None:
        self._whole, self._chunk = whole, chunk

    def __len__(self) -> int:
        return math.ceil(len(self._whole) / self._chunk)

    def __getitem__(self, number: int) -> list[Any]:
        start = number * self._chunk
        return [self._whole[i] for i in range(start, min(len(self._whole), start + self._chunk))]


def as_is(value: T) -> T:
    """Return the value itself: DataLoader would turn arrays into tensors."""
    return value


def loaded(dataset: Any, workers: int, *, chunk: int) -> Iterator[Any]:
    """Yield the dataset's elements in order, computed ahead by ``workers`` processes in chunks."""
    loader: DataLoader[Any] = DataLoader(
        _Chunked(dataset, chunk),
        batch_size=None,
        num_workers=workers,
        collate_fn=as_is,
        multiprocessing_context=WORKERS if workers else None,
    )
    for part in loader:
        yield from part
