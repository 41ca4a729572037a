"""Caption lists: one line or record for each caption, by image name.

The first line determines the form:

- a table with a header that names its columns, separated by tabs or ``|`` without quoting
  (Flickr30k's ``results.csv``) or by commas with quoting as in RFC 4180 (Kaggle's ``captions.txt``,
  Hugging Face's ``metadata.csv``, nlphuji's ``flickr_annotations_30k.csv``, whose ``raw`` holds a
  JSON list);
- with a tab: ``name<TAB>caption``, where ``name#3`` is the image's fourth caption (Flickr30k's
  ``.token`` file) and ``name#zhm#0`` its first in some language (Flickr8k-CN);
- otherwise ``name,caption``, quoted as in RFC 4180 if a caption contains a comma.

A ``.jsonl`` has one object per line, with ``file_name`` or ``image``, captions as
:mod:`mmindex.sources.captions` finds them, and ``split`` if known. Every other key becomes a
metadata column, and so does every other column of a ``metadata.csv``.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mmindex.core.errors import DataError
from mmindex.core.records import MetadataValue, Note, NoteKind
from mmindex.sources.annotations import (
    as_text,
    decode_json,
    json_column,
    notes,
    numbered_lines,
    read_bytes,
)
from mmindex.sources.captions import caption_fields, caption_texts

IMAGE_KEYS: Final = ("file_name", "image", "image_name", "filename", "file", "path")
_MAX_FIELD_CHARS: Final = 64 << 20  # Python's own limit for a CSV field is 128 Ki
_NUMBERED: Final = re.compile(r"(?:#[A-Za-z]+)?#\d+$")
# In the published results.csv, one row lacks its second separator: "2199200615.jpg| 4   A dog ...".
_LOST_SEPARATOR: Final = re.compile(r" ?\d+\s+(?P<caption>\S.*)", re.DOTALL)
_JSON_LIST: Final = "raw"


@dataclass(slots=True)
class Described:
    """The entry of an image in a caption list."""

    captions: list[str] = field(default_factory=list)
    split: str = "all"
    metadata: dict[str, MetadataValue] = field(default_factory=dict)


@dataclass(slots=True)
class CaptionList:
    """A caption list in memory: about 200 bytes per caption in addition to its text.

    Attributes:
        images: the entries by image name, in file order.
        notes: counts of anomalies.
    """

    images: dict[str, Described] = field(default_factory=dict)
    notes: Counter[NoteKind] = field(default_factory=Counter)

    def about(self, name: str) -> Described:
        """Return the entry of an image; create it if there is none."""
        return self.images.setdefault(name.removeprefix("./"), Described())

    def take(self, name: str) -> Described | None:
        """Remove and return the entry of an image, or None."""
        return self.images.pop(name, None)

    def summary(self) -> Iterator[Note]:
        """Return the anomalies; captions that were not taken are those of unknown images."""
        unknown = sum(len(described.captions) for described in self.images.values())
        counts = self.notes + Counter({NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES: unknown})
        return notes(dict(sorted(counts.items())))


def read_captions(path: Path) -> CaptionList:
    """Read a caption list of any of the forms above.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        DataError: it is not UTF-8 or breaks its form; the message names the line.
    """
    return parse_captions(read_bytes(path), str(path))


def names_images(data: bytes, where: str) -> bool:
    """Return whether the first line of a table or JSON lines has a field for the image name."""
    try:
        if where.lower().endswith(".jsonl"):
            first = data.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]
            keys = set(decode_json(first, dict[str, Any], where)[0])
        else:
            header = as_text(data, where).lstrip().partition("\n")[0].lower()
            keys = {name.strip().strip('"') for name in re.split(r"[,;\t|]", header)}
    except DataError:
        return False
    return not keys.isdisjoint(IMAGE_KEYS)


def parse_captions(data: bytes, where: str) -> CaptionList:
    """Read the bytes of a caption list.

    Args:
        data: the file's content.
        where: its path or URI, for messages; the extension tells JSON lines from tables.

    Raises:
        DataError: it is not UTF-8 or breaks its form; the message names the line.
    """
    result = CaptionList()
    if where.lower().endswith(".jsonl"):
        _read_jsonl(data, where, result)
        return result
    text = as_text(data, where)
    first = text.partition("\n")[0].removesuffix("\r")
    with_others = PurePosixPath(where).name.lower().startswith("metadata.")
    for separator in "\t|":
        columns = _columns(first.split(separator), with_others=with_others)
        if columns is not None:
            for number, row in _unquoted(text, where, separator, columns.count, result):
                _add_row(row, columns, f"{where}:{number}", result)
            return result
    if "\t" in first:
        _read_tabs(text, where, result)
        return result
    # Spreadsheets write semicolons in locales in which the comma is the decimal separator.
    semicolons = _columns([name.strip(' "') for name in first.split(";")], with_others=with_others)
    separator = "," if semicolons is None else ";"
    _read_csv(text, where, result, with_others=with_others, separator=separator)
    return result


def _read_tabs(text: str, where: str, result: CaptionList) -> None:
    for number, line in numbered_lines(text):
        name, tab, caption = line.partition("\t")
        if not tab or not name:
            raise DataError(f"{where}:{number}: expected name<TAB>caption")
        result.about(_NUMBERED.sub("", name)).captions.append(caption)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The positions of the columns of a table; ``others`` become metadata, by name."""

    names: tuple[str, ...]
    image: int
    captions: tuple[int, ...]
    split: int | None = None
    others: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return len(self.names)


