"""Published corpora: the descriptions in ``data/corpora/*.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from mmindex.core.errors import DataError, InternalError, MmindexError, NoInputError, os_errors
from mmindex.core.resources import data_dir, user_path
from mmindex.sources.expected import Expected


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base class: an unknown key in a description is an error."""


class CorpusFile(_Description, frozen=True):
    """A file of a corpus on the publisher's server.

    Attributes:
        name: file name.
        url: URL.
        bytes: size, if known.
        md5: hex digest, if known.
        sha256: hex digest, if known.
        verified: whether these values were compared with the file itself.
        seen_in: for each value, the number of independent public sources that state it.
        mirrors: other URLs of the same file, best first.
        by_hand: why only the user can download it, and how; None if mmindex can.
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
    """A named part of a corpus (``KIND:NAME`` in a source spec).

    Attributes:
        kind: the kind of source that reads it.
        name: the name.
        files: the names of its files.
        split: the split to read; None for all.
        images: the number of images, if known.
        captions: the number of captions, if known.
    """

    kind: str
    name: str
    files: tuple[str, ...]
    split: str | None = None
    images: int | None = None
    captions: int | None = None


class Corpus(_Description, frozen=True):
    """A published corpus; ``expected`` is the published recall of models on it."""

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
        folder: the folder; default: the data files of mmindex.

    Raises:
        InternalError: a description is damaged, or a release needs a file that is not described.
    """
    paths = sorted((folder or data_dir() / "corpora").glob("*.toml"))
    return tuple(_load(path, InternalError) for path in paths)


def known(own: str | None) -> tuple[Corpus, ...]:
    """Return all known corpora.

    Args:
        own: the user's description file, which replaces the one with the same name; or None.

    Raises:
        NoInputError: the file does not exist.
        DataError: the file is damaged.
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
    """Return the error for a name that is neither a path nor a release.

    Args:
        kind: the kind of source.
        name: the name.
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
