"""Flickr8k-CN and COCO-CN: Chinese captions for Flickr8k's and COCO's photos.

Both are published as text files of one caption a line, ``NAME#LANG#N caption`` (Flickr8k-CN:
``667626_18933d713e.jpg#zhc#0 一个穿着泳装的女人``) or ``NAME#N<TAB>caption`` (COCO-CN), the name
with or without an extension, a space or a tab before the caption; and of lists of image names for
the splits. Sources: X. Li et al., Adding Chinese Captions to Images, ICMR 2016
(https://github.com/li-xirong/flickr8kcn), and COCO-CN for Cross-Lingual Image Tagging, Captioning
and Retrieval, IEEE T-MM 2019 (https://github.com/li-xirong/coco-cn).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import ItemError, Note, Rejected, SourceEvent, SourceItem
from mmindex.media.places import ImagePlace, find_place, require_place
from mmindex.sources.annotations import notes, read_bytes
from mmindex.sources.captions import CaptionList

_LINE: Final = re.compile(
    r"(?P<name>[^#\t]+)(?:#(?P<language>[A-Za-z]+))?#\d+[ \t]+(?P<caption>\S.*)"
)
_COCO_PART: Final = re.compile(r"COCO_(?P<part>(?:train|val|test)2014)_\d+")


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one corpus is published.

    Attributes:
        captions: caption files; the first that is there is read. Human ones come first.
        splits: the file that lists a split's images, by split.
        hint: what a folder must hold.
    """

    captions: tuple[str, ...]
    splits: Mapping[str, str]
    hint: str


_FLICKR8K: Final = _Layout(
    captions=(
        "flickr8kzhc.caption.txt",  # written by native speakers
        "flickr8kzhmtest.captions.txt",  # translated by people, test images alone
        "flickr8kzhb.caption.txt",  # by machines
        "flickr8kzhg.caption.txt",
    ),
    splits={split: f"flickr8k{split}.txt" for split in ("train", "val", "test")},
    hint="expected flickr8kzhc.caption.txt, flickr8ktest.txt and so on, and the photos in"
    " Flicker8k_Dataset/ (or Images/, or a zip of that name)",
)
_COCO: Final = _Layout(
    captions=(
        "imageid.human-written-caption.txt",
        "imageid.manually-translated-caption.txt",
        "imageid.human-written-caption.bosonseg.txt",
    ),
    splits={split: f"coco-cn_{split}.txt" for split in ("train", "val", "test")},
    hint="expected imageid.human-written-caption.txt, coco-cn_test.txt and so on, and train2014/,"
    " val2014/ (or zips of that name)",
)
_FLICKR8K_PLACES: Final = (
    "Flicker8k_Dataset",  # as the authors spelt it
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "Images",
    "images",
)


def flickr8k_cn_events(path: Path, split: str | None, max_bytes: int) -> Iterator[SourceEvent]:
    """Stream a local copy of Flickr8k-CN, in the order of its caption file.

    Ids are ``flickr8k/<name without extension>``.

    Args:
        path: the folder with captions, lists and photos; the first two may lie one folder deeper.
        split: ``train``, ``val`` or ``test``; None for every image.
        max_bytes: limit for one image.

    Raises:
        NoInputError: no captions, no images, or no such split there.
        DataError: a caption file or list is damaged; the message names the line.
    """
    listed, splits = _read(path, _FLICKR8K, split)
    place = require_place(path, _FLICKR8K_PLACES, max_bytes)
    for name, captions in listed.items():
        stem = _stem(name)
        found = splits.get(stem, "all")
        if split in (None, found):
            yield from _image_events(place, f"{stem}.jpg", f"flickr8k/{stem}", found, captions)


def coco_cn_events(path: Path, split: str | None, max_bytes: int) -> Iterator[SourceEvent]:
    """Stream a local copy of COCO-CN, in the order of its caption file.

    Ids are ``coco/train2014/000000108418``, as those of the ``coco:`` source. Images whose folder
    is not there are counted.

    Args:
        path: the folder with captions, lists, ``train2014/`` and ``val2014/``; the first two may
            lie one folder deeper.
        split: ``train``, ``val`` or ``test`` of COCO-CN; None for every image.
        max_bytes: limit for one image.

    Raises:
        NoInputError: no captions, no images, or no such split there.
        DataError: a caption file or list is damaged; the message names the line.
    """
    listed, splits = _read(path, _COCO, split)
    parts = ("train2014", "val2014")
    places = {part: find_place(path, (part, f"images/{part}"), max_bytes) for part in parts}
    if not any(places.values()):
        require_place(path, parts, max_bytes)
    strange = without = 0
    for name, captions in listed.items():
        stem = _stem(name)
        match = _COCO_PART.fullmatch(stem)
        found = splits.get(stem, "all")
        if split not in (None, found):
            continue
        if match is None:
            strange += 1
        elif (place := places.get(match["part"])) is None:
            without += 1
        else:
            image_id = f"coco/{match['part']}/{stem.rpartition('_')[2]}"
            yield from _image_events(place, f"{stem}.jpg", image_id, found, captions)
    yield from notes(captions_of_unknown_images=strange, images_without_folder=without)


def read_numbered(path: Path) -> dict[str, list[str]]:
    """Read ``NAME#LANG#N caption`` or ``NAME#N caption`` lines: captions by name, in order.

    Raises:
        DataError: a line has another form, or the file is not UTF-8.
        MmindexError: the file cannot be read.
    """
    listed = CaptionList()
    for number, line in _lines(path):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}:{number}: expected NAME#LANGUAGE#NUMBER and a caption")
        listed.about(match["name"]).captions.append(match["caption"])
    return {name: described.captions for name, described in listed.images.items()}


def _read(
    path: Path, layout: _Layout, split: str | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Captions by image name, and the split of each image's stem."""
    captions = _find(path, layout.captions)
    if captions is None:
        raise NoInputError(f"{path}: no captions there", layout.hint)
    splits: dict[str, str] = {}
    for name, file in layout.splits.items():
        listed = _find(path, (file,))
        if listed is None:
            if name == split:
                raise NoInputError(f"{path}: no {file} there", layout.hint)
            continue
        splits |= {_stem(line.strip()): name for _, line in _lines(listed)}
    if split is not None and split not in layout.splits:
        known = ", ".join(layout.splits)
        raise NoInputError(f"{path}: no split {split!r} (there are: {known})", layout.hint)
    return read_numbered(captions), splits


def _find(path: Path, names: Sequence[str]) -> Path | None:
    candidates = (
        candidate for name in names for candidate in (path / name, *sorted(path.glob(f"*/{name}")))
    )
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty; only LF and CRLF end a line."""
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8") from error
    for number, line_text in enumerate(text.split("\n"), start=1):
        if stripped := line_text.rstrip("\r "):
            yield number, stripped


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  # no Path: kept as it is


def _image_events(
    place: ImagePlace, name: str, image_id: str, split: str, captions: Sequence[str]
) -> Iterator[SourceEvent]:
    try:
        found = place.find(name)
    except ItemError as error:
        yield Rejected(image_id, place.uri(name), error.reason, error.detail)
        yield Note("captions_of_rejected_images", len(captions))
        return
    yield SourceItem(
        image_id=image_id,
        uri=found.uri,
        split=split,
        captions=tuple(captions),
        read=found.read,
        stamp=found.stamp,
    )
