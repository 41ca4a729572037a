"""Source specs: ``KIND:WHERE[#SPLIT]``, and opening what they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mmindex.core.config import FetchConfig
from mmindex.core.errors import InternalError, NoInputError, UsageError
from mmindex.core.records import SourceEvent
from mmindex.core.resources import user_path
from mmindex.media.archive import id_part
from mmindex.sources.chinese import coco_cn_events, flickr8k_cn_events
from mmindex.sources.coco import coco_events
from mmindex.sources.flickr30k import flickr30k_events
from mmindex.sources.folder import folder_events, folder_name
from mmindex.sources.hf_parquet import parquet_events
from mmindex.sources.karpathy import karpathy_events
from mmindex.sources.patterns import find_files, pattern_name
from mmindex.sources.releases import fetch_release, find_release
from mmindex.sources.scenes import parse_scenes, scenes_events
from mmindex.sources.url_list import UrlOptions, url_list_events
from mmindex.sources.webdataset import webdataset_events
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.layout import Layout

KINDS: Final = (
    "coco",
    "coco-karpathy",
    "coco-cn",
    "flickr30k",
    "flickr8k-cn",
    "folder",
    "urls",
    "webdataset",
    "parquet",
    "scenes",
)
_SUFFIXES: Final = {"webdataset": ".tar", "parquet": ".parquet"}


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A parsed source spec.

    Attributes:
        kind: one of ``KINDS``.
        where: a path, a pattern of paths, the name of a release, or for scenes ``COUNT[@SEED]``.
        split: the part after ``#``, or None.
    """

    kind: str
    where: str
    split: str | None

    def __str__(self) -> str:
        return f"{self.kind}:{self.where}" + (f"#{self.split}" if self.split else "")

    @property
    def path(self) -> Path | None:
        """WHERE as an absolute path if it holds a separator or exists, else None."""
        path = user_path(self.where)
        return path.absolute() if "/" in self.where or path.exists() else None


def parse_spec(text: str) -> SourceSpec:
    """Take a source spec apart.

    A ``#`` that belongs to the name of an existing path starts no split.

    Raises:
        UsageError: no such kind, or nothing after it; the message names the kinds.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        raise UsageError(
            f"{text!r}: {kind!r} is not a source kind (kinds: {', '.join(KINDS)})",
            "a source is KIND:WHERE[#SPLIT], such as folder:~/photos or coco:/data/coco#val2017",
        )
    where, hash_, split = rest, "", ""
    if not user_path(rest).exists():
        head, hash_, tail = rest.rpartition("#")
        where, split = (head, tail) if hash_ else (rest, "")
    if not where or (hash_ and not split):
        raise UsageError(f"{text!r}: nothing {'after #' if where else 'after the colon'}")
    if kind == "scenes":
        parse_scenes(where)
        if split:
            raise UsageError(f"{text!r}: scenes have no splits", "leave out # and what follows")
    return SourceSpec(kind, where, split or None)


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What reading a source needs beside its spec.

    Attributes:
        layout: the store, whose downloads folder holds fetched and generated corpora.
        max_bytes: limit for one image's file.
        all_files: for ``folder:``, try every file by its content.
        fetch: how to behave on the network.
        max_throttled: for ``urls:``, the share of rows that may be left for a later run because
            their host asks to wait.
        forgotten: for ``urls:``, what must not be fetched, or not kept.
    """

    layout: Layout
    max_bytes: int
    all_files: bool = False
    fetch: FetchConfig = field(default_factory=FetchConfig)
    max_throttled: float = 0.01
    forgotten: Forgotten = NOTHING


def open_source(spec: SourceSpec, options: SourceOptions) -> Iterator[SourceEvent]:
    """Stream what a source holds, in an order that depends on its content alone.

    A release that is named is fetched first, and so are the images of a list of addresses.

    Raises:
        NoInputError: the source does not exist.
        DataError: its annotations are damaged.
        NetworkError, BusyError: what it needs cannot be fetched now.
    """
    split, limit = spec.split, options.max_bytes
    match spec.kind:
        case "urls":
            urls = UrlOptions(
                options.layout, options.fetch, limit, options.max_throttled, options.forgotten
            )
            return url_list_events(_file(spec), split, urls)
        case "webdataset":
            return webdataset_events(spec.where, split, limit)
        case "parquet":
            return parquet_events(spec.where, split, limit)
        case "folder":
            return folder_events(_folder(spec), split, limit, all_files=options.all_files)
        case "scenes":
            return scenes_events(parse_scenes(spec.where), options.layout, limit)
        case _:
            return _published_events(spec, options)


def _published_events(spec: SourceSpec, options: SourceOptions) -> Iterator[SourceEvent]:
    """A published corpus: a local copy, or a release that is fetched."""
    folder, split = spec.path, spec.split
    if folder is None:
        release = find_release(spec.kind, spec.where, split, options.fetch)
        folder = fetch_release(release, options.layout, options.fetch)
        split = split or release.part.split
    else:
        folder = _folder(spec)
    match spec.kind:
        case "coco":
            return coco_events(folder, split, options.max_bytes)
        case "coco-karpathy":
            return karpathy_events(folder, split, options.max_bytes)
        case "coco-cn":
            return coco_cn_events(folder, split, options.max_bytes)
        case "flickr8k-cn":
            return flickr8k_cn_events(folder, split, options.max_bytes)
        case "flickr30k":
            return flickr30k_events(folder, split, options.max_bytes)
        case other:
            raise InternalError(f"no reader for source kind {other!r}")


def source_name(spec: SourceSpec, fetch: FetchConfig | None = None) -> str:
    """What the ``source`` column says: the kind, with the name of what it reads.

    Args:
        spec: the source.
        fetch: knows the user's own releases.

    Raises:
        NoInputError: the source does not exist.
        UsageError: its pattern makes no sense, or the release has no such split.
    """
    match spec.kind:
        case "folder":
            return f"folder/{folder_name(_folder(spec))}"
        case "scenes":
            return f"scenes/{parse_scenes(spec.where).seed}"
        case "urls":
            return f"urls/{id_part(_file(spec).stem)}"
        case "webdataset" | "parquet":
            find_files(spec.where, _SUFFIXES[spec.kind])
            return f"{spec.kind}/{id_part(pattern_name(spec.where))}"
    if spec.path is not None:
        _folder(spec)
    else:
        find_release(spec.kind, spec.where, spec.split, fetch or FetchConfig())
    return spec.kind


def _file(spec: SourceSpec) -> Path:
    path = user_path(spec.where).absolute()
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise NoInputError(f"{path}: {what}", f"check the path in {str(spec)!r}")
    return path


def _folder(spec: SourceSpec) -> Path:
    path = user_path(spec.where).absolute()
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise NoInputError(f"{path}: {what}", f"check the path in {str(spec)!r}")
    return path
