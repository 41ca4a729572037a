"""COCO captions: ``annotations/captions_<split>.json`` beside ``<split>/`` or ``<split>.zip``.

Image folders may also lie below ``images/``, and the annotations may stay inside the archive they
are published in (``annotations_trainval2017.zip``). Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import (
    ItemError,
    MetadataValue,
    Note,
    Reason,
    Rejected,
    SourceEvent,
    SourceItem,
)
from mmindex.media import archive
from mmindex.media.places import ImagePlace, find_place, require_place
from mmindex.sources.annotations import decode_json, notes, read_bytes

_CAPTIONS_FILE: Final = re.compile(r"(?:annotations/)?captions_([^/.][^/]*)\.json")
_MAX_ANNOTATION_BYTES: Final = 4 << 30  # train2017's captions are 92 MB


class _Licence(msgspec.Struct, gc=False):
    id: int | str
    name: str | None = None
    url: str | None = None


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    license: int | str | None = None
    flickr_url: str | None = None
    coco_url: str | None = None
    date_captured: str | int | float | None = None


class _Caption(msgspec.Struct, gc=False):
    image_id: int
    caption: str


class _CaptionsFile(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Caption]
    licenses: list[_Licence] = []


@dataclass(frozen=True, slots=True)
class CocoSplit:
    """One split, ready to be read.

    Attributes:
        name: such as ``val2017``.
        id_prefix: what stands before the file's stem in an image's id, such as ``coco/val2017``.
        where: name of the captions file for messages.
        captions: bytes of the captions file.
        images: where the images lie.
    """

    name: str
    id_prefix: str
    where: str
    captions: bytes
    images: ImagePlace


def coco_events(path: Path, split: str | None, max_bytes: int) -> Iterator[SourceEvent]:
    """Stream a local copy of COCO, its splits in the order of their names.

    Memory: one captions file at a time (about 0.5 GB for train2017's 591,753 captions).

    Args:
        path: the folder that holds ``annotations/``.
        split: one split, or None for every split that has both captions and images.
        max_bytes: limit for one image.

    Raises:
        NoInputError: no captions or no images there.
        DataError: a captions file is damaged.
    """
    files = _captions_files(path)
    if split is not None and split not in files:
        found = ", ".join(files) or "none"
        raise NoInputError(f"{path}: no captions of split {split!r} (found: {found})", _hint(path))
    if not files:
        raise NoInputError(f"{path}: no captions there", _hint(path))
    read = 0
    for name in [split] if split is not None else files:
        places = (name, f"images/{name}")
        images = find_place(path, places, max_bytes)
        if images is None and split is None:
            yield Note("splits_without_images")
            continue
        images = images or require_place(path, places, max_bytes)
        where, captions = files[name].load()
        read += 1
        yield from split_events(CocoSplit(name, f"coco/{name}", where, captions, images))
    if not read:
        raise NoInputError(f"{path}: captions but no images for: {', '.join(files)}", _hint(path))


def _hint(path: Path) -> str:
    return (
        f"expected {path}/annotations/captions_val2017.json "
        f"and {path}/val2017/ (or val2017.zip), as COCO is published"
    )


@dataclass(frozen=True, slots=True)
class _Annotations:
    """A captions file: ``path`` itself, or a ``member`` of the archive there."""

    path: Path
    member: str | None

    def load(self) -> tuple[str, bytes]:
        if self.member is None:
            return str(self.path), read_bytes(self.path)
        where = archive.uri_of_member(str(self.path), self.member)
        try:
            return where, archive.read_member(str(self.path), self.member, _MAX_ANNOTATION_BYTES)
        except ItemError as error:
            raise DataError(f"{where}: {error.detail}") from error


def _captions_files(path: Path) -> dict[str, _Annotations]:
    """Captions files by split, sorted; a plain file wins over an archive's member."""
    found: dict[str, _Annotations] = {}
    for packed in sorted(path.glob("annotations*.zip")):
        for member in archive.list_members(str(packed)):
            if match := _CAPTIONS_FILE.fullmatch(member):
                found[match[1]] = _Annotations(packed, member)
    for file in path.glob("annotations/captions_*.json"):
        if match := _CAPTIONS_FILE.fullmatch(file.name):
            found[match[1]] = _Annotations(file, None)
    return dict(sorted(found.items()))


def split_events(split: CocoSplit) -> Iterator[SourceEvent]:
    """Stream one split: images in the file's order, captions in the file's order.

    Of two images with one number, the first has the captions; the second is rejected.

    Raises:
        DataError: the captions file is damaged or of another shape.
    """
    content, replaced = decode_json(split.captions, _CaptionsFile, split.where)
    licences = {str(one.id): one.name or one.url for one in content.licenses}
    captions: dict[int, list[str]] = {}
    for annotation in content.annotations:
        captions.setdefault(annotation.image_id, []).append(annotation.caption)
    seen: set[int] = set()
    bare = 0
    for image in content.images:
        if image.id in seen:
            yield _reject(
                split, image, ItemError(Reason.DUPLICATE_ID, f"image number {image.id} is taken")
            )
            continue
        seen.add(image.id)
        texts = tuple(captions.pop(image.id, ()))
        bare += not texts
        yield from _image_events(split, image, texts, licences)
    unknown = sum(len(texts) for texts in captions.values())
    yield from notes(
        duplicate_image_numbers=len(content.images) - len(seen),
        images_without_captions=bare,
        captions_of_unknown_images=unknown,
        lone_surrogates_replaced=replaced,
    )


def _image_events(
    split: CocoSplit,
    image: _Image,
    texts: tuple[str, ...],
    licences: Mapping[str, str | None],
) -> Iterator[SourceEvent]:
    try:
        found = split.images.find(image.file_name)
    except ItemError as error:
        yield _reject(split, image, error)
        yield from notes(captions_of_rejected_images=len(texts))
        return
    metadata: dict[str, MetadataValue] = {
        "license": licences.get(str(image.license)),
        "flickr_url": image.flickr_url,
        "coco_url": image.coco_url,
        "date_captured": None if image.date_captured is None else str(image.date_captured),
    }
    yield SourceItem(
        image_id=_image_id(split, image),
        uri=found.uri,
        split=split.name,
        captions=texts,
        read=found.read,
        metadata={name: value for name, value in metadata.items() if value is not None},
        stamp=found.stamp,
    )


def _image_id(split: CocoSplit, image: _Image) -> str:
    return f"{split.id_prefix}/{os.path.splitext(image.file_name)[0]}"  # noqa: PTH122  # no Path: hostile names stay as they are


def _reject(split: CocoSplit, image: _Image, error: ItemError) -> Rejected:
    uri = split.images.uri(image.file_name)
    return Rejected(_image_id(split, image), uri, error.reason, error.detail)
