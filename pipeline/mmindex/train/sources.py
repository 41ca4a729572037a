"""Corpora to train on, as sequences whose items can be read in any order and in any process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

from mmindex.core.errors import DataError, UsageError
from mmindex.core.progress import get_logger
from mmindex.core.records import SourceItem
from mmindex.scenes import SceneRange, captions, draw, encode, make_scene
from mmindex.sources.scenes import parse_scenes
from mmindex.sources.spec import SourceOptions, open_source, parse_spec
from mmindex.train.settings import CaptionedImage, TrainingItem


@dataclass(frozen=True, slots=True)
class Scenes(Sequence[CaptionedImage]):
    """Scenes that are drawn each time they are read: nothing lies on disk.

    Attributes:
        scenes: which ones.
    """

    scenes: SceneRange

    def __len__(self) -> int:
        return self.scenes.count

    @overload
    def __getitem__(self, index: int) -> CaptionedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CaptionedImage]: ...
    def __getitem__(self, index: int | slice) -> CaptionedImage | Sequence[CaptionedImage]:
        """The item of one scene, or a list of several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        seed, number = self.scenes.seed, self.scenes.numbers[index]
        scene = make_scene(seed, number)
        texts = tuple(caption.text for caption in captions(scene))
        return TrainingItem(partial(_draw_scene, seed, number), texts, _uri(seed, number))

    @property
    def uris(self) -> Sequence[str]:
        """What tells the scenes apart, without drawing them."""
        return [_uri(self.scenes.seed, number) for number in self.scenes.numbers]


def _uri(seed: int, number: int) -> str:
    return f"scenes/{seed}/{number}"


def _draw_scene(seed: int, number: int) -> bytes:
    return encode(draw(make_scene(seed, number)))


def captioned_items(text: str, options: SourceOptions) -> Sequence[CaptionedImage]:
    """The captioned images of a source; those without a caption are left out.

    Args:
        text: a source spec.
        options: for reading it.

    Raises:
        DataError: none has a caption.
        MmindexError: see :func:`mmindex.sources.spec.open_source`.
    """
    spec = parse_spec(text)
    if spec.kind == "scenes":
        scenes = parse_scenes(spec.where)
        return Scenes(SceneRange(scenes.seed, scenes.count))
    items = [
        TrainingItem(event.read, event.captions, event.uri)
        for event in open_source(spec, options)
        if isinstance(event, SourceItem) and event.captions
    ]
    if not items:
        raise DataError(f"{spec}: no image has a caption", "training needs pairs of both")
    return items


def without(
    items: Sequence[CaptionedImage], held_out: Sequence[CaptionedImage]
) -> Sequence[CaptionedImage]:
    """The items that are not held out: recall on images that were trained on means nothing.

    Images are the same where they lie at the same place; copies elsewhere are not found.

    Raises:
        UsageError: every item is held out.
    """
    measured = set(_uris(held_out)) - {""}
    kept = [place for place, uri in enumerate(_uris(items)) if uri not in measured]
    if len(kept) == len(items):
        return items
    if not kept:
        raise UsageError(
            "--validate names all images of --source, so none is left to train on",
            "leave out --validate: a part of --source is then held out",
        )
    get_logger("train").warning(
        "not trained on, as they are used for validation", images=len(items) - len(kept)
    )
    return [items[place] for place in kept]


def _uris(items: Sequence[CaptionedImage]) -> Sequence[str]:
    return items.uris if isinstance(items, Scenes) else [one.uri for one in items]


def split_off(
    items: Sequence[CaptionedImage], count: int
) -> tuple[Sequence[CaptionedImage], Sequence[CaptionedImage]]:
    """(to train on, to validate on): every n-th item, ``count`` in all, is held out."""
    stride = max(2, len(items) // max(1, count))
    held_out = [items[i] for i in range(0, len(items), stride)][:count]
    kept = [items[i] for i in range(len(items)) if i % stride or i // stride >= count]
    return kept, held_out
