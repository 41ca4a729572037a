"""Finished work of an interrupted run is not repeated (guarantee 9)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.fakestore import write_photos
from support.oracle import copy_store
from support.tally import Tally
from support.workloads import Bench

pytestmark = pytest.mark.timeout(600)
SHARDS, SHARD_ROWS = 20, 3


@pytest.mark.parametrize("batch", [SHARD_ROWS, 1], ids=["between shards", "inside a shard"])
def test_after_a_kill_at_most_one_shard_is_encoded_again(
    bench: Bench, batch: int, tally: Tally, full: bool
) -> None:
    folder = bench.folder / f"shards-{batch}"
    write_photos(folder / "photos", {f"{n:03}.jpg": n for n in range(SHARDS * SHARD_ROWS)})
    (folder / "config.toml").write_text(
        f'[[source]]\nspec = "folder:{folder}/photos"\n[encode]\nworkers = 0\n'
        f"batch_size = {batch}\nshard_rows = {SHARD_ROWS}\n[index]\nthreads = 1\n"
    )
    store = folder / "store"
    argv = ["build", "--store", str(store), "--config", str(folder / "config.toml")]
    for done in range(SHARDS) if full else (0, 1, 7, SHARDS - 1):
        copy_store(None, store)
        batches = done * (SHARD_ROWS // batch) + (batch == 1) * (SHARD_ROWS - 1)
        assert bench.zygote.run("dying_command", argv=argv, batches=batches).signal == 9
        bench.command(*argv)
        again = encoded(store) + batches * batch - SHARDS * SHARD_ROWS
        assert 0 <= again < SHARD_ROWS, f"killed after shard {done}: {again} encoded again"
        assert encoded(store) == (SHARDS - done) * SHARD_ROWS
        tally.add("interrupted encodings", tried=1, resumed=1, images_encoded_again=again)


def encoded(store: Path) -> int:
    """Return how many images the newest run reports as encoded."""
    newest = max((store / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    report = json.loads(newest.read_bytes())
    return int(report["reports"]["encode"]["encoded_images"])
