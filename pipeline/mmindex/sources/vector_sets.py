"""Folders and files of vectors from other programs, in the supported layouts.

- clip-retrieval and LAION: ``img_emb_0.npy``, ``text_emb_0.npy`` and ``metadata_0.parquet``, in the
  folder or in folders inside it: https://github.com/rom1504/clip-retrieval
- ``.npy`` files, each with a Parquet file of the same rows;
- Parquet files with a column of vectors, and the output of ``mmindex export``.

The row counts of files that belong together are compared before any row is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.core.resources import user_path
from mmindex.sources.annotations import read_bytes
from mmindex.sources.kinds import kind_of
from mmindex.sources.spec import parse_spec
from mmindex.sources.vector_files import (
    ParquetVectors,
    VectorFile,
    open_npy,
    open_parquet,
    open_vector_parquet,
    parquet_errors,
)

KIND_NAME: Final = "embeddings"
NOTE: Final = "mmindex.json"  # the description of the vectors by `mmindex export`
IMAGES_FILE: Final = "images.parquet"
CAPTIONS_FILE: Final = "captions.parquet"
_NUMBERED: Final = re.compile(r"(img_emb|text_emb|metadata)_(\w+)\.(?:npy|parquet)")
_LAYOUTS: Final = (
    "a folder with img_emb_0.npy and metadata_0.parquet, a .npy file with a Parquet file of the "
    "same name, or Parquet files with a column of vectors"
)


@dataclass(frozen=True, slots=True)
class VectorPart:
    """Files with the same rows.

    Attributes:
        name: distinguishes the rows of this part from those of others.
        images: the image vectors.
        texts: the vectors of one caption per image, or None.
        metadata: the Parquet file with the other columns, or None.
    """

    name: str
    images: VectorFile
    texts: VectorFile | None = None
    metadata: Path | None = None


@dataclass(frozen=True, slots=True)
class VectorSet:
    """The vectors in one place.

    Attributes:
        path: the folder or file.
        parts: the files of images, in order.
        captions: a file with a row and a vector for each caption, or None.
        fingerprint: the fingerprint of the model if an export names it; otherwise empty.
    """

    path: Path
    parts: tuple[VectorPart, ...]
    captions: ParquetVectors | None = None
    fingerprint: str = ""

    @property
    def image_files(self) -> tuple[VectorFile, ...]:
        """The files of image vectors."""
        return tuple(part.images for part in self.parts)

    @property
    def text_files(self) -> tuple[VectorFile, ...]:
        """The files of caption vectors."""
        texts = tuple(part.texts for part in self.parts if part.texts is not None)
        return texts if self.captions is None else (*texts, self.captions)

    @property
    def dim(self) -> int:
        """The number of dimensions; 0 if there is no vector."""
        return next((file.dim for file in self.image_files if file.dim), 0)


def vector_sets(specs: Sequence[str]) -> list[VectorSet]:
    """Open the vectors of all ``embeddings:`` sources; raises as :func:`open_vectors`."""
    own = (parse_spec(text) for text in specs if kind_of(text) == KIND_NAME)
    return [open_vectors(user_path(spec.where).absolute()) for spec in own]


def open_vectors(path: Path) -> VectorSet:
    """Find the files of vectors in a folder, or open a single file; reads headers only.

    Raises:
        NoInputError: there is nothing there, or no vectors.
        DataError: a file is damaged, or the numbers of rows or dimensions do not match.
    """
    if not path.exists():
        raise NoInputError(f"{path}: no such file or folder")
    captions = None
    if path.is_file():
        parts = [_single(path)]
    else:
        files = _files(path)
        numbered = _numbered(files)
        arrays = [file for file in files if file.suffix == ".npy" and file.parent == path]
        if "img_emb" in numbered:
            parts = _numbered_parts(path, numbered)
        elif arrays:
            parts = _array_parts(path, arrays)
        else:
            parts = list(_parquet_parts(path, files))
            captions = _captions(path)
    found = VectorSet(path, tuple(parts), captions, _fingerprint(path))
    _check_dims(found)
    return found


def _single(path: Path) -> VectorPart:
    if path.suffix == ".npy":
        beside = path.with_suffix(".parquet")
        return _part(path.stem, path, None, beside if beside.is_file() else None)
    images = open_vector_parquet(path)
    if images is None:
        raise DataError(f"{path}: no column with lists of numbers", f"expected {_LAYOUTS}")
    return VectorPart(path.stem, images, metadata=path)


def _part(name: str, images: Path, texts: Path | None, metadata: Path | None) -> VectorPart:
    """Open files with the same rows.

    Raises:
        DataError: their numbers of rows differ.
    """
    part = VectorPart(name, open_npy(images), open_npy(texts) if texts else None, metadata)
    counts = {images: part.images.rows}
    if texts is not None and part.texts is not None:
        counts[texts] = part.texts.rows
    if metadata is not None:
        with parquet_errors(metadata), open_parquet(metadata) as file:
            counts[metadata] = file.metadata.num_rows
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{path.name} has {rows:,}" for path, rows in counts.items())
        raise DataError(
            f"{images.parent}: files that must have the same rows do not: {shown}",
            "copy or make these files again",
        )
    return part


def _files(path: Path) -> list[Path]:
    """Return the files of a folder and of the folders in it, without hidden ones, sorted."""
    with os_errors(path):
        own = [one for one in sorted(path.iterdir()) if not one.name.startswith(".")]
        below = [
            file
            for folder in own
            if folder.is_dir()
            for file in sorted(folder.iterdir())
            if not file.name.startswith(".")
        ]
        return [file for file in (*own, *below) if file.is_file()]


def _numbered(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Return the files of clip-retrieval's layout by kind and tag (0012 is 12).

    Raises:
        DataError: there are two files with the same name.
    """
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file.name):
            tag = match[2].lstrip("0") or "0" if match[2].isdigit() else match[2]
            other = found.setdefault(match[1], {}).setdefault(tag, file)
            if other != file:
                raise DataError(
                    f"{other} and {file} have the same number", "pass each folder as a source"
                )
    return found


