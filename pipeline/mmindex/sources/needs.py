"""Determine what a source needs before it can be read, without network or store access."""

from __future__ import annotations

from pathlib import Path

from mmindex.core.config import FetchConfig
from mmindex.core.errors import os_errors
from mmindex.fetch.partial import load_record
from mmindex.sources import registry
from mmindex.sources.base import Needs, Place, SourceSpec
from mmindex.sources.corpora import CorpusFile
from mmindex.sources.releases import Release, find_release, is_unpacked
from mmindex.store.layout import Layout


def needs_of(spec: SourceSpec, layout: Layout, settings: FetchConfig) -> Needs:
    """Return what a source needs.

    Raises:
        NoInputError: there is no such release.
        UsageError: it has no such split.
        DataError: the user's own descriptions of corpora are damaged.
    """
    kind = registry.find(spec.kind)
    if kind.needs is not None:
        return kind.needs(spec, layout)
    if kind.place is Place.RELEASE and spec.path is None:
        return _of_release(find_release(spec.kind, spec.where, spec.split, settings), layout)
    return Needs()


def _of_release(release: Release, layout: Layout) -> Needs:
    folder, part = release.folder(layout), release.part
    missing = [
        (file, max(0, (file.bytes or 0) - _size(folder / f"{file.name}.part")))
        for file in release.files
        if not is_unpacked(folder, file) and not _is_checked(folder / file.name, file)
    ]
    names = ", ".join(file.name for file, _ in missing)
    size = sum(left for _, left in missing)
    what = f"would download or verify {names} ({size:,} bytes)" if missing else ""
    return Needs(what, size, part.images or 0, part.captions or 0)


def _is_checked(path: Path, file: CorpusFile) -> bool:
    """Return whether a downloaded file has not changed since its checksum was verified."""
    record = load_record(path.with_name(f"{path.name}.json"))
    if record is None or not path.is_file():
        return False
    with os_errors(path):
        status = path.stat()
    same = (record.bytes, record.mtime_ns) == (status.st_size, status.st_mtime_ns)
    right = file.sha256 in (None, record.sha256) and file.md5 in (None, record.md5)
    return same and right


def _size(path: Path) -> int:
    with os_errors(path):
        return path.stat().st_size if path.is_file() else 0
