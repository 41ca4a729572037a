"""Cache of thumbnails in a folder outside the store, with a size limit."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from mmindex.core.errors import os_errors

_NAME: Final = re.compile(r"[0-9a-f]{64}\.jpg")
_ASIDE: Final = re.compile(r"\.[0-9a-f]{32}")


class ThumbCache:
    """JPEGs by the key of their image; the least recently used are removed first.

    Args:
        folder: the folder; created if it does not exist.
        most_bytes: the size limit.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most = most_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        found = []
        with os_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in folder.glob("??/*"):
                if _NAME.fullmatch(path.name):
                    status = path.stat()
                    found.append((status.st_mtime_ns, path.stem, status.st_size))
                elif _ASIDE.fullmatch(path.name):  # incomplete files of a killed service
                    path.unlink(missing_ok=True)
        for _, key, size in sorted(found):
            self._sizes[key] = size
        self.bytes = sum(self._sizes.values())

    def get(self, key: str) -> bytes | None:
        """Return the thumbnail of an image, or None."""
        with self._lock:
            if key not in self._sizes:
                return None
            self._sizes.move_to_end(key)
        try:
            return self._path(key).read_bytes()
        except OSError:  # someone emptied the folder
            self._forget(key)
            return None

    def put(self, key: str, data: bytes) -> None:
        """Store a thumbnail; if writing fails, it is created again next time."""
        path = self._path(key)
        aside = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            aside.write_bytes(data)
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            return
        with self._lock:
            self.bytes += len(data) - self._sizes.pop(key, 0)
            self._sizes[key] = len(data)
            gone = []
            while self.bytes > self._most and self._sizes:
                old, size = self._sizes.popitem(last=False)
                self.bytes -= size
                gone.append(old)
        for old in gone:
            self._remove(old)

    def keys(self) -> list[str]:
        """Return the keys of the stored thumbnails."""
        with self._lock:
            return list(self._sizes)

    def drop(self, keys: Iterable[str]) -> None:
        """Remove the thumbnails of images that are not in a new version."""
        for key in keys:
            self._forget(key)
            self._remove(key)

    def _remove(self, key: str) -> None:
        with suppress(OSError):  # the folder became read-only, or was removed
            self._path(key).unlink(missing_ok=True)

    def _forget(self, key: str) -> None:
        with self._lock:
            self.bytes -= self._sizes.pop(key, 0)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.jpg"


def default_cache(store: Path) -> Path:
    """Return the default folder for the thumbnails of a store."""
    import platformdirs  # imported here, because it fails on unknown systems

    name = hashlib.sha256(os.fsencode(store.absolute())).hexdigest()[:16]
    return platformdirs.user_cache_path("mmindex") / "serve" / name
