"""Releases by name (``coco:val2017``): fetched once into the store, checked, then read in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmindex.core.config import FetchConfig
from mmindex.core.errors import NoInputError, UsageError
from mmindex.fetch.download import RemoteFile, download_files
from mmindex.sources.corpora import Corpus, CorpusFile, CorpusSplit, explain_missing_release, known
from mmindex.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Release:
    """A named part of a published corpus."""

    corpus: Corpus
    part: CorpusSplit

    @property
    def files(self) -> tuple[CorpusFile, ...]:
        """The files it needs, in the order in which the description names them."""
        by_name = {file.name: file for file in self.corpus.files}
        return tuple(by_name[name] for name in self.part.files)

    def folder(self, layout: Layout) -> Path:
        """Where its files lie."""
        return layout.downloads_dir / self.corpus.name


def find_release(kind: str, name: str, split: str | None, settings: FetchConfig) -> Release:
    """The release that ``KIND:NAME[#SPLIT]`` asks for.

    Raises:
        NoInputError: there is none of this name; the message names those that there are.
        UsageError: it has no such split.
        DataError: the user's own descriptions are damaged.
    """
    for corpus in known(settings.corpora):
        for part in corpus.splits:
            if (part.kind, part.name) == (kind, name):
                if split is not None and part.split not in (None, split):
                    raise UsageError(
                        f"{kind}:{name}#{split}: this release contains only the split "
                        f"{part.split!r}",
                        f"remove #{split}",
                    )
                return Release(corpus, part)
    raise explain_missing_release(kind, name, settings.corpora)


def fetch_release(release: Release, layout: Layout, settings: FetchConfig) -> Path:
    """Make sure that a release's files are there, whole and checked; returns their folder.

    Raises:
        NoInputError: its terms let nobody but the user fetch a file; says where to put it.
        MmindexError: as :func:`mmindex.fetch.download.download_files`.
    """
    folder = release.folder(layout)
    wanted = [file for file in release.files if not is_unpacked(folder, file)]
    if settings.base_url is None:  # a mirror named by the user is theirs to use
        for file in wanted:
            _refuse_restricted(release, file, folder)
    download_files(layout, folder, [_remote(file) for file in wanted], settings)
    return folder


def is_unpacked(folder: Path, file: CorpusFile) -> bool:
    """Whether the user put a folder in place of an archive that only a user may fetch."""
    return file.by_hand is not None and (folder / Path(file.name).stem).is_dir()


def _refuse_restricted(release: Release, file: CorpusFile, folder: Path) -> None:
    if file.by_hand is None or (folder / file.name).is_file():
        return
    raise NoInputError(
        f"{release.part.kind}:{release.part.name}: {file.name} cannot be downloaded automatically: "
        f"{file.by_hand}",
        f"put {file.name}, or its images in a folder {Path(file.name).stem}, into {folder}; "
        "or set your own mirror with `base_url`",
    )


def _remote(file: CorpusFile) -> RemoteFile:
    return RemoteFile(file.name, (file.url, *file.mirrors), file.bytes, file.sha256, file.md5)
