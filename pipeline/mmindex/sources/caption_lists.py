"""Caption lists: one line or record for each caption, by image name.

Forms, told apart by the first line:

- with a tab: ``name<TAB>caption``, where ``name#3`` is the image's fourth caption (Flickr30k's
  ``.token`` file) and ``name#zhm#0`` its first in some language (Flickr8k-CN);
- with a header that names its columns: separated by ``|`` without quoting (Flickr30k's
  ``results.csv``) or by commas with quoting as in RFC 4180 (Kaggle's ``captions.txt``, nlphuji's
  ``flickr_annotations_30k.csv``, whose ``raw`` holds a JSON list);
- otherwise ``name,caption``, quoted as in RFC 4180 where a caption holds a comma.

A ``.jsonl`` has one object a line: ``file_name`` or ``image``, and ``caption``, ``text`` or a list
``captions``; ``split`` if known; every other key becomes a metadata column.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mmindex.core.errors import DataError
from mmindex.core.records import MetadataValue, Note, NoteKind
from mmindex.sources.annotations import (
    decode_json,
    json_column,
    notes,
    numbered_lines,
    read_bytes,
    read_text,
)

IMAGE_KEYS: Final = ("file_name", "image", "image_name", "filename", "file", "path")
CAPTION_KEYS: Final = ("caption", "text", "captions", "comment", "sentence", "raw")
_MAX_FIELD_CHARS: Final = 64 << 20  # Python's own limit for a CSV field is 128 Ki
_NUMBERED: Final = re.compile(r"(?:#[A-Za-z]+)?#\d+$")
# One row of the published results.csv lacks its second separator: "2199200615.jpg| 4   A dog ...".
_LOST_SEPARATOR: Final = re.compile(r" ?\d+\s+(?P<caption>\S.*)", re.DOTALL)


@dataclass(slots=True)
class Described:
    """What a caption list says about one image."""

    captions: list[str] = field(default_factory=list)
    split: str = "all"
    metadata: dict[str, MetadataValue] = field(default_factory=dict)


@dataclass(slots=True)
class CaptionList:
    """A caption list in memory: some 200 bytes a caption beside its text.

    Attributes:
        images: what is said about each image, by name, in the file's order.
        notes: oddities, counted.
    """

    images: dict[str, Described] = field(default_factory=dict)
    notes: Counter[NoteKind] = field(default_factory=Counter)

    def about(self, name: str) -> Described:
        """The entry of an image, made where there is none."""
        return self.images.setdefault(name.removeprefix("./"), Described())

    def take(self, name: str) -> Described | None:
        """Take an image's entry out; None where the list does not name it."""
        return self.images.pop(name, None)

    def summary(self) -> Iterator[Note]:
        """The oddities; whatever was not taken out is a caption of an unknown image."""
        unknown = sum(len(described.captions) for described in self.images.values())
        counts = self.notes + Counter({NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES: unknown})
        return notes(dict(sorted(counts.items())))


def read_captions(path: Path) -> CaptionList:
    """Read a caption list of any of the forms above.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        DataError: it is not UTF-8 or breaks its form; the message names the line.
    """
    result = CaptionList()
    if path.suffix.lower() == ".jsonl":
        _read_jsonl(read_bytes(path), str(path), result)
        return result
    text = read_text(path)
    first = text.partition("\n")[0]
    columns = _columns(first.split("|")) if "|" in first else None
    if "\t" in first:
        _read_tabs(text, str(path), result)
    elif columns is not None:
        _read_pipes(text, str(path), columns, result)
    else:
        _read_csv(text, str(path), result)
    return result


def _read_tabs(text: str, where: str, result: CaptionList) -> None:
    for number, line in numbered_lines(text):
        name, tab, caption = line.partition("\t")
        if not tab or not name:
            raise DataError(f"{where}:{number}: expected name<TAB>caption")
        result.about(_NUMBERED.sub("", name)).captions.append(caption)


def _read_pipes(text: str, where: str, columns: _Columns, result: CaptionList) -> None:
    for number, line in islice(numbered_lines(text), 1, None):
        # The caption stands last and may itself hold a separator.
        cells = line.split("|", columns.count - 1)
        if len(cells) == columns.count - 1 and (match := _LOST_SEPARATOR.fullmatch(cells[-1])):
            result.notes[NoteKind.LOST_SEPARATORS_MENDED] += 1
            cells = [*cells[:-1], "", match["caption"]]
        if len(cells) != columns.count:
            raise DataError(
                f"{where}:{number}: {len(cells)} columns, the header has {columns.count}"
            )
        _add_row([cell.removeprefix(" ") for cell in cells], columns, f"{where}:{number}", result)


@dataclass(frozen=True, slots=True)
class _Columns:
    image: int
    caption: int
    split: int | None
    caption_is_list: bool
    count: int


def _columns(header: list[str]) -> _Columns | None:
    """Where the wanted columns stand, or None if this row is no header."""
    names = [name.strip().lower() for name in header]
    image = next((names.index(key) for key in IMAGE_KEYS if key in names), None)
    caption = next((names.index(key) for key in CAPTION_KEYS if key in names), None)
    if image is None or caption is None:
        return None
    split = names.index("split") if "split" in names else None
    return _Columns(image, caption, split, names[caption] == "raw", len(names))


def _add_row(row: list[str], columns: _Columns, where: str, result: CaptionList) -> None:
    if not row[columns.image]:
        raise DataError(f"{where}: no image name")
    described = result.about(row[columns.image])
    if columns.split is not None and row[columns.split]:
        described.split = row[columns.split]
    text = row[columns.caption]
    if columns.caption_is_list:
        captions, replaced = decode_json(text.encode("utf-8"), list[str], where)
        described.captions.extend(captions)
        result.notes[NoteKind.LONE_SURROGATES_REPLACED] += replaced
    else:
        described.captions.append(text)


def _read_csv(text: str, where: str, result: CaptionList) -> None:
    with _csv_field_limit():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns: _Columns | None = None
        try:
            for number, row in enumerate(reader):
                if number == 0:
                    columns = _columns(row)
                    if columns is not None:
                        continue
                    columns = _Columns(0, 1, None, caption_is_list=False, count=2)
                if columns is None or not row:
                    continue
                if len(row) != columns.count:
                    raise DataError(
                        f"{where}:{reader.line_num}: {len(row)} columns, expected {columns.count}",
                        "quote a caption that holds a comma, or separate by tabs",
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
        described.captions.extend(_captions_of(record, place))
        split = record.pop("split", None)
        if isinstance(split, str) and split:
            described.split = split
        described.metadata.update({key: json_column(value) for key, value in record.items()})


def _captions_of(record: dict[str, Any], place: str) -> list[str]:
    """Take the captions out of a record; none where it names none."""
    found: list[str] = []
    for key in ("caption", "text", "captions"):
        value = record.pop(key, None)
        texts = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{place}: {key!r} must be a text or a list of texts")
        found.extend(texts)
    return found
