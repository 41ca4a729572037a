"""WebDataset shards: tar archives in which files with the same stem make one sample.

The layout of img2dataset and open_clip: ``000000012.jpg`` with ``000000012.txt`` (the caption)
and ``000000012.json`` (everything known of the row). Format:
https://huggingface.co/docs/hub/datasets-webdataset
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import (
    Ignored,
    ItemError,
    MetadataValue,
    NoteKind,
    Reason,
    Rejected,
    Skip,
    SourceEvent,
    SourceItem,
)
from mmindex.media.archive import id_part, uri_of_member
from mmindex.media.tars import Member, read_at, walk_tar
from mmindex.sources.annotations import decode_json, json_column, notes
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.patterns import find_files

# Best first, where a sample has several.
_IMAGES: Final = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2")
_TEXTS: Final = ("txt", "text", "caption")
_CAPTION_FIELDS: Final = ("caption", "text")
_MAX_TEXT_BYTES: Final = 16 << 20


@dataclass(slots=True)
class _Sample:
    stem: str
    files: dict[str, Member] = field(default_factory=dict)
    twice: list[Member] = field(default_factory=list)


def read_webdataset(request: Request) -> Iterator[SourceEvent]:
    """Stream the samples of all shards, in the order of their names.

    An image's id is ``webdataset/<folder's name>/<shard's stem>/<sample's stem>``. A split is what
    the rows' split is called.

    Raises:
        NoInputError: no such shard.
        DataError: a shard is damaged or compressed.
    """
    split, max_bytes = request.split or "all", request.options.max_bytes
    for path in find_files(request.spec.where, KIND.suffix):
        with os_errors(path):
            status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        for sample in _samples(path):
            yield from _sample_events(path, sample, split, max_bytes, stamp)


def _samples(path: Path) -> Iterator[_Sample]:
    """Consecutive members with the same stem, as WebDataset itself reads them."""
    sample = _Sample("")
    for member in walk_tar(str(path)):
        stem, extension = _split_name(member.name)
        if stem != sample.stem:
            if sample.files or sample.twice:
                yield sample
            sample = _Sample(stem)
        if extension in sample.files:
            sample.twice.append(member)
        else:
            sample.files[extension] = member
    if sample.files or sample.twice:
        yield sample


def _split_name(name: str) -> tuple[str, str]:
    """Stem and extension: the file name is cut at its first dot, as WebDataset does it."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _sample_events(
    path: Path, sample: _Sample, split: str, max_bytes: int, stamp: tuple[int, int, int]
) -> Iterator[SourceEvent]:
    image_id = f"{id_part(f'{path.parent.name}/{path.stem}')}/{sample.stem}"
    for member in sample.twice:
        yield Rejected(
            image_id,
            uri_of_member(str(path), member.name),
            Reason.BAD_ARCHIVE_MEMBER,
            "the name stands twice",
        )
    known = [sample.files[name] for name in _IMAGES if name in sample.files]
    bad = [member for member in sample.files.values() if member.problem is not None]
    if not known and not bad:
        yield Ignored(Skip.NO_IMAGE)
        return
    image = known[0] if known else bad[0]
    uri = uri_of_member(str(path), image.name)
    try:
        if image.problem is not None:
            raise image.problem
        captions, metadata = _described(path, sample)
    except ItemError as error:
        yield Rejected(image_id, uri, error.reason, error.detail)
        return
    yield from notes({NoteKind.IMAGES_BESIDE_THE_FIRST: len(known) - 1})
    yield SourceItem(
        image_id=image_id,
        uri=uri,
        split=split,
        captions=captions,
        read=functools.partial(read_at, str(path), image, max_bytes),
        metadata=metadata,
        stamp=stamp,
    )


def _described(path: Path, sample: _Sample) -> tuple[tuple[str, ...], dict[str, MetadataValue]]:
    """Captions and metadata; the text file wins over the JSON's caption.

    Raises:
        ItemError: a text file is no UTF-8, or the JSON is damaged.
    """
    fields: dict[str, Any] = {}
    if "json" in sample.files:
        data = read_at(str(path), sample.files["json"], _MAX_TEXT_BYTES)
        try:
            fields, _ = decode_json(data, dict[str, Any], sample.files["json"].name)
        except DataError as error:
            raise ItemError(Reason.CORRUPT, error.message) from error
    texts = [sample.files[name] for name in _TEXTS if name in sample.files]
    if texts:
        captions = [_text(path, texts[0])]
    else:
        value: Any = next((fields[name] for name in _CAPTION_FIELDS if fields.get(name)), [])
        captions = [str(one) for one in (value if isinstance(value, list) else [value])]
    metadata = {
        name: json_column(value) for name, value in fields.items() if name not in _CAPTION_FIELDS
    }
    return tuple(caption for caption in captions if caption), metadata


def _text(path: Path, member: Member) -> str:
    try:
        return read_at(str(path), member, _MAX_TEXT_BYTES).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        detail = f"{member.name}: not UTF-8 at byte {error.start}"
        raise ItemError(Reason.CORRUPT, detail) from error


KIND: Final = Kind(
    name="webdataset",
    place=Place.PATTERN,
    form="PATTERN[#SPLIT]",
    example="webdataset:shards/{00000..00041}.tar",
    summary="tar shards of img2dataset and open_clip: `shards/{00000..00041}.tar`",
    read=read_webdataset,
    ids="webdataset",
    suffix=".tar",
)
