"""Match the names in a caption list with file names.

Lists are copied between systems: names lose or gain a folder, slashes change, macOS decomposes
letters (https://unicode.org/reports/tr15/), and cameras write ``.JPG``. An exact match always has
priority; another spelling counts only if it matches a single file.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

_KEPT: Final = 2  # two candidates are already ambiguous


def normal_name(name: str) -> str:
    """Normalise a name: composed letters, forward slashes, the extension in lower case."""
    slashed = unicodedata.normalize("NFC", name).replace("\\", "/")
    while slashed.startswith("./"):
        slashed = slashed[2:]
    stem, extension = os.path.splitext(slashed)  # noqa: PTH122  # Path would drop "./"
    return stem + extension.lower()


def match_names(listed: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Return the listed name of each file without an exact match.

    Args:
        listed: the names in the list.
        files: relative paths; read once.

    Returns:
        listed names by file, without files that match exactly, and without names that match
        several files.
    """
    names = set(listed)
    same: defaultdict[str, list[str]] = defaultdict(list)  # normal name: listed names
    ending: defaultdict[str, list[str]] = defaultdict(list)  # last part: normal names
    for name in sorted(names):
        key = normal_name(name)
        if not same[key]:
            ending[key.rpartition("/")[2]].append(key)
        same[key].append(name)
    exact: set[str] = set()
    close: defaultdict[str, list[str]] = defaultdict(list)  # normal name: files
    for file in files:
        if file in names:
            exact.add(normal_name(file))
            continue
        key = normal_name(file)
        for found in ending.get(key.rpartition("/")[2], ()):
            alike = found == key or _ends_in(key, found) or _ends_in(found, key)
            if alike and (found == key or len(close[found]) < _KEPT):
                close[found].append(file)
    return _unambiguous(same, exact, close)


def _ends_in(longer: str, shorter: str) -> bool:
    return longer.endswith("/" + shorter)


def _unambiguous(
    same: dict[str, list[str]], exact: set[str], close: dict[str, list[str]]
) -> dict[str, str]:
    pairs: list[tuple[str, str]] = []
    for key, files in close.items():
        if key in exact or len(same[key]) > 1:
            continue
        alike = [file for file in files if normal_name(file) == key] or files
        if len(alike) == 1:
            pairs.append((alike[0], same[key][0]))
    claims = Counter(file for file, _ in pairs)
    # A file with the same normalised name has priority over one with only the same ending.
    spelt = {file for file, name in pairs if normal_name(file) == normal_name(name)}
    return {
        file: name
        for file, name in pairs
        if claims[file] == 1 or (file in spelt and normal_name(file) == normal_name(name))
    }
