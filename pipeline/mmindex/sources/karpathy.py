"""Karpathy's splits: ``dataset_coco.json`` and ``dataset_flickr30k.json``.

Published in ``caption_datasets.zip``, which may stay packed. COCO's ``restval`` (the part of
val2014 that is neither val nor test) counts as ``train``, as in the papers that use these splits.
Source: A. Karpathy, L. Fei-Fei, https://cs.stanford.edu/people/karpathy/deepimagesent/
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import (
    Ignored,
    ItemError,
    MetadataValue,
    Note,
    Reason,
    Rejected,
    SourceEvent,
    SourceItem,
)
from mmindex.media import archive
from mmindex.media.places import ImagePlace, find_place, is_relative, require_place
from mmindex.sources.annotations import decode_json, notes, read_bytes

_PACKED: Final = "caption_datasets.zip"
_MAX_JSON_BYTES: Final = 4 << 30  # dataset_coco.json has 144 MB
_ID_PREFIX: Final = "coco-karpathy"


class Sentence(msgspec.Struct, gc=False):
    """One caption as written (``raw``); the tokens beside it are not used."""

    raw: str


class KarpathyImage(msgspec.Struct, gc=False):
    """One image of a split file."""

    filename: str
    split: str
    sentences: list[Sentence]
    filepath: str = ""
    cocoid: int | None = None

    @property
    def effective_split(self) -> str:
        """The split by the usual convention."""
        return "train" if self.split == "restval" else self.split


class _Content(msgspec.Struct):
    images: list[KarpathyImage]


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A split file's images in its order, and how many lone surrogates had to be replaced."""

    images: list[KarpathyImage]
    lone_surrogates: int


def find_split_file(path: Path, name: str) -> SplitFile | None:
    """Read ``name`` from ``path``, a folder just below it, or ``caption_datasets.zip`` there.

    Returns:
        its content; None where there is no such file.

    Raises:
        DataError: it is damaged or of another shape.
    """
    candidates = [path / name, *sorted(path.glob(f"*/{name}"))]
    plain = next((candidate for candidate in candidates if candidate.is_file()), None)
    if plain is not None:
        return _decode(read_bytes(plain), str(plain))
    packed = path / _PACKED
    if not packed.is_file():
        return None
    members = archive.list_members(str(packed))
    member = next((one for one in members if Path(one).name == name), None)
    if member is None:
        return None
    where = archive.uri_of_member(str(packed), member)
    try:
        return _decode(archive.read_member(str(packed), member, _MAX_JSON_BYTES), where)
    except ItemError as error:
        raise DataError(f"{where}: {error.detail}") from error


def _decode(data: bytes, where: str) -> SplitFile:
    content, replaced = decode_json(data, _Content, where)
    return SplitFile(content.images, replaced)


def karpathy_events(path: Path, split: str | None, max_bytes: int) -> Iterator[SourceEvent]:
    """Stream COCO by Karpathy's splits, in the file's order.

    Without a split, images whose folder is not there (test and val need val2014 alone) are
    ignored and counted.

    Args:
        path: folder with ``dataset_coco.json`` and ``val2014/``, ``train2014/`` or their zips.
        split: ``test``, ``val`` or ``train``; None for all.
        max_bytes: limit for one image.

    Raises:
        NoInputError: no split file, no such split, or no images there.
        DataError: the split file is damaged.
    """
    content = find_split_file(path, "dataset_coco.json")
    if content is None:
        raise NoInputError(f"{path}: no dataset_coco.json there", f"put {_PACKED} there")
    known = {image.effective_split for image in content.images}
    if split is not None and split not in known:
        raise NoInputError(f"{path}: no split {split!r} (found: {', '.join(sorted(known))})")
    wanted = [image for image in content.images if split in (None, image.effective_split)]
    places = _find_places(path, {image.filepath for image in wanted}, max_bytes)
    if split is not None and None in places.values():
        missing = sorted(name for name, place in places.items() if place is None)
        require_place(path, missing, max_bytes)
    for image in wanted:
        if image.filepath not in places:
            yield _reject(f"{path}/{image.filepath}/{image.filename}", image, _UNSAFE)
        elif (place := places[image.filepath]) is None:
            yield Ignored("its folder is not there")
        else:
            yield from _image_events(place, image)
    yield from notes(lone_surrogates_replaced=content.lone_surrogates)


_UNSAFE: Final = ItemError(Reason.UNSAFE_PATH, "filepath leads out of the source's folder")


def _find_places(path: Path, names: set[str], max_bytes: int) -> dict[str, ImagePlace | None]:
    """Where the images of each ``filepath`` lie; paths that lead out are left out."""
    safe = sorted(name for name in names if is_relative(name))
    places = {name: find_place(path, (name, f"images/{name}"), max_bytes) for name in safe}
    if safe and not any(places.values()):
        require_place(path, safe, max_bytes)
    return places


def _image_events(place: ImagePlace, image: KarpathyImage) -> Iterator[SourceEvent]:
    captions = tuple(sentence.raw for sentence in image.sentences)
    try:
        found = place.find(image.filename)
    except ItemError as error:
        yield _reject(place.uri(image.filename), image, error)
        yield from notes(captions_of_rejected_images=len(captions))
        return
    if not captions:
        yield Note("images_without_captions")
    metadata: dict[str, MetadataValue] = {"coco_id": image.cocoid, "coco_part": image.filepath}
    yield SourceItem(
        image_id=_image_id(image),
        uri=found.uri,
        split=image.effective_split,
        captions=captions,
        read=found.read,
        metadata=metadata,
        stamp=found.stamp,
    )


def _image_id(image: KarpathyImage) -> str:
    return f"{_ID_PREFIX}/{os.path.splitext(image.filename)[0]}"  # noqa: PTH122  # no Path: kept as is


def _reject(uri: str, image: KarpathyImage, error: ItemError) -> Rejected:
    return Rejected(_image_id(image), uri, error.reason, error.detail)
