"""Sources with a file pattern: ``shards/{00000..00041}.tar``, ``data/*.parquet``."""

from __future__ import annotations

import glob
import itertools
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.resources import user_path
from mmindex.media.archive import id_part
from mmindex.sources import registry
from mmindex.sources.base import SourceSpec

# The notation of webdataset for shard names: {00000..00041}.
_RANGE: Final = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MAX_FILES: Final = 1_000_000
_MAGIC: Final = re.compile(r"[*?\[{]")


def find_files(pattern: str, suffix: str) -> list[Path]:
    """Return the files that match a pattern, sorted by name; a folder matches all its files.

    Args:
        pattern: a path with ``*``, ``?``, ``[...]`` and numeric ranges in braces; or a folder.
        suffix: the suffix of the file names, such as ``.tar``.

        Raises:
        NoInputError: no file matches, or a file in a range is missing.
        UsageError: the ranges are too large, or the files belong to another kind of source.
    """
    found: set[Path] = set()
    for one in _expand(str(user_path(pattern).absolute())):
        if Path(one).is_dir():
            found |= {path for path in Path(one).iterdir() if path.name.endswith(suffix)}
            continue
        matches = [one] if Path(one).is_file() else glob.glob(one)  # noqa: PTH207  # an absolute pattern
        if not matches and one != pattern and _RANGE.search(pattern):
            raise NoInputError(f"{one}: no such file, but it is in the range of {pattern}")
        found |= {Path(match) for match in matches if Path(match).is_file()}
    if not found:
        raise NoInputError(f"{pattern}: no such file", f"expected files that end in {suffix}")
    if not any(path.name.endswith(suffix) for path in found):
        _refuse_other_kind(pattern, suffix, {path.suffix.lower() for path in found})
    return sorted(found)


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
    path = user_path(pattern).absolute()
    if path.is_dir():
        return path.name or "root"
    plain = [part for part in path.parts[:-1] if not _MAGIC.search(part)]
    return plain[-1].strip("/") or "root"


def pattern_folder(pattern: str) -> Path:
    """Return the folder that contains all files of a pattern."""
    path = user_path(pattern).absolute()
    if path.is_dir():
        return path
    return Path(*itertools.takewhile(lambda part: not _MAGIC.search(part), path.parts[:-1]))


def file_names(spec: SourceSpec, files: Sequence[Path]) -> dict[Path, str]:
    """Return the part of the ids for each file.

    It is the name of the folder and the stem of the file. If files in several folders would have
    the same one, or the source has its own name, it is the path relative to the folder of the
    pattern.
    """
    base = pattern_folder(spec.where)
    short = {path: f"{path.parent.name}/{path.stem}" for path in files}
    shared = Counter(short.values())
    names = {}
    for path, name in short.items():
        below = path.relative_to(base).with_suffix("") if path.is_relative_to(base) else path
        if spec.name is not None:
            names[path] = id_part(str(below))
        else:
            names[path] = id_part(name if shared[name] == 1 else f"{base.name}/{below}")
    return names


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
