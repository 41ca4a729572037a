"""Parquet files with images, as on the Hugging Face hub.

An image column is a struct with ``bytes`` and ``path``, or binary; texts are in other columns:
https://huggingface.co/docs/datasets/image_dataset. If the bytes are null, or the column is text,
the images are files next to the table.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import Expected, MetadataValue, SourceEvent, SourceItem, Stamp
from mmindex.media.files import is_remote, stamp_of
from mmindex.media.parquet_cells import open_parquet, read_cell, uri_of_cell
from mmindex.media.places import ImageBucket, ImageFolder, ImagePlace
from mmindex.sources.annotations import json_column
from mmindex.sources.base import Kind, Place, Request, unit_events
from mmindex.sources.captions import caption_fields, caption_texts
from mmindex.sources.listed import Listed, image_events
from mmindex.sources.patterns import file_names, find_files
from mmindex.sources.url_rows import URL_COLUMNS, row_id

# Names in datasets on the hub, best first; a column with another name is used if it is the only
# one with images.
_IMAGE: Final = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")
_PATH: Final = ("image", "file_name", "filename", "image_path", "image_file", "path", "file")
_NAME: Final = ("id", "image_id", "key", "__key__")
_BATCH_ROWS: Final = 1_024
_ADDRESSES: Final = ("http://", "https://", "s3://", "gs://")


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a file.

    Attributes:
        image: the column of bytes, or a struct with ``bytes``; None if images are paths.
        path: the column of paths, as named by pyarrow (``image.path`` in a struct); None if there
            is none.
        captions: the columns of captions.
        name: the column of ids.
        split: the column of splits.
        others: the metadata columns.
    """

    image: str | None
    path: str | None
    captions: tuple[str, ...]
    name: str | None
    split: str | None
    others: tuple[str, ...]


def read_parquet(request: Request) -> Iterator[SourceEvent]:
    """Stream the rows of all files in the order of their names; images are not copied.

    The id of an image is ``parquet/<folder>/<file stem>/<id>``, with the column ``id`` or the row
    number. A split selects rows by the column ``split`` if there is one; otherwise all rows get
    this split.

    Raises:
        NoInputError: no such file.
        DataError: a file is damaged, has no image column, or has a column of invalid captions.
    """
    files = find_files(request.spec.where, KIND.suffix)
    limit = request.options.max_bytes
    # A folder of objects is listed once.
    place_in = functools.cache(functools.partial(_place_in, max_bytes=limit))
    for path, name in file_names(request.spec, files).items():
        read = functools.partial(_file_events, path, name, request, place_in)
        yield from unit_events(request, path, (stamp_of(path), name), read)


def _file_events(
    path: str, id_prefix: str, request: Request, place_in: Callable[[str], ImagePlace]
) -> Iterator[SourceEvent]:
    row = -1
    try:
        with os_errors(path), open_parquet(path) as file:
            columns = _columns(path, file.schema_arrow)
            table = _Table(path, id_prefix, columns, stamp_of(path), request, place_in)
            yield Expected(file.metadata.num_rows)
            for values in _rows(file, columns):
                row += 1
                yield from table.events(row, values)
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged after row {row}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Table:
    """A file whose rows become events; ``place_in`` opens a folder of images."""

    path: str
    id_prefix: str
    columns: _Columns
    stamp: Stamp
    request: Request
    place_in: Callable[[str], ImagePlace]

    def events(self, row: int, values: Mapping[str, Any]) -> Iterator[SourceEvent]:
        """Yield the events of one row."""
        columns, split = self.columns, self.request.split
        own = str(values[columns.split]) if columns.split else None
        if None not in (split, own) and own != split:
            return
        # Ids of rows without an id must not be equal to ids that are numbers.
        name = str(row)
        if columns.name is not None:
            name = row_id(values[columns.name]) or f"row-{row}"
        captions = [
            text
            for column in columns.captions
            for text in caption_texts(values[column], f"{self.path}: row {row}, column {column!r}")
        ]
        metadata = {column: _value(values[column]) for column in columns.others}
        listed = Listed(
            image_id=f"{self.id_prefix}/{name}",
            name=values.get(_FILE) or "",
            captions=captions if columns.captions else None,
            split=own or split or "all",
            metadata=metadata,
        )
        if listed.name:
            yield from self._beside(listed, row)
        else:
            yield self._cell(listed, row)

    def _cell(self, listed: Listed, row: int) -> SourceItem:
        path, column, limit = self.path, self.columns.image, self.request.options.max_bytes
        column = column or ""
        return SourceItem(
            image_id=listed.image_id,
            uri=uri_of_cell(path, column, row),
            split=listed.split,
            captions=tuple(listed.captions or ()),
            read=functools.partial(read_cell, path, column, row, limit),
            metadata=listed.metadata,
            stamp=self.stamp,
            is_row=True,
        )

    def _beside(self, listed: Listed, row: int) -> Iterator[SourceEvent]:
        if listed.name.lower().startswith(_ADDRESSES):
            raise DataError(
                f"{self.path}: row {row} contains a URL, not a file: {listed.name[:100]}",
                "read tables of URLs with urls:FILE",
            )
        place = self.place_in(self.path.rpartition("/")[0])
        for event in image_events(place, listed):
            if isinstance(event, SourceItem):
                yield dataclasses.replace(event, is_row=True)
            else:
                yield event


