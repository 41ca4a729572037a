"""An image that hangs or kills its worker fails only its own request."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

import pytest

from mmindex.core.config import LimitsConfig
from mmindex.search.hits import IndexedImage
from mmindex.serve import images
from mmindex.serve.images import ImageWorkers
from mmindex.serve.problems import ImageError
from support.images import write_pngs
from support.stores import key_of


@pytest.mark.parametrize("work", [partial(time.sleep, 600), partial(os._exit, 9)])
def test_hanging_and_dying_are_survived(work, tmp_path: Path, monkeypatch) -> None:
    [path] = write_pngs(tmp_path, 1)
    image = IndexedImage("one", key_of(path.read_bytes()), str(path))

    async def run() -> bytes:
        workers = ImageWorkers(LimitsConfig())
        try:
            await workers.thumbnail(image)  # the workers have started
            monkeypatch.setattr(images, "_TIMEOUT_S", 2.0)
            with pytest.raises(ImageError, match="too much time or memory"):
                await workers._run(work)
            monkeypatch.undo()
            return await workers.thumbnail(image)
        finally:
            workers.close()

    assert asyncio.run(run()).startswith(b"\xff\xd8")


def test_images_must_meet_the_limits_of_their_store(tmp_path: Path) -> None:
    [path] = write_pngs(tmp_path, 1)
    image = IndexedImage("one", key_of(path.read_bytes()), str(path))

    async def run() -> None:
        workers = ImageWorkers(LimitsConfig(max_pixels=100))
        try:
            with pytest.raises(ImageError, match="pixel"):
                await workers.plain(image, "BMP")
        finally:
            workers.close()

    asyncio.run(run())
