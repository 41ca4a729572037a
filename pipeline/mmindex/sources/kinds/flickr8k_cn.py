"""Flickr8k-CN: Chinese captions for the photos of Flickr8k; see :mod:`mmindex.sources.chinese`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mmindex.core.records import SourceEvent
from mmindex.media.places import require_place
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.chinese import CaptionLayout
from mmindex.sources.listed import Listed, image_events

_LAYOUT: Final = CaptionLayout(
    captions=(
        "flickr8kzhc.caption.txt",  # written by native speakers
        "flickr8kzhmtest.captions.txt",  # translated by people, only for test images
        "flickr8kzhb.caption.txt",  # translated by machines
        "flickr8kzhg.caption.txt",
    ),
    splits={split: f"flickr8k{split}.txt" for split in ("train", "val", "test")},
    hint="expected flickr8kzhc.caption.txt, flickr8ktest.txt and so on, and the photos in"
    " Flicker8k_Dataset/ (or Images/, or a zip of that name)",
)
_PLACES: Final = (
    "Flicker8k_Dataset",  # the authors' spelling
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "Images",
    "images",
)


def read_flickr8k_cn(request: Request) -> Iterator[SourceEvent]:
    """Stream a local copy of Flickr8k-CN, in the order of its caption file.

    Ids are ``flickr8k/<name without extension>``.

    Raises:
        NoInputError: there are no captions, no images, or no such split.
        DataError: a caption file or list is damaged; the message names the line.
    """
    listed = list(_LAYOUT.read(request.path, request.split))
    place = require_place(request.path, _PLACES, request.options.max_bytes)
    for stem, split, captions in listed:
        yield from image_events(place, Listed(stem, f"{stem}.jpg", captions, split))


KIND: Final = Kind(
    name="flickr8k-cn",
    place=Place.RELEASE,
    form="PATH[#SPLIT]",
    example="flickr8k-cn:~/flickr8k-cn#test",
    summary="the Chinese captions of Flickr8k (`flickr8kzhc.caption.txt`) with its images",
    read=read_flickr8k_cn,
    ids="flickr8k",
)
