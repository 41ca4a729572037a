"""Sources with a file pattern: ``shards/{00000..00041}.tar``, ``data/*.parquet``."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import Final

from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.resources import user_path
from mmindex.media import buckets
from mmindex.media.archive import id_part
from mmindex.media.files import is_remote
from mmindex.sources import registry
from mmindex.sources.base import SourceSpec

# The notation of webdataset for shard names: {00000..00041}.
_RANGE: Final = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MAX_FILES: Final = 1_000_000
_MAGIC: Final = re.compile(r"[*?\[{]")


def find_files(pattern: str, suffix: str) -> list[str]:
    """Return the locations of the files that match a pattern, sorted by name.

    A folder matches all its files.

    Args:
        pattern: a path, or the location of objects, with ``*``, ``?``, ``[...]`` and numeric ranges
            in braces; or a folder.
        suffix: the suffix of the file names, such as ``.tar``.

    Raises:
        NoInputError: no file matches, or a file in a range is missing.
        UsageError: the ranges are too large, or the files belong to another kind of source.
        MmindexError: an object store cannot be reached or refuses access.
    """
    absolute = absolute_place(pattern)
    matches = _Objects(absolute).matches if is_remote(absolute) else _local_matches
    found: set[str] = set()
    for one in _expand(absolute):
        there = matches(one, suffix)
        if not there and one != absolute and not Path(one).is_dir():
            raise NoInputError(f"{one}: no such file, but it is in the range of {pattern}")
        found |= there
    if not found:
        raise NoInputError(f"{pattern}: no such file", f"expected files that end in {suffix}")
    if not any(path.endswith(suffix) for path in found):
        _refuse_other_kind(pattern, suffix, {PurePath(path).suffix.lower() for path in found})
    return sorted(found)


def absolute_place(text: str) -> str:
    """Return the absolute path of a place, or the location of an object as it is."""
    return text if is_remote(text) else str(user_path(text).absolute())


def _local_matches(one: str, suffix: str) -> set[str]:
    if Path(one).is_dir():
        return {str(path) for path in Path(one).iterdir() if path.name.endswith(suffix)}
    matches = [one] if Path(one).is_file() else glob.glob(one)  # noqa: PTH207  # an absolute pattern
    return {str(Path(match)) for match in matches if Path(match).is_file()}


class _Objects:
    """The objects below the fixed part of a pattern, listed once."""

    def __init__(self, pattern: str) -> None:
        fixed = _fixed(pattern)
        bucket_only = "/" not in fixed.partition("://")[2]
        folder = fixed if bucket_only else fixed.rpartition("/")[0]
        # One level is listed, if only the last part of the pattern varies.
        deep = "/" in pattern[len(folder) + 1 :]
        found = buckets.walk(folder) if deep else buckets.children(folder)
        self._listed = {one.location: one for one in found}

    def matches(self, one: str, suffix: str) -> set[str]:
        """Return the objects that match a pattern without ranges."""
        matches = {one} & self._listed.keys()
        if not matches and _MAGIC.search(one):
            matches = {location for location in self._listed if _same_parts(location, one)}
        if not matches:
            folder = one.rstrip("/")
            found = [] if _MAGIC.search(one) else buckets.children(folder)
            self._listed |= {each.location: each for each in found}
            matches = {each.location for each in found if each.location.endswith(suffix)}
        for location in matches:
            buckets.learn(self._listed[location])
        return matches


def _same_parts(location: str, pattern: str) -> bool:
    """Match as :mod:`glob`: ``*`` does not cross folders."""
    names, globs = location.split("/"), pattern.split("/")
    return len(names) == len(globs) and all(map(fnmatch.fnmatchcase, names, globs))


def _fixed(pattern: str) -> str:
    """Return the part of a pattern before the first character with a meaning."""
    found = _MAGIC.search(pattern)
    return pattern if found is None else pattern[: found.start()]


def _refuse_other_kind(pattern: str, suffix: str, found: Collection[str]) -> None:
    """Raise an error for files of another kind of source; unknown names can belong to this kind."""
    for kind in registry.listed():
        if kind.suffix and kind.suffix != suffix and kind.suffix in found:
            raise UsageError(
                f"{pattern}: expected files that end in {suffix}",
                f"did you mean {kind.name}:{pattern}?",
            )


def pattern_name(pattern: str) -> str:
    """Return the common name of the files of a pattern: the name of their folder."""
    place = absolute_place(pattern)
    if _is_folder(place):
        return place_name(place)
    plain = [part for part in place.split("/")[:-1] if not _MAGIC.search(part)]
    return plain[-1] or "root"


def place_name(place: str) -> str:
    """Return the name of a folder; that of the bucket if it is the top of one."""
    return place.rstrip("/").rpartition("/")[2] or "root"


def pattern_folder(pattern: str) -> str:
    """Return the folder that contains all files of a pattern."""
    place = absolute_place(pattern)
    if _is_folder(place):
        return place.rstrip("/") or "/"
    parts = place.split("/")[:-1]
    return "/".join(itertools.takewhile(lambda part: not _MAGIC.search(part), parts)) or "/"


def _is_folder(place: str) -> bool:
    """Return whether a place is a folder; that of objects is told by its name."""
    if not is_remote(place):
        return Path(place).is_dir()
    return not _MAGIC.search(place) and "." not in place.rpartition("/")[2]


def file_names(spec: SourceSpec, files: Sequence[str]) -> dict[str, str]:
    """Return the part of the ids for each file.

    It is the name of the folder and the stem of the file. If files in several folders would have
    the same one, or the source has its own name, it is the path relative to the folder of the
    pattern.
    """
    base = pattern_folder(spec.where)
    start = f"{base.rstrip('/')}/"
    short = {path: "/".join(_stem(path).rsplit("/", 2)[-2:]) for path in files}
    shared = Counter(short.values())
    names = {}
    for path, name in short.items():
        below = _stem(path).removeprefix(start)
        if spec.name is not None:
            names[path] = id_part(below)
        else:
            names[path] = id_part(name if shared[name] == 1 else f"{place_name(base)}/{below}")
    return names


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]  # noqa: PTH122  # Path joins the slashes of s3://


def _expand(pattern: str) -> list[str]:
    ranges = list(_RANGE.finditer(pattern))
    choices = []
    total = 1
    for match in ranges:
        first, last = int(match[1]), int(match[2])
        total *= max(0, last - first + 1)
        if not 0 < total <= _MAX_FILES:
            raise UsageError(f"{pattern}: {match[0]} is not a range, or is too long")
        choices.append([f"{n:0{len(match[1])}d}" for n in range(first, last + 1)])
    texts = _RANGE.sub("\0", pattern).split("\0")
    return [
        "".join(itertools.chain.from_iterable(itertools.zip_longest(texts, chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]
