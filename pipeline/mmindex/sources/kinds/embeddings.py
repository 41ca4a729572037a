"""Vectors from other programs: no image is opened, and nothing is encoded.

A row is an image with a vector; its other columns become metadata. Texts are captions if they have
vectors of their own. The files and the layouts are in :mod:`mmindex.sources.vector_sets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from mmindex.core.errors import DataError
from mmindex.core.records import (
    CaptionItem,
    Expected,
    MetadataValue,
    Note,
    NoteKind,
    Reason,
    Rejected,
    SourceEvent,
    VectorItem,
)
from mmindex.sources.annotations import json_column
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.captions import caption_fields
from mmindex.sources.url_rows import row_id
from mmindex.sources.vector_files import (
    BLOCK_ROWS,
    ParquetVectors,
    VectorFile,
    open_parquet,
    parquet_errors,
    unit_vectors,
)
from mmindex.sources.vector_sets import KIND_NAME, VectorPart, open_vectors

_NAMES: Final = ("image_id", "id", "__key__", "key")
_URIS: Final = ("uri", "image_path", "url", "URL", "path", "file_name", "filename")
_CAPTION_ID: Final = "image_id"  # of a file of captions
_MOST_PIXELS: Final = 2**31
_BAD: Final = "its vector is missing, all zeros, not finite, or has another number of dimensions"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a file of metadata.

    Attributes:
        read: the columns to read.
        name: the column of ids, or None.
        uris: columns with the path or URL of the image, best first.
        caption: the column of captions whose vectors are in another file, or None.
        others: the columns that become metadata.
    """

    read: tuple[str, ...]
    name: str | None
    uris: tuple[str, ...]
    caption: str | None
    others: tuple[str, ...]


def read_embeddings(request: Request) -> Iterator[SourceEvent]:
    """Stream the rows of all files in order, then the captions that have a file of their own.

    The id is in the column ``image_id``, ``id`` or ``key``, or it is the name of the file and the
    number of the row.

    Raises:
        NoInputError: there are no vectors.
        DataError: a file is damaged, or the numbers of rows or dimensions do not match.
    """
    found = open_vectors(request.path)
    yield Expected(sum(part.images.rows for part in found.parts))
    for part in found.parts:
        yield from _part_events(part, request.split)
    if found.captions is not None:
        yield from _caption_events(found.captions)


def _part_events(part: VectorPart, split: str | None) -> Iterator[SourceEvent]:
    columns = _columns(part)
    rows = iter(()) if part.metadata is None else _rows(part.metadata, columns.read)
    texts = iter(()) if part.texts is None else _keys(part.texts)
    number = -1
    for key, scaled in _keys(part.images):
        number += 1
        row = next(rows, {}) if part.metadata is not None else {}
        text_key = next(texts, ("", False))[0]
        if scaled:
            yield Note(NoteKind.VECTORS_SCALED)
        if None not in (split, own := row.get("split")) and str(own) != split:
            continue
        item = _item(part, columns, number, row, key)
        text = row.get(columns.caption) if columns.caption is not None else None
        has_text = isinstance(text, str) and bool(text.strip())
        if not key:
            yield Rejected(item.image_id, item.uri, Reason.BAD_VECTOR, _BAD)
            if has_text:
                yield Note(NoteKind.CAPTIONS_OF_REJECTED_IMAGES)
            continue
        yield item
        if not has_text:
            continue
        if text_key:
            yield CaptionItem(item.image_id, str(text), text_key)
        else:
            yield Note(NoteKind.CAPTIONS_WITHOUT_VECTOR)


def _item(part: VectorPart, columns: _Columns, number: int, row: Row, key: str) -> VectorItem:
    name = row_id(row[columns.name]) if columns.name is not None else ""
    uri = next((row[one] for one in columns.uris if isinstance(row[one], str) and row[one]), "")
    split = row.get("split")
    return VectorItem(
        image_id=name or f"{part.name}/{number}",
        uri=uri or f"{part.images.path}#{number}",
        split=str(split) if split is not None else "all",
        key=key,
        width=_pixels(row.get("width")),
        height=_pixels(row.get("height")),
        format=str(row.get("format") or ""),
        size_bytes=_size(row.get("size_bytes")),
        metadata={column: _value(row[column]) for column in columns.others},
    )


