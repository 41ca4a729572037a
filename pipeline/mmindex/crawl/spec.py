"""Source specs: ``KIND:WHERE[#SPLIT]``, and opening what they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.crawl.coco import coco_events
from mmindex.crawl.corpora import explain_missing_release
from mmindex.crawl.flickr30k import flickr30k_events
from mmindex.crawl.folder import folder_events, folder_name
from mmindex.crawl.karpathy import karpathy_events
from mmindex.crawl.scenes_source import parse_scenes, scenes_events
from mmindex.errors import InternalError, NoInputError, UsageError
from mmindex.records import SourceEvent
from mmindex.store.layout import Layout

KINDS: Final = ("coco", "coco-karpathy", "flickr30k", "folder", "scenes")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A parsed source spec.

    Attributes:
        kind: one of ``KINDS``.
        where: a path, the name of a release, or for scenes ``COUNT[@SEED]``.
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
        path = Path(self.where).expanduser()
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
    if not Path(rest).expanduser().exists():
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
    """

    layout: Layout
    max_bytes: int
    all_files: bool = False


def open_source(spec: SourceSpec, options: SourceOptions) -> Iterator[SourceEvent]:
    """Stream what a source holds, in an order that depends on its content alone.

    Raises:
        NoInputError: the source does not exist.
        DataError: its annotations are damaged.
    """
    match spec.kind:
        case "coco":
            return coco_events(_folder(spec), spec.split, options.max_bytes)
        case "coco-karpathy":
            return karpathy_events(_folder(spec), spec.split, options.max_bytes)
        case "flickr30k":
            return flickr30k_events(_folder(spec), spec.split, options.max_bytes)
        case "folder":
            return folder_events(
                _folder(spec), spec.split, options.max_bytes, all_files=options.all_files
            )
        case "scenes":
            return scenes_events(parse_scenes(spec.where), options.layout, options.max_bytes)
        case other:
            raise InternalError(f"no reader for source kind {other!r}")


def source_name(spec: SourceSpec) -> str:
    """What the ``source`` column says: the kind, with the folder's name or the scenes' seed.

    Raises:
        NoInputError: the source does not exist.
    """
    if spec.kind == "folder":
        return f"folder/{folder_name(_folder(spec))}"
    if spec.kind == "scenes":
        return f"scenes/{parse_scenes(spec.where).seed}"
    return spec.kind


def _folder(spec: SourceSpec) -> Path:
    path = spec.path
    if path is None:
        raise explain_missing_release(spec.kind, spec.where)
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise NoInputError(f"{path}: {what}", f"check the path in {str(spec)!r}")
    return path
