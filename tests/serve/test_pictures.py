"""A picture that hangs or kills its worker costs its own request, and no other."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

import pytest

from mmindex.core.config import LimitsConfig
from mmindex.search.hits import Picture
from mmindex.serve import pictures
from mmindex.serve.pictures import PictureWorkers
from mmindex.serve.problems import PictureError
from support.pictures import write_pictures
from support.stores import key_of


@pytest.mark.parametrize("work", [partial(time.sleep, 600), partial(os._exit, 9)])
def test_hanging_and_dying_are_survived(work, tmp_path: Path, monkeypatch) -> None:
    [path] = write_pictures(tmp_path, 1)
    picture = Picture("one", key_of(path.read_bytes()), str(path))

    async def run() -> bytes:
        workers = PictureWorkers(LimitsConfig())
        try:
            await workers.thumbnail(picture)  # the workers are up
            monkeypatch.setattr(pictures, "_TIMEOUT_S", 2.0)
            with pytest.raises(PictureError, match="too much time or memory"):
                await workers._run(work)
            monkeypatch.undo()
            return await workers.thumbnail(picture)
        finally:
            workers.close()

    assert asyncio.run(run()).startswith(b"\xff\xd8")


def test_pictures_are_held_to_the_limits_of_their_store(tmp_path: Path) -> None:
    [path] = write_pictures(tmp_path, 1)
    picture = Picture("one", key_of(path.read_bytes()), str(path))

    async def run() -> None:
        workers = PictureWorkers(LimitsConfig(max_pixels=100))
        try:
            with pytest.raises(PictureError, match="pixel"):
                await workers.plain(picture, "BMP")
        finally:
            workers.close()

    asyncio.run(run())
