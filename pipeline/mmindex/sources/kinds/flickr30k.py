"""Flickr30k: a folder or zip of images, and captions in any of the published forms.

``results_20130124.token`` (the authors'), ``results.csv`` and ``captions.txt`` (Kaggle),
``flickr_annotations_30k.csv`` (nlphuji, with splits), ``dataset_flickr30k.json`` (Karpathy, with
splits). The last two contain 31,014 of the 31,783 images. If there is one file with splits and one
without, captions come from the first, and images that are missing in it come from the second, with
the split ``all``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmindex.core.errors import NoInputError
from mmindex.core.records import Expected, NoteKind, SourceEvent
from mmindex.media.places import require_place
from mmindex.sources.annotations import find_file, notes, stem
from mmindex.sources.base import Kind, Place, Request, require_split
from mmindex.sources.caption_lists import CaptionList, Described, read_captions
from mmindex.sources.kinds.coco_karpathy import find_split_file
from mmindex.sources.listed import Listed, image_events

_IMAGE_PLACES: Final = (
    "flickr30k-images",
    "flickr30k_images/flickr30k_images",  # the folder in Kaggle's archive
    "flickr30k_images",
    "images",
    "Images",
)
_SPLIT_JSON: Final = "dataset_flickr30k.json"
_SPLIT_CSV: Final = "flickr_annotations_30k.csv"
# The first existing one is read.
_PLAIN_LISTS: Final = ("results_20130124.token", "results.csv", "captions.txt")


def read_flickr30k(request: Request) -> Iterator[SourceEvent]:
    """Stream a local copy of Flickr30k, in the order of its caption files.

    Caption files can also be in a subfolder.

    Raises:
        NoInputError: there are no captions, no images, or no such split.
        DataError: a caption file is damaged; the message names the line or byte.
    """
    path, split = request.path, request.split
    listed = _read_lists(path)
    known = {described.split for described in listed.images.values()}
    require_split(split, known, path, f"put {_SPLIT_JSON} next to the images")
    place = require_place(path, _IMAGE_PLACES, request.options.max_bytes)
    yield Expected(sum(split in (None, one.split) for one in listed.images.values()))
    for name, described in listed.images.items():
        if split in (None, described.split):
            image = Listed(stem(name), name, described.captions, described.split)
            yield from image_events(place, image)
    yield from notes(listed.notes)


def _read_lists(path: Path) -> CaptionList:
    """Return every image with captions and split, images of the split file first."""
    listed = CaptionList()
    split_csv, plain = find_file(path, (_SPLIT_CSV,)), find_file(path, _PLAIN_LISTS)
    content = find_split_file(path, _SPLIT_JSON)
    if content is not None:
        listed.notes[NoteKind.LONE_SURROGATES_REPLACED] = content.lone_surrogates
        for image in content.images:
            captions = [sentence.raw for sentence in image.sentences]
            described = Described(captions, image.effective_split)
            if listed.images.setdefault(image.filename, described) is not described:
                listed.notes[NoteKind.DUPLICATE_IMAGES] += 1
    elif split_csv is not None:
        listed = read_captions(split_csv)
    if plain is not None:
        rest = read_captions(plain)
        listed.notes += rest.notes
        for name, described in rest.images.items():
            listed.images.setdefault(name, described)
    if not listed.images:
        wanted = ", ".join((_SPLIT_JSON, _SPLIT_CSV, *_PLAIN_LISTS))
        raise NoInputError(f"{path}: no captions found", f"expected one of: {wanted}")
    return listed


KIND: Final = Kind(
    name="flickr30k",
    place=Place.RELEASE,
    form="PATH[#SPLIT]",
    example="flickr30k:~/flickr30k#test",
    summary="`flickr30k-images/` with `results_20130124.token`, the CSV form, or Karpathy's"
    " `dataset_flickr30k.json`",
    read=read_flickr30k,
)
