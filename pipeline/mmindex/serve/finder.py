"""Look up rows of the images table by id, for pages with many thumbnails.

A look-up reads a whole column (17 ms for 100,000 rows), so rows are cached, and concurrent threads
share one read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from mmindex.search.hits import IndexedImage, find_images
from mmindex.store.snapshot import Snapshot

_KEPT: Final = 20_000  # cached rows, about 300 bytes each


class Finder:
    """Finds the images of one version.

    Args:
        snapshot: the version.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._known: OrderedDict[str, IndexedImage | None] = OrderedDict()
        self._wanted: set[str] = set()
        self._lock = threading.Lock()  # protects the two above
        self._reading = threading.Lock()

    def get(self, image_id: str) -> IndexedImage | None:
        """Return the image with an id, or None."""
        return self.get_all([image_id])[0]

    def get_all(self, image_ids: Iterable[str]) -> list[IndexedImage | None]:
        """Return the images with these ids, in the same order, with a single read."""
        wanted = list(image_ids)
        found = self._kept(wanted)
        if len(found) < len(set(wanted)):
            with self._lock:
                self._wanted |= set(wanted) - found.keys()
            with self._reading:
                self._read()  # without those that another thread has found in the meantime
            found |= self._kept(wanted)
            if len(found) < len(set(wanted)):  # more than the cache keeps
                found |= dict.fromkeys(wanted) | find_images(
                    self._snapshot, "image_id", set(wanted)
                )
        return [found[image_id] for image_id in wanted]

    def _kept(self, wanted: Iterable[str]) -> dict[str, IndexedImage | None]:
        with self._lock:
            found = {one: self._known[one] for one in wanted if one in self._known}
            for one in found:
                self._known.move_to_end(one)
        return found

    def _read(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted - self._known.keys(), set()
        if not wanted:
            return
        found = find_images(self._snapshot, "image_id", wanted)
        with self._lock:
            self._known |= {one: found.get(one) for one in wanted}
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
