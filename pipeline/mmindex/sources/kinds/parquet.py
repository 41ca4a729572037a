"""Parquet files that hold images, as the Hugging Face hub serves data sets.

An image column is a struct with ``bytes`` (and ``path``), or binary; texts stand beside it:
https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import MetadataValue, SourceEvent, SourceItem
from mmindex.media.archive import id_part
from mmindex.media.parquet_cells import file_stamp, read_cell, uri_of_cell
from mmindex.sources.annotations import json_column
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.patterns import find_files

# Names of the hub's data sets, best first; a column of another name is taken if it is the only
# one with images.
_IMAGE: Final = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")
_CAPTION: Final = ("caption", "captions", "text", "texts", "sentence", "sentences", "alt_text")
_NAME: Final = ("id", "image_id", "key", "__key__")
_BATCH_ROWS: Final = 1_024


@dataclass(frozen=True, slots=True)
class _Columns:
    image: str
    caption: str | None
    name: str | None
    split: str | None
    others: tuple[str, ...]


def read_parquet(request: Request) -> Iterator[SourceEvent]:
    """Stream the rows of all files, in the order of their names; images stay where they are.

    An image's id is ``parquet/<folder's name>/<file's stem>/<id>``, with the column ``id`` or else
    the row number. A split chooses rows by the column ``split`` where there is one; elsewhere it
    is their name.

    Raises:
        NoInputError: no such file.
        DataError: a file is damaged or has no column of images.
    """
    for path in find_files(request.spec.where, KIND.suffix):
        yield from _file_events(path, request.split, request.options.max_bytes)


def _file_events(path: Path, split: str | None, max_bytes: int) -> Iterator[SourceEvent]:
    stamp = file_stamp(str(path))
    id_prefix = id_part(f"{path.parent.name}/{path.stem}")
    row = -1
    try:
        with os_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            columns = _columns(path, file.schema_arrow)
            wanted = [columns.caption, columns.name, columns.split, *columns.others]
            read = [name for name in wanted if name is not None]
            for values in _rows(file, read):
                row += 1
                own = str(values[columns.split]) if columns.split else None
                if None not in (split, own) and own != split:
                    continue
                name = row if columns.name is None else values[columns.name]
                yield SourceItem(
                    image_id=f"{id_prefix}/{name}",
                    uri=uri_of_cell(str(path), columns.image, row),
                    split=own or split or "all",
                    captions=_captions(values.get(columns.caption or "")),
                    read=functools.partial(read_cell, str(path), columns.image, row, max_bytes),
                    metadata={name: _value(values[name]) for name in columns.others},
                    stamp=stamp,
                )
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged behind row {row}: {error}") from error


def _rows(file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows without the images; also of a file that has nothing else."""
    if not columns:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
        yield from batch.to_pylist()


def _columns(path: Path, schema: pa.Schema) -> _Columns:
    images = [field.name for field in schema if _holds_images(field.type)]
    named = [name for name in _IMAGE if name in images]
    structs = [name for name in images if pa.types.is_struct(schema.field(name).type)]
    if not named and len(structs) != 1 and len(images) != 1:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)[:300]
        raise DataError(
            f"{path}: no column of images (columns: {found})",
            "name it `image`: a struct with `bytes`, or binary",
        )
    image = (named or structs or images)[0]
    caption, name, split = (
        next((known for known in names if known in schema.names), None)
        for names in (_CAPTION, _NAME, ("split",))
    )
    others = tuple(
        field.name for field in schema if field.name not in (*images, caption, name, split)
    )
    return _Columns(image, caption, name, split, others)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _captions(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = value if isinstance(value, list) else [value]
    return tuple(str(text) for text in texts if text is not None and text != "")


def _value(value: Any) -> MetadataValue:
    if value is None or isinstance(value, str | bool | int | float | list | dict):
        return json_column(value)
    return str(value)


KIND: Final = Kind(
    name="parquet",
    place=Place.PATTERN,
    form="PATTERN[#SPLIT]",
    example="parquet:data/train-*.parquet",
    summary="Parquet files with an image column, as the Hugging Face hub serves them",
    read=read_parquet,
    ids="parquet",
    suffix=".parquet",
)
