"""Sources named by a pattern of files: ``shards/{00000..00041}.tar``, ``data/*.parquet``."""

from __future__ import annotations

import glob
import itertools
import re
from pathlib import Path
from typing import Final

from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.resources import user_path

# As webdataset writes shard names: {00000..00041}.
_RANGE: Final = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MAX_FILES: Final = 1_000_000


def find_files(pattern: str, suffix: str) -> list[Path]:
    """The files that a pattern names, sorted by name; a folder stands for all its files.

    Args:
        pattern: a path with ``*``, ``?``, ``[...]`` and numeric ranges in braces; or a folder.
        suffix: what the files' names end in, such as ``.tar``.

    Raises:
        NoInputError: there is none; or one that a range names is missing.
        UsageError: the ranges name too many.
    """
    found: set[Path] = set()
    for one in _expand(str(user_path(pattern).absolute())):
        if Path(one).is_dir():
            found |= {path for path in Path(one).iterdir() if path.name.endswith(suffix)}
            continue
        matches = [one] if Path(one).is_file() else glob.glob(one)  # noqa: PTH207  # an absolute pattern
        if not matches and one != pattern and _RANGE.search(pattern):
            raise NoInputError(f"{one}: no such file, but {pattern} names it")
        found |= {Path(match) for match in matches if Path(match).is_file()}
    if not found:
        raise NoInputError(f"{pattern}: no such file", f"expected files that end in {suffix}")
    return sorted(found)


def pattern_name(pattern: str) -> str:
    """What a pattern's files are called together: their folder's name."""
    path = user_path(pattern).absolute()
    if path.is_dir():
        return path.name or "root"
    plain = [part for part in path.parts[:-1] if not re.search(r"[*?\[{]", part)]
    return plain[-1].strip("/") or "root"


def _expand(pattern: str) -> list[str]:
    ranges = list(_RANGE.finditer(pattern))
    choices = []
    total = 1
    for match in ranges:
        first, last = int(match[1]), int(match[2])
        total *= max(0, last - first + 1)
        if not 0 < total <= _MAX_FILES:
            raise UsageError(f"{pattern}: {match[0]} is no range, or too long a one")
        choices.append([f"{n:0{len(match[1])}d}" for n in range(first, last + 1)])
    texts = _RANGE.sub("\0", pattern).split("\0")
    return [
        "".join(itertools.chain.from_iterable(itertools.zip_longest(texts, chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]
