"""A faulty writer that the tests must detect: in place, without fsync, ignoring errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from mmindex.store.publish import StagedFile


@contextmanager
def naive_writer(pause_s: float = 0.0) -> Iterator[None]:
    """Within the block, overwrite files of a store in place.

    ``pause_s``: how long a file stays half-written, as on a slow disk.
    """

    def publish(staged: StagedFile, target: Path) -> None:
        staged.flush()
        data = staged._path.read_bytes()
        half = len(data) // 2
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb", buffering=0) as file:
                file.write(data[:half])
                time.sleep(pause_s)
                file.write(data[half:])

    with mock.patch.object(StagedFile, "publish", publish):
        yield
