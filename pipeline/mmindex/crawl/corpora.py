"""What is known of published corpora: the descriptions in ``data/corpora/*.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from mmindex.errors import InternalError, NoInputError
from mmindex.resources import data_dir


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base: a misspelt key in a description is an error."""


class CorpusFile(_Description, frozen=True):
    """One file as its publisher serves it.

    Attributes:
        name: file name.
        url: address.
        bytes: size, where known.
        md5: hex digest, where known.
        sha256: hex digest, where known.
        verified: whether the facts were checked against the file itself.
        seen_in: for each fact, how many independent public files state it.
    """

    name: str
    url: str
    verified: bool
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    seen_in: dict[str, int] = {}


class CorpusSplit(_Description, frozen=True):
    """A named part of a corpus that a source spec can ask for (``KIND:NAME``).

    Attributes:
        kind: kind of source that reads it.
        name: its name.
        files: names of the files it needs.
        split: the split to read; None for all.
        images: how many it has, where known.
        captions: how many it has, where known.
    """

    kind: str
    name: str
    files: tuple[str, ...]
    split: str | None = None
    images: int | None = None
    captions: int | None = None


class Corpus(_Description, frozen=True):
    """One published corpus."""

    name: str
    title: str
    homepage: str
    licence: str
    files: tuple[CorpusFile, ...]
    splits: tuple[CorpusSplit, ...]


def list_corpora(folder: Path | None = None) -> tuple[Corpus, ...]:
    """Read every description, sorted by file name.

    Args:
        folder: where they lie; default: the data files that come with mmindex.

    Raises:
        InternalError: a description is damaged, or a release needs a file that is not described.
    """
    paths = sorted((folder or data_dir() / "corpora").glob("*.toml"))
    return tuple(_load(path) for path in paths)


def _load(path: Path) -> Corpus:
    try:
        corpus = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Corpus)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InternalError(f"{path}: {error}") from error
    described = {file.name for file in corpus.files}
    for release in corpus.splits:
        if missing := set(release.files) - described:
            raise InternalError(f"{path}: release {release.name!r} needs {sorted(missing)}")
    return corpus


def explain_missing_release(kind: str, name: str) -> NoInputError:
    """The error for a release that is not on disk: where its files are to be had and to be put.

    Args:
        kind: kind of source.
        name: what was asked for.
    """
    pairs = [
        (corpus, release)
        for corpus in list_corpora()
        for release in corpus.splits
        if release.kind == kind
    ]
    for corpus, release in pairs:
        if release.name == name:
            urls = " and ".join(file.url for file in corpus.files if file.name in release.files)
            split = f"#{release.split}" if release.split else ""
            return NoInputError(
                f"{kind}:{name}: not on this machine",
                f"put {urls} into a folder DIR and use {kind}:DIR{split} (a path holds a /)",
            )
    known = ", ".join(release.name for _, release in pairs)
    return NoInputError(
        f"{kind}:{name}: no such folder" + (f", no such release (known: {known})" if known else ""),
        f"use {kind}:PATH with the path of a local copy",
    )
