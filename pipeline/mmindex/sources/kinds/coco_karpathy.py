"""Karpathy's splits: ``dataset_coco.json`` and ``dataset_flickr30k.json``.

They are published in ``caption_datasets.zip``, which can stay packed. COCO's ``restval`` (the part
of val2014 that is neither val nor test) counts as ``train``, as in the papers that use these
splits. Source: A. Karpathy, L. Fei-Fei, https://cs.stanford.edu/people/karpathy/deepimagesent/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import Expected, Ignored, ItemError, NoteKind, Reason, Skip, SourceEvent
from mmindex.media import archive
from mmindex.media.places import ImageFolder, ImagePlace, find_place, is_relative, require_place
from mmindex.sources.annotations import decode_json, find_file, notes, read_bytes, stem
from mmindex.sources.base import Kind, Place, Request, require_split
from mmindex.sources.listed import Listed, image_events, rejected_events

_PACKED: Final = "caption_datasets.zip"
_MAX_JSON_BYTES: Final = 4 << 30  # dataset_coco.json has 144 MB


class Sentence(msgspec.Struct, gc=False):
    """A caption as written (``raw``); its tokens are not used."""

    raw: str


class KarpathyImage(msgspec.Struct, gc=False):
    """An image in a split file."""

    filename: str
    split: str
    sentences: list[Sentence]
    filepath: str = ""
    cocoid: int | None = None

    @property
    def effective_split(self) -> str:
        """The split according to the usual convention."""
        return "train" if self.split == "restval" else self.split


class _Content(msgspec.Struct):
    images: list[KarpathyImage]


@dataclass(frozen=True, slots=True)
class SplitFile:
    """The images of a split file in order, and the number of replaced lone surrogates."""

    images: list[KarpathyImage]
    lone_surrogates: int


def find_split_file(path: Path, name: str) -> SplitFile | None:
    """Read ``name`` from ``path``, from a direct subfolder, or from ``caption_datasets.zip``.

    Returns:
        the content; None if there is no such file.

    Raises:
        DataError: the file is damaged or has another structure.
    """
    plain = find_file(path, (name,))
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


def read_karpathy(request: Request) -> Iterator[SourceEvent]:
    """Stream COCO with Karpathy's splits, in file order.

    Without a split, images whose folder is missing (test and val need only val2014) are ignored
    and counted.

    Raises:
        NoInputError: there is no split file, no such split, or no images.
        DataError: the split file is damaged.
    """
    path, split, max_bytes = request.path, request.split, request.options.max_bytes
    content = find_split_file(path, "dataset_coco.json")
    if content is None:
        raise NoInputError(f"{path}: dataset_coco.json not found", f"add {_PACKED}")
    known = {image.effective_split for image in content.images}
    require_split(split, known, path)
    wanted = [image for image in content.images if split in (None, image.effective_split)]
    places = _find_places(path, {image.filepath for image in wanted}, max_bytes)
    if split is not None and None in places.values():
        missing = sorted(name for name, place in places.items() if place is None)
        require_place(path, missing, max_bytes)
    yield Expected(len(wanted))
    for image in wanted:
        listed = _listed(image)
        if image.filepath not in places:
            outside = ImageFolder(path / image.filepath, max_bytes)
            yield from rejected_events(outside, listed, _UNSAFE)
        elif (place := places[image.filepath]) is None:
            yield Ignored(Skip.NO_FOLDER)
        else:
            yield from image_events(place, listed)
    yield from notes({NoteKind.LONE_SURROGATES_REPLACED: content.lone_surrogates})


_UNSAFE: Final = ItemError(Reason.UNSAFE_PATH, "filepath points outside the folder of the source")


def _find_places(path: Path, names: set[str], max_bytes: int) -> dict[str, ImagePlace | None]:
    """Return the image location of each ``filepath``, without paths outside the folder."""
    safe = sorted(name for name in names if is_relative(name))
    places = {name: find_place(path, (name, f"images/{name}"), max_bytes) for name in safe}
    if safe and not any(places.values()):
        require_place(path, safe, max_bytes)
    return places


def _listed(image: KarpathyImage) -> Listed:
    return Listed(
        image_id=stem(image.filename),
        name=image.filename,
        captions=[sentence.raw for sentence in image.sentences],
        split=image.effective_split,
        metadata={"coco_id": image.cocoid, "coco_part": image.filepath},
    )


KIND: Final = Kind(
    name="coco-karpathy",
    place=Place.RELEASE,
    form="PATH[#SPLIT]",
    example="coco-karpathy:~/coco#test",
    summary="`dataset_coco.json` and `val2014/`, `train2014/` (folders or zips)",
    read=read_karpathy,
)
