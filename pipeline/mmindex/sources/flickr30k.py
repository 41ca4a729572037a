"""Flickr30k: a folder or zip of images, and captions in any of the forms that are passed around.

``results_20130124.token`` (the authors'), ``results.csv`` and ``captions.txt`` (Kaggle),
``flickr_annotations_30k.csv`` (nlphuji, with splits), ``dataset_flickr30k.json`` (Karpathy, with
splits). The last two know 31,014 of the 31,783 images. Where a file with splits stands beside one
without, each image's captions come from the first and images it does not know from the second,
with the split ``all``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmindex.core.errors import NoInputError
from mmindex.core.records import ItemError, Note, Rejected, SourceEvent, SourceItem
from mmindex.media.places import ImagePlace, require_place
from mmindex.sources.annotations import notes
from mmindex.sources.captions import CaptionList, Described, read_captions
from mmindex.sources.karpathy import find_split_file

_IMAGE_PLACES: Final = (
    "flickr30k-images",
    "flickr30k_images/flickr30k_images",  # as Kaggle's archive unpacks
    "flickr30k_images",
    "images",
    "Images",
)
_SPLIT_JSON: Final = "dataset_flickr30k.json"
_SPLIT_CSV: Final = "flickr_annotations_30k.csv"
# The first that is there is read.
_PLAIN_LISTS: Final = ("results_20130124.token", "results.csv", "captions.txt")


def flickr30k_events(path: Path, split: str | None, max_bytes: int) -> Iterator[SourceEvent]:
    """Stream a local copy of Flickr30k, in the order of its caption files.

    Args:
        path: the folder with images and caption files; these may also lie one folder deeper.
        split: ``train``, ``val`` or ``test``; None for every image.
        max_bytes: limit for one image.

    Raises:
        NoInputError: no captions, no images, or no such split there.
        DataError: a caption file is damaged; the message names the line or byte.
    """
    listed = _read_lists(path)
    known = {described.split for described in listed.images.values()}
    if split is not None and split not in known:
        found = ", ".join(sorted(known - {"all"})) or "none"
        raise NoInputError(
            f"{path}: no split {split!r} (found: {found})", f"put {_SPLIT_JSON} beside the images"
        )
    place = require_place(path, _IMAGE_PLACES, max_bytes)
    for name, described in listed.images.items():
        if split is None or described.split == split:
            yield from _image_events(place, name, described)
    yield from (Note(name, count) for name, count in sorted(listed.notes.items()) if count)


def _read_lists(path: Path) -> CaptionList:
    """Every image with captions and split, images of the split file first."""
    listed = CaptionList()
    split_csv, plain = _find(path, (_SPLIT_CSV,)), _find(path, _PLAIN_LISTS)
    content = find_split_file(path, _SPLIT_JSON)
    if content is not None:
        listed.notes["lone_surrogates_replaced"] = content.lone_surrogates
        for image in content.images:
            captions = [sentence.raw for sentence in image.sentences]
            described = Described(captions, image.effective_split)
            if listed.images.setdefault(image.filename, described) is not described:
                listed.notes["duplicate_images"] += 1
    elif split_csv is not None:
        listed = read_captions(split_csv)
    if plain is not None:
        rest = read_captions(plain)
        listed.notes += rest.notes
        for name, described in rest.images.items():
            listed.images.setdefault(name, described)
    if not listed.images:
        wanted = ", ".join((_SPLIT_JSON, _SPLIT_CSV, *_PLAIN_LISTS))
        raise NoInputError(f"{path}: no captions there", f"expected one of: {wanted}")
    return listed


def _find(path: Path, names: tuple[str, ...]) -> Path | None:
    candidates = (
        candidate for name in names for candidate in (path / name, *sorted(path.glob(f"*/{name}")))
    )
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _image_events(place: ImagePlace, name: str, described: Described) -> Iterator[SourceEvent]:
    image_id = f"flickr30k/{os.path.splitext(name)[0]}"  # noqa: PTH122
    try:
        found = place.find(name)
    except ItemError as error:
        yield Rejected(image_id, place.uri(name), error.reason, error.detail)
        yield from notes(captions_of_rejected_images=len(described.captions))
        return
    if not described.captions:
        yield Note("images_without_captions")
    yield SourceItem(
        image_id=image_id,
        uri=found.uri,
        split=described.split,
        captions=tuple(described.captions),
        read=found.read,
        stamp=found.stamp,
    )