def _numbered_parts(path: Path, numbered: Mapping[str, Mapping[str, Path]]) -> list[VectorPart]:
    images = numbered["img_emb"]
    for kind, others in numbered.items():
        if others.keys() != images.keys():
            tag = min(others.keys() ^ images.keys())
            has = images.get(tag) or others[tag]
            lacks = "img_emb" if tag in others else kind
            raise DataError(
                f"{path}: {has.name} has no file {lacks}_* with the same number",
                "copy the missing file, or remove what belongs to it",
            )
    tags = sorted(images, key=lambda tag: (not tag.isdigit(), len(tag), tag))
    texts, metadata = numbered.get("text_emb", {}), numbered.get("metadata", {})
    return [_part(images[tag].stem, images[tag], texts.get(tag), metadata.get(tag)) for tag in tags]


def _array_parts(path: Path, arrays: Sequence[Path]) -> list[VectorPart]:
    with os_errors(path):
        tables = sorted(one for one in path.glob("*.parquet") if not one.name.startswith("."))
    if len(arrays) == len(tables) == 1:
        return [_part(arrays[0].stem, arrays[0], None, tables[0])]
    beside = {table.stem: table for table in tables}
    if beside and beside.keys() != {array.stem for array in arrays}:
        stem = min(beside.keys() ^ {array.stem for array in arrays})
        raise DataError(
            f"{path}: {stem} is not both a .npy and a .parquet file",
            "give the files with the same rows the same name",
        )
    return [_part(array.stem, array, None, beside.get(array.stem)) for array in arrays]


def _parquet_parts(path: Path, files: Sequence[Path]) -> Iterator[VectorPart]:
    """Yield the Parquet files with vectors, in the folder or in its folder ``data``."""
    tables = [file for file in files if file.suffix == ".parquet"]
    own = [file for file in tables if file.parent == path and file.name != CAPTIONS_FILE]
    chosen = own or [file for file in tables if file.parent == path / "data"]
    if not chosen:
        raise NoInputError(f"{path}: no files of vectors", f"expected {_LAYOUTS}")
    for file in chosen:
        images = open_vector_parquet(file)
        if images is None:
            raise DataError(f"{file}: no column with lists of numbers", f"expected {_LAYOUTS}")
        yield VectorPart(file.stem, images, metadata=file)


def _captions(path: Path) -> ParquetVectors | None:
    if not (path / CAPTIONS_FILE).is_file():
        return None
    captions = open_vector_parquet(path / CAPTIONS_FILE)
    if captions is None:
        raise DataError(
            f"{path / CAPTIONS_FILE}: no column with lists of numbers",
            "captions need vectors of their own",
        )
    return captions


def _fingerprint(path: Path) -> str:
    """Return the model's fingerprint from the note of an export; empty without a note."""
    import msgspec

    note = (path if path.is_dir() else path.parent) / NOTE
    if not note.is_file():
        return ""
    try:
        found = msgspec.json.decode(read_bytes(note))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{note}: not JSON: {error}", "export again") from error
    fingerprint = found.get("fingerprint") if isinstance(found, dict) else None
    return fingerprint if isinstance(fingerprint, str) else ""


def _check_dims(found: VectorSet) -> None:
    for file in (*found.image_files, *found.text_files):
        if file.dim not in (0, found.dim):
            first = next(one for one in found.image_files if one.dim)
            raise DataError(
                f"{file.path}: its vectors have {file.dim} dimensions, but those of "
                f"{first.path.name} have {found.dim}",
                "all vectors of a store must be from one model",
            )
