"""COCO captions: ``annotations/captions_<split>.json`` with ``<split>/`` or ``<split>.zip``.

Image folders can also be in ``images/``, and the annotations can stay in the published archive
(``annotations_trainval2017.zip``). Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import (
    Expected,
    ItemError,
    MetadataValue,
    Note,
    NoteKind,
    Reason,
    SourceEvent,
)
from mmindex.media import archive
from mmindex.media.places import ImagePlace, find_place, require_place
from mmindex.sources.annotations import decode_json, notes, read_bytes, stem
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.listed import Listed, image_events, rejected_events

_CAPTIONS_FILE: Final = re.compile(r"(?:annotations/)?captions_([^/.][^/]*)\.json")
_MAX_ANNOTATION_BYTES: Final = 4 << 30  # train2017's captions have 92 MB


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
    """A split that is ready to read.

    Attributes:
        name: such as ``val2017``.
        id_prefix: the prefix of the file stem in image ids, such as ``val2017/``.
        where: the name of the captions file for messages.
        captions: the bytes of the captions file.
        images: the location of the images.
    """

    name: str
    id_prefix: str
    where: str
    captions: bytes
    images: ImagePlace


def read_coco(request: Request) -> Iterator[SourceEvent]:
    """Stream a local copy of COCO, with the splits in the order of their names.

    Without a split, every split that has both captions and images is read.
    Memory: one captions file at a time (about 0.5 GB for train2017's 591,753 captions).

    Raises:
        NoInputError: there are no captions or no images.
        DataError: a captions file is damaged.
    """
    path, split, max_bytes = request.path, request.split, request.options.max_bytes
    files = _captions_files(path)
    if split is not None and split not in files:
        found = ", ".join(files) or "none"
        raise NoInputError(f"{path}: no captions of split {split!r} (found: {found})", _hint(path))
    if not files:
        raise NoInputError(f"{path}: no captions found", _hint(path))
    read = 0
    for name in [split] if split is not None else files:
        places = (name, f"images/{name}")
        images = find_place(path, places, max_bytes)
        if images is None and split is None:
            yield Note(NoteKind.SPLITS_WITHOUT_IMAGES)
            continue
        images = images or require_place(path, places, max_bytes)
        where, captions = files[name].load()
        read += 1
        yield from split_events(CocoSplit(name, f"{name}/", where, captions, images))
    if not read:
        raise NoInputError(f"{path}: captions but no images for: {', '.join(files)}", _hint(path))


def _hint(path: Path) -> str:
    return (
        f"expected {path}/annotations/captions_val2017.json "
        f"and {path}/val2017/ (or val2017.zip), as COCO is published"
    )


@dataclass(frozen=True, slots=True)
class _Annotations:
    """A captions file: ``path`` itself, or a ``member`` of this archive."""

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
    """Return the captions files by split, sorted; a plain file has priority over an archive."""
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
    """Stream one split, with images and captions in file order.

    If two images have the same number, the first one gets the captions and the second is rejected.

    Raises:
        DataError: the captions file is damaged or has another structure.
    """
    content, replaced = decode_json(split.captions, _CaptionsFile, split.where)
    licences = {str(one.id): one.name or one.url for one in content.licenses}
    captions: defaultdict[int, list[str]] = defaultdict(list)
    for annotation in content.annotations:
        captions[annotation.image_id].append(annotation.caption)
    seen: set[int] = set()
    yield Expected(len(content.images))
    for image in content.images:
        listed = _listed(split, image, captions, licences)
        if image.id in seen:
            taken = ItemError(Reason.DUPLICATE_ID, f"another image has the id {image.id}")
            yield from rejected_events(split.images, listed, taken)
            continue
        seen.add(image.id)
        del captions[image.id]
        yield from image_events(split.images, listed)
    unknown = sum(len(texts) for texts in captions.values())
    yield from notes(
        {
            NoteKind.DUPLICATE_IMAGE_NUMBERS: len(content.images) - len(seen),
            NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES: unknown,
            NoteKind.LONE_SURROGATES_REPLACED: replaced,
        }
    )


def _listed(
    split: CocoSplit,
    image: _Image,
    captions: defaultdict[int, list[str]],
    licences: Mapping[str, str | None],
) -> Listed:
    metadata: dict[str, MetadataValue] = {
        "license": licences.get(str(image.license)),
        "flickr_url": image.flickr_url,
        "coco_url": image.coco_url,
        "date_captured": None if image.date_captured is None else str(image.date_captured),
    }
    return Listed(
        image_id=split.id_prefix + stem(image.file_name),
        name=image.file_name,
        captions=captions[image.id],
        split=split.name,
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


KIND: Final = Kind(
    name="coco",
    place=Place.RELEASE,
    form="PATH[#SPLIT]",
    example="coco:~/coco#val2017",
    summary="`annotations/captions_val2017.json` and `val2017/` or `val2017.zip`, read in place",
    read=read_coco,
)
