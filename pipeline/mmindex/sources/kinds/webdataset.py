"""WebDataset shards: tar archives in which files with the same stem form a sample.

The layout of img2dataset and open_clip: ``000000012.jpg`` with ``000000012.txt`` (one caption per
line), ``000000012.json`` (the columns of the row) and ``000000012.xmp`` (metadata). Members can be
in any order. Format: https://huggingface.co/docs/hub/datasets-webdataset
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from mmindex.core.errors import DataError
from mmindex.core.records import (
    Ignored,
    ItemError,
    MetadataValue,
    Note,
    NoteKind,
    Reason,
    Rejected,
    Sidecar,
    Skip,
    SourceEvent,
    SourceItem,
    Stamp,
)
from mmindex.media.files import stamp_of
from mmindex.media.tars import Member, read_at, uri_of_tar_member, walk_tar
from mmindex.sources.annotations import decode_json, json_column, notes
from mmindex.sources.base import Kind, Place, Request, unit_events
from mmindex.sources.captions import caption_fields, caption_texts
from mmindex.sources.patterns import file_names, find_files

# Best first, if a sample has several.
_IMAGES: Final = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2")
_TEXTS: Final = ("txt", "text", "caption", "captions")
_JSON: Final = ("json",)
_XMP: Final = ("xmp",)
_MAX_TEXT_BYTES: Final = 16 << 20


@dataclass(slots=True)
class _Sample:
    """The members with one stem, by extension; ``twice`` are members with a repeated name."""

    stem: str
    files: dict[str, Member] = field(default_factory=dict)
    twice: list[Member] = field(default_factory=list)

    def find(self, extensions: Iterable[str]) -> list[Member]:
        """Return members by extension, best first: ``jpg`` before ``input.jpg`` (both are JPEG)."""
        plain = [self.files[name] for name in extensions if name in self.files]
        known = set(extensions)
        longer = [
            member
            for name, member in self.files.items()
            if "." in name and name.rpartition(".")[2] in known
        ]
        return plain + longer


@dataclass(frozen=True, slots=True)
class _Shard:
    """A tar archive.

    Attributes:
        path: the location of the archive.
        id_prefix: the prefix of the sample stems in ids.
        stamp: the stamp of the archive.
        request: the arguments of the reader.
    """

    path: str
    id_prefix: str
    stamp: Stamp
    request: Request


def read_webdataset(request: Request) -> Iterator[SourceEvent]:
    """Stream the samples of all shards, in the order of their names.

    The id of an image is ``webdataset/<folder>/<shard stem>/<sample stem>``. All rows get the split
    of the spec. Memory: the member names of one shard.

    Raises:
        NoInputError: no such shard.
        DataError: a shard is damaged or compressed.
    """
    files = find_files(request.spec.where, KIND.suffix)
    for path, name in file_names(request.spec, files).items():
        shard = _Shard(path, name, stamp_of(path), request)
        content = (shard.stamp, name)
        yield from unit_events(request, path, content, functools.partial(_shard_events, shard))


def _shard_events(shard: _Shard) -> Iterator[SourceEvent]:
    samples, hidden = _samples(shard.path)
    for sample in samples:
        yield from _sample_events(shard, sample)
    if hidden:
        yield Ignored(Skip.HIDDEN, hidden)


def _samples(path: str) -> tuple[list[_Sample], int]:
    """Return the samples of a shard by first member, and the number of skipped files.

    tar on macOS adds a ``._`` file before each file.
    """
    samples: dict[str, _Sample] = {}
    hidden = 0
    for member in walk_tar(path):
        if member.name.rpartition("/")[2].startswith("._") or "__MACOSX/" in member.name:
            hidden += 1
            continue
        stem, extension = _split_name(member.name)
        sample = samples.setdefault(stem, _Sample(stem))
        if extension in sample.files:
            sample.twice.append(member)
        else:
            sample.files[extension] = member
    return list(samples.values()), hidden


def _split_name(name: str) -> tuple[str, str]:
    """Split a file name at its first dot into stem and extension, as in WebDataset."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _sample_events(shard: _Shard, sample: _Sample) -> Iterator[SourceEvent]:
    archive, image_id = shard.path, f"{shard.id_prefix}/{sample.stem}"
    for member in sample.twice:
        detail = f"the name occurs twice in the archive: {member.name}"
        uri = uri_of_tar_member(archive, member)
        yield Rejected(image_id, uri, Reason.BAD_ARCHIVE_MEMBER, detail)
    known = sample.find(_IMAGES)
    bad = [member for member in sample.files.values() if member.problem is not None]
    if not known and not bad:
        yield Ignored(Skip.NO_IMAGE)
        return
    image = known[0] if known else bad[0]
    uri = uri_of_tar_member(archive, image)
    if image.problem is not None:
        yield Rejected(image_id, uri, image.problem.reason, image.problem.detail)
        return
    yield from notes({NoteKind.IMAGES_BESIDE_THE_FIRST: len(known) - 1})
    fields = yield from _fields(shard, sample)
    captions = yield from _captions(shard, sample, fields)
    named = caption_fields(fields)
    metadata: dict[str, MetadataValue] = {
        name: json_column(value) for name, value in fields.items() if name not in named
    }
    yield SourceItem(
        image_id=image_id,
        uri=uri,
        split=shard.request.split or "all",
        captions=tuple(captions),
        read=functools.partial(read_at, archive, image, shard.request.options.max_bytes),
        metadata=metadata,
        stamp=shard.stamp,
        sidecar=_sidecar(shard, sample),
    )


def _sidecar(shard: _Shard, sample: _Sample) -> Sidecar | None:
    """Return the XMP sidecar of a sample; errors are found when it is read."""
    found = sample.find(_XMP)
    if not found:
        return None
    read = functools.partial(read_at, shard.path, found[0], _MAX_TEXT_BYTES)
    return Sidecar(read, shard.stamp, uri_of_tar_member(shard.path, found[0]))


def _fields(shard: _Shard, sample: _Sample) -> Generator[SourceEvent, None, dict[str, Any]]:
    """Return the JSON of a sample; a damaged file does not affect the image."""
    found = sample.find(_JSON)
    if not found:
        return {}
    try:
        data = read_at(shard.path, found[0], _MAX_TEXT_BYTES)
        fields, _ = decode_json(data, dict[str, Any], found[0].name)
    except (DataError, ItemError):
        yield Note(NoteKind.UNREADABLE_CAPTION_FILES)
        return {}
    return fields


def _captions(
    shard: _Shard, sample: _Sample, fields: dict[str, Any]
) -> Generator[SourceEvent, None, list[str]]:
    """Return the lines of the text file, or the caption in the JSON.

    An invalid caption does not affect the image.
    """
    found = sample.find(_TEXTS)
    try:
        if found:
            text = read_at(shard.path, found[0], _MAX_TEXT_BYTES).decode("utf-8-sig")
            return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
        named = caption_fields(fields)
        texts = [text for name in named for text in caption_texts(fields[name], name)]
    except (DataError, ItemError, UnicodeDecodeError):
        yield Note(NoteKind.UNREADABLE_CAPTION_FILES)
        return []
    return [text for text in texts if text]


KIND: Final = Kind(
    name="webdataset",
    place=Place.PATTERN,
    form="PATTERN[#SPLIT]",
    example="webdataset:shards/{00000..00041}.tar",
    summary="tar shards of img2dataset and open_clip: `shards/{00000..00041}.tar`",
    read=read_webdataset,
    ids="webdataset",
    suffix=".tar",
    objects=True,
    spreads=True,
)
