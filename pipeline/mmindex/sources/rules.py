"""Rules for skipping files in a folder: hidden files, caches of other programs, globs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from mmindex.core.errors import UsageError
from mmindex.core.records import Skip
from mmindex.media.kinds import VIDEO_EXTENSIONS, image_extensions

# Not case-sensitive. Synology, QNAP, Windows, digiKam, macOS archives.
_CACHES: Final = frozenset({
    "@eadir", "@__thumb", "#recycle", "@recycle", "$recycle.bin", "system volume information",
    "lost+found", "__macosx", "thumbnails.lrdata",
})  # fmt: skip
_SYSTEM_FILES: Final = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
# Lightroom's previews, and the derived files of Aperture, iPhoto and Photos.
_CACHE_SUFFIX: Final = ".lrdata"
_LIBRARIES: Final = (".aplibrary", ".photolibrary", ".photoslibrary", ".migratedphotolibrary")
_LIBRARY_CACHES: Final = frozenset({
    "thumbnails", "previews", "resources", "derivatives", "caches", "data", "data.noindex",
    "modified", "attachments", "private", "scopes", "database", "apdb", "aperture.aplib", "faces",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for the files and folders of a source.

    Attributes:
        all_files: read files with any extension.
        videos: also read videos.
        exclude: matches paths to skip, or None.
        include: matches the only paths to read, or None.
    """

    all_files: bool = False
    exclude: re.Pattern[str] | None = None
    include: re.Pattern[str] | None = None
    videos: bool = False

    @classmethod
    def of(
        cls,
        exclude: Iterable[str],
        include: Iterable[str],
        *,
        all_files: bool,
        videos: bool = False,
    ) -> Self:
        """Create rules from globs.

        Raises:
            UsageError: a glob is empty.
        """
        return cls(all_files, _compile(exclude), _compile(include), videos)

    def skip_folder(self, name: str) -> Skip | None:
        """Return why a folder is skipped, or None; ``name`` is its relative path."""
        parent, _, last = name.rpartition("/")
        low = last.lower()
        if low in _CACHES or low.endswith(_CACHE_SUFFIX):
            return Skip.CACHE
        if low in _LIBRARY_CACHES and parent.lower().endswith(_LIBRARIES):
            return Skip.CACHE
        if last.startswith(".") and last != "..":  # rejected when it is opened
            return Skip.HIDDEN
        return Skip.EXCLUDED if self.exclude is not None and self.exclude.match(name) else None

    def skip_file(self, name: str) -> Skip | None:
        """Return why a file is skipped, or None; see :meth:`skip_folder` for its folders."""
        last = name.rpartition("/")[2]
        if last.startswith(".") or last.lower() in _SYSTEM_FILES:
            return Skip.HIDDEN
        if self.exclude is not None and self.exclude.match(name):
            return Skip.EXCLUDED
        if not (self.all_files or self.is_video(last) or extension(last) in image_extensions()):
            return Skip.NOT_AN_IMAGE
        if self.include is not None and not any(map(self.include.match, _and_folders(name))):
            return Skip.EXCLUDED
        return None

    def is_video(self, name: str) -> bool:
        """Return whether a file is a video and videos are read."""
        return self.videos and extension(name) in VIDEO_EXTENSIONS

    def skip_path(self, name: str) -> Skip | None:
        """Return why a file or one of its folders is skipped, or None."""
        for folder in _and_folders(name)[1:]:
            if why := self.skip_folder(folder):
                return why
        return self.skip_file(name)


def extension(name: str) -> str:
    """Return the extension of a file name in lower case with its dot, or an empty string."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # names, not paths


def _and_folders(name: str) -> list[str]:
    """Yield a relative path and the paths of its folders, innermost first."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _compile(globs: Iterable[str]) -> re.Pattern[str] | None:
    patterns = [_translate(glob) for glob in globs]
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL) if patterns else None


def _translate(glob: str) -> str:
    """Convert a glob to a regular expression for whole relative paths.

    As in .gitignore: without a slash it is a name at any depth, otherwise a path from the root of
    the source; ``**`` crosses folders. Letter case does not matter.
    """
    text = glob.strip().strip("/")
    if not text:
        raise UsageError(f"{glob!r} is not a pattern", "such as '*.png' or 'Exports/**'")
    pieces = re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", text)
    meanings = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(meanings.get(piece) or re.escape(piece) for piece in pieces)
    anywhere = "" if "/" in text or glob.startswith("/") else "(?:.*/)?"
    return rf"(?:{anywhere}{body}\Z)"
