"""COCO-CN: Chinese captions for the photos of COCO; see :mod:`mmindex.sources.chinese`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mmindex.core.records import NoteKind, SourceEvent
from mmindex.media.places import find_place, require_place
from mmindex.sources.annotations import notes
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.chinese import CaptionLayout
from mmindex.sources.listed import Listed, image_events

_LAYOUT: Final = CaptionLayout(
    captions=(
        "imageid.human-written-caption.txt",
        "imageid.manually-translated-caption.txt",
        "imageid.human-written-caption.bosonseg.txt",
    ),
    splits={split: f"coco-cn_{split}.txt" for split in ("train", "val", "test")},
    hint="expected imageid.human-written-caption.txt, coco-cn_test.txt and so on, and train2014/,"
    " val2014/ (or zips of that name)",
)
_PARTS: Final = ("train2014", "val2014")
_NAME: Final = re.compile(r"COCO_(?P<part>(?:train|val|test)2014)_(?P<number>\d+)")


def read_coco_cn(request: Request) -> Iterator[SourceEvent]:
    """Stream a local copy of COCO-CN, in the order of its caption file.

    Ids are ``coco/train2014/000000108418``, as in the ``coco:`` source. Images whose folder is
    missing are counted.

    Raises:
        NoInputError: there are no captions, no images, or no such split.
        DataError: a caption file or list is damaged; the message names the line.
    """
    path, max_bytes = request.path, request.options.max_bytes
    listed = list(_LAYOUT.read(path, request.split))
    places = {part: find_place(path, (part, f"images/{part}"), max_bytes) for part in _PARTS}
    if not any(places.values()):
        require_place(path, _PARTS, max_bytes)
    strange = without = 0
    for stem, split, captions in listed:
        match = _NAME.fullmatch(stem)
        if match is None:
            strange += 1
        elif (place := places.get(match["part"])) is None:
            without += 1
        else:
            image_id = f"{match['part']}/{match['number']}"
            yield from image_events(place, Listed(image_id, f"{stem}.jpg", captions, split))
    yield from notes(
        {
            NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES: strange,
            NoteKind.IMAGES_WITHOUT_FOLDER: without,
        }
    )


KIND: Final = Kind(
    name="coco-cn",
    place=Place.RELEASE,
    form="PATH[#SPLIT]",
    example="coco-cn:~/coco-cn#test",
    summary="the Chinese captions of COCO (`imageid.human-written-caption.txt`) with its images",
    read=read_coco_cn,
    ids="coco",
)
