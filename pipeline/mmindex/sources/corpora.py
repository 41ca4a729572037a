"""What is known of published corpora: the descriptions in ``data/corpora/*.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from mmindex.core.errors import DataError, InternalError, MmindexError, NoInputError, os_errors
from mmindex.core.resources import data_dir, user_path
from mmindex.sources.expected import Expected


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
        mirrors: other addresses of the same bytes, best first.
        by_hand: why the terms let nobody but the user fetch it, and how; None where they do.
    """

    name: str
    url: str
    verified: bool
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    seen_in: dict[str, int] = {}
    mirrors: tuple[str, ...] = ()
    by_hand: str | None = None


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
    """One published corpus; ``expected`` is the recall that models are known to reach on it."""

    name: str
    title: str
    homepage: str
    licence: str
    files: tuple[CorpusFile, ...]
    splits: tuple[CorpusSplit, ...]
    expected: tuple[Expected, ...] = ()


def list_corpora(folder: Path | None = None) -> tuple[Corpus, ...]:
    """Read every description, sorted by file name.

    Args:
        folder: where they lie; default: the data files that come with mmindex.

    Raises:
        InternalError: a description is damaged, or a release needs a file that is not described.
    """
    paths = sorted((folder or data_dir() / "corpora").glob("*.toml"))
    return tuple(_load(path, InternalError) for path in paths)


def known(own: str | None) -> tuple[Corpus, ...]:
    """Every corpus that sources can name.

    Args:
        own: a description of the user's own, which replaces the one of the same name; or None.

    Raises:
        NoInputError: it is not there.
        DataError: it is damaged.
    """
    corpora = {corpus.name: corpus for corpus in list_corpora()}
    if own is not None:
        corpus = _load(user_path(own), DataError)
        corpora[corpus.name] = corpus
    return tuple(corpora.values())


def _load(path: Path, failure: type[MmindexError]) -> Corpus:
    try:
        with os_errors(path):
            text = path.read_bytes().decode("utf-8")
        corpus = msgspec.convert(tomllib.loads(text), Corpus)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise failure(f"{path}: {error}") from error
    for name in (corpus.name, *(file.name for file in corpus.files)):
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise failure(f"{path}: {name!r} is not a file name")
    described = {file.name for file in corpus.files}
    for release in corpus.splits:
        if missing := set(release.files) - described:
            raise failure(f"{path}: release {release.name!r} needs {sorted(missing)}")
    return corpus


def explain_missing_release(kind: str, name: str, own: str | None = None) -> NoInputError:
    """The error for a name that is neither a path nor a release.

    Args:
        kind: kind of source.
        name: what was asked for.
        own: see :func:`known`.
    """
    names = ", ".join(
        release.name for corpus in known(own) for release in corpus.splits if release.kind == kind
    )
    return NoInputError(
        f"{kind}:{name}: no such folder"
        + (f", and no such release (known: {names})" if names else ""),
        f"use {kind}:PATH with the path of a local copy",
    )