def _caption_events(captions: ParquetVectors) -> Iterator[SourceEvent]:
    with parquet_errors(captions.path), open_parquet(captions.path) as file:
        names = file.schema_arrow.names
    texts = caption_fields(names)
    if _CAPTION_ID not in names or not texts:
        raise DataError(
            f"{captions.path}: captions need the columns {_CAPTION_ID!r} and 'text'",
            f"it has: {', '.join(names)[:200]}",
        )
    rows = _rows(captions.path, (_CAPTION_ID, texts[0]))
    for (key, scaled), row in zip(_keys(captions), rows, strict=True):
        if scaled:
            yield Note(NoteKind.VECTORS_SCALED)
        text = row[texts[0]]
        if not isinstance(text, str) or not text.strip():
            yield Note(NoteKind.EMPTY_CAPTIONS)
        elif not key:
            yield Note(NoteKind.CAPTIONS_WITHOUT_VECTOR)
        else:
            yield CaptionItem(row_id(row[_CAPTION_ID]), text, key)


def _keys(file: VectorFile) -> Iterator[tuple[str, bool]]:
    """Yield the key of each vector, empty if it cannot be used, and whether it was scaled."""
    for block in file.blocks():
        units = unit_vectors(block)
        for key, good, scaled in zip(
            units.keys(), units.good.tolist(), units.scaled.tolist(), strict=True
        ):
            yield key if good else "", scaled


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    with parquet_errors(path), open_parquet(path) as file:
        if not columns:
            yield from ({} for _ in range(file.metadata.num_rows))
            return
        for batch in file.iter_batches(BLOCK_ROWS, columns=list(columns)):
            yield from batch.to_pylist()


def _columns(part: VectorPart) -> _Columns:
    if part.metadata is None:
        return _Columns((), None, (), None, ())
    with parquet_errors(part.metadata), open_parquet(part.metadata) as file:
        schema = file.schema_arrow
    vector = part.images.column if isinstance(part.images, ParquetVectors) else None
    names = [field.name for field in schema if field.name != vector and not _has_bytes(field.type)]
    caption = None
    if part.texts is not None:
        texts = caption_fields(name for name in names if _is_text(schema.field(name).type))
        caption = next(iter(texts), None)
    name = next((one for one in _NAMES if one in names), None)
    uris = tuple(one for one in _URIS if one in names)
    fixed = {name, caption, "split", "width", "height", "format", "size_bytes", *uris[:1]}
    return _Columns(
        read=tuple(names),
        name=name,
        uris=uris,
        caption=caption,
        others=tuple(one for one in names if one not in fixed),
    )


def _has_bytes(kind: pa.DataType) -> bool:
    """Return whether a column contains image bytes, which are not read."""
    if pa.types.is_struct(kind):
        return any(_has_bytes(field.type) for field in kind)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _pixels(value: object) -> int:
    """Return a width or height in pixels; 0 if unknown."""
    whole = isinstance(value, int | float) and 0 < value < _MOST_PIXELS
    return int(value) if whole else 0  # type: ignore[call-overload]  # narrowed above


def _size(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 2**63 else 0


def _value(value: Any) -> MetadataValue:
    if isinstance(value, datetime) and value.tzinfo is None:
        return datetime.fromisoformat(value.isoformat()[:26])  # truncated to microseconds
    if value is None or isinstance(value, str | bool | int | float | list | dict):
        return json_column(value)
    return str(value)


KIND: Final = Kind(
    name=KIND_NAME,
    place=Place.FILE_OR_FOLDER,
    form="PATH[#SPLIT]",
    example="embeddings:laion-art",
    summary="vectors from other programs: files of clip-retrieval and LAION, `.npy` or Parquet",
    read=read_embeddings,
)
