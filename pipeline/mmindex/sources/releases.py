"""Named releases (``coco:val2017``): downloaded once into the store, and read in place."""

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
        """The files in the order of the description."""
        by_name = {file.name: file for file in self.corpus.files}
        return tuple(by_name[name] for name in self.part.files)

    def folder(self, layout: Layout) -> Path:
        """The folder of its files."""
        return layout.downloads_dir / self.corpus.name


def find_release(kind: str, name: str, split: str | None, settings: FetchConfig) -> Release:
    """Return the release for ``KIND:NAME[#SPLIT]``.

    Raises:
        NoInputError: there is no such release; the message lists the known ones.
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
    """Download and verify the files of a release as needed; return their folder.

    Raises:
        NoInputError: only the user may download a file; the message states where to put it.
        MmindexError: as :func:`mmindex.fetch.download.download_files`.
    """
    folder = release.folder(layout)
    wanted = [file for file in release.files if not is_unpacked(folder, file)]
    if settings.base_url is None:  # the user is responsible for a mirror that they name
        for file in wanted:
            _refuse_restricted(release, file, folder)
    download_files(layout, folder, [_remote(file) for file in wanted], settings)
    return folder


def is_unpacked(folder: Path, file: CorpusFile) -> bool:
    """Return whether there is an unpacked folder for an archive that only users may download."""
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