def _place_in(folder: str, max_bytes: int) -> ImagePlace:
    if is_remote(folder):
        return ImageBucket.of(folder, max_bytes)
    return ImageFolder(Path(folder), max_bytes)


# The name for the image's path in rows; no column of the file can have this name.
_FILE: Final = "\0file"


def _rows(file: pq.ParquetFile, columns: _Columns) -> Iterator[dict[str, Any]]:
    """Yield rows without the image bytes, and with the image path if a row has no bytes."""
    wanted = [*columns.captions, columns.name, columns.split, *columns.others]
    read = [name for name in wanted if name is not None]
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        paths = _paths(file, columns, number)
        if not read:
            rows: Iterator[dict[str, Any]] = ({} for _ in range(group.num_rows))
        else:
            batches = file.iter_batches(_BATCH_ROWS, row_groups=[number], columns=read)
            rows = (row for batch in batches for row in batch.to_pylist())
        for place, row in enumerate(rows):
            yield row if paths is None else {**row, _FILE: paths[place]}


def _paths(file: pq.ParquetFile, columns: _Columns, number: int) -> list[str | None] | None:
    """Return the image paths of a row group, null for rows with bytes; None if all have bytes."""
    if columns.path is None:
        return None
    if columns.image is not None and not _nulls(file, f"{columns.image}.bytes", number):
        return None
    top, _, field = columns.path.partition(".")
    paths = file.read_row_group(number, columns=[columns.path])[top].combine_chunks()
    found = pc.struct_field(paths, field) if field else paths
    if columns.image is None:
        return list(found.to_pylist())
    stored = file.read_row_group(number, columns=[f"{columns.image}.bytes"])[columns.image]
    held = pc.struct_field(stored.combine_chunks(), "bytes").is_valid()
    return list(pc.if_else(held, None, found).to_pylist())


def _nulls(file: pq.ParquetFile, column: str, number: int) -> bool:
    """Return whether a column of a row group can contain nulls, according to its statistics."""
    group = file.metadata.row_group(number)
    for place in range(group.num_columns):
        found = group.column(place)
        if found.path_in_schema == column:
            statistics = found.statistics
            return not (statistics and statistics.has_null_count and not statistics.null_count)
    return False


def _columns(path: str, schema: pa.Schema) -> _Columns:
    images = [field.name for field in schema if _holds_images(field.type)]
    named = [name for name in _IMAGE if name in images]
    structs = [name for name in images if pa.types.is_struct(schema.field(name).type)]
    unclear = not named and len(structs) != 1 and len(images) != 1
    image = None if unclear else (named or structs or images)[0]
    files = _path_column(schema, image)
    if image is None and (images or files is None):
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)[:300]
        raise DataError(
            f"{path}: no image column (columns: {found})",
            "for a list of URLs, use the kind urls:"
            if any(field.name.lower() in URL_COLUMNS for field in schema)
            else "name it 'image': a struct with 'bytes', or binary, or the paths of files",
        )
    texts = [field.name for field in schema if field.name not in (*images, files)]
    captions = caption_fields(texts)
    name = next((known for known in _NAME if known in texts), None)
    split = "split" if "split" in texts else None
    others = tuple(one for one in texts if one not in (*captions, name, split))
    return _Columns(image, files, captions, name, split, others)


def _path_column(schema: pa.Schema, image: str | None) -> str | None:
    if image is not None:
        kind = schema.field(image).type
        held = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        return f"{image}.path" if held else None
    return next(
        (name for name in _PATH if name in schema.names and _is_text(schema.field(name).type)),
        None,
    )


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _value(value: Any) -> MetadataValue:
    if value is None or isinstance(value, str | bool | int | float | list | dict):
        return json_column(value)
    return str(value)


KIND: Final = Kind(
    name="parquet",
    place=Place.PATTERN,
    form="PATTERN[#SPLIT]",
    example="parquet:data/train-*.parquet",
    summary="Parquet files with an image column (bytes or file paths), as on the Hugging Face hub",
    read=read_parquet,
    ids="parquet",
    suffix=".parquet",
    objects=True,
    spreads=True,
)