_PLAIN: Final = _Columns(("image", "caption"), 0, (1,))


def _columns(header: list[str], *, with_others: bool) -> _Columns | None:
    """Return the positions of the columns, or None if this row is not a header."""
    names = [name.strip() for name in header]
    lower = [name.lower() for name in names]
    image = next((lower.index(key) for key in IMAGE_KEYS if key in lower), None)
    captions = tuple(lower.index(name) for name in caption_fields(lower))
    if image is None or not (captions or with_others) or len(names) < 2:
        return None
    split = lower.index("split") if "split" in lower else None
    known = {image, *captions, split}
    others = tuple(n for n in range(len(names)) if n not in known) if with_others else ()
    return _Columns(tuple(names), image, captions, split, others)


def _add_row(row: list[str], columns: _Columns, where: str, result: CaptionList) -> None:
    if not row[columns.image]:
        raise DataError(f"{where}: no image name")
    described = result.about(row[columns.image])
    if columns.split is not None and row[columns.split]:
        described.split = row[columns.split]
    for place in columns.captions:
        if columns.names[place].lower() == _JSON_LIST:
            captions, replaced = decode_json(row[place].encode("utf-8"), list[str], where)
            described.captions.extend(captions)
            result.notes[NoteKind.LONE_SURROGATES_REPLACED] += replaced
        else:
            described.captions.append(row[place])
    described.metadata.update({columns.names[place]: row[place] for place in columns.others})


def _unquoted(
    text: str, where: str, separator: str, width: int, result: CaptionList
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below a header; the last cell can contain the separator."""
    for number, line in islice(numbered_lines(text), 1, None):
        cells = line.split(separator, width - 1)
        if len(cells) == width - 1 and (match := _LOST_SEPARATOR.fullmatch(cells[-1])):
            result.notes[NoteKind.LOST_SEPARATORS_MENDED] += 1
            cells = [*cells[:-1], "", match["caption"]]
        if len(cells) != width:
            raise DataError(f"{where}:{number}: {len(cells)} columns, but the header has {width}")
        yield number, [cell.removeprefix(" ") for cell in cells]


def _read_csv(
    text: str, where: str, result: CaptionList, *, with_others: bool, separator: str
) -> None:
    with _csv_field_limit():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        columns = None
        try:
            for row in filter(None, reader):
                if columns is None:
                    header = _columns(row, with_others=with_others)
                    columns = header or _PLAIN
                    if header is not None:
                        continue
                if len(row) != columns.count:
                    raise DataError(
                        f"{where}:{reader.line_num}: {len(row)} columns, expected {columns.count}",
                        f"quote captions that contain {separator!r}, or separate columns with tabs",
                    )
                _add_row(row, columns, f"{where}:{reader.line_num}", result)
        except csv.Error as error:
            raise DataError(f"{where}:{reader.line_num}: {error}") from error


@contextmanager
def _csv_field_limit() -> Iterator[None]:
    before = csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_jsonl(data: bytes, where: str, result: CaptionList) -> None:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        record, replaced = decode_json(line, dict[str, Any], place)
        result.notes[NoteKind.LONE_SURROGATES_REPLACED] += replaced
        name = next((record.pop(key) for key in IMAGE_KEYS if key in record), None)
        if not isinstance(name, str) or not name:
            raise DataError(f"{place}: no image name (one of: {', '.join(IMAGE_KEYS[:2])})")
        described = result.about(name)
        for key in caption_fields(record):
            described.captions.extend(caption_texts(record.pop(key), f"{place}: {key!r}"))
        split = record.pop("split", None)
        if isinstance(split, str) and split:
            described.split = split
        described.metadata.update({key: json_column(value) for key, value in record.items()})
