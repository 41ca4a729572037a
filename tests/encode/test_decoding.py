"""Decode workers: a bad image affects only its worker and itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from mmindex.core.records import Reason
from mmindex.core.shared import SharedRows
from mmindex.encode.decoding import (
    Decoded,
    DecodePool,
    Decoder,
    DecodeTask,
    Failure,
    worker_bytes,
)
from mmindex.media.images import ImageLimits
from mmindex.models.preprocess import spec_from_config, to_pixels
from support.decoders import Misbehaving, Reporting
from support.images import draw, png, write_pngs
from support.tables import image_key

LIMITS = ImageLimits(max_pixels=10_000_000, max_bytes=10_000_000, max_aspect=200.0)
SPEC = spec_from_config(16, {})
MEMORY = worker_bytes(LIMITS.max_pixels)


def misbehaving_pool(workers: int = 2, timeout_s: float = 30.0) -> DecodePool:
    return DecodePool(Misbehaving(), workers, timeout_s, MEMORY)


def decode_all(pool: DecodePool, uris: list[str], ahead: int = 8) -> list[Decoded]:
    tasks = [DecodeTask(str(number), uri) for number, uri in enumerate(uris)]
    with pool:
        results = list(pool.results(iter(tasks), ahead))
    assert [task for task, _ in results] == tasks
    return [decoded for _, decoded in results]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_loses_only_the_image_that_caused_it(workers: int) -> None:
    uris = ["ok", "ok", "exit", "ok", "segfault", "ok", "fail", "ok"]
    results = decode_all(misbehaving_pool(workers), uris)
    for number, (uri, decoded) in enumerate(zip(uris, results, strict=True)):
        if uri == "ok":
            assert isinstance(decoded, np.ndarray)
            assert decoded[0, 0, 0] == number
    assert results[2] == Failure(Reason.DECODER_DIED, "the decoder died (exit code 3)")
    assert results[4] == Failure(Reason.DECODER_DIED, "the decoder died (signal 11)")
    assert results[6] == Failure(Reason.CORRUPT, "as asked")


def test_a_hang_loses_only_the_image_that_caused_it() -> None:
    results = decode_all(misbehaving_pool(timeout_s=1.5), ["ok", "hang", "ok", "ok"])
    assert results[1] == Failure(Reason.DECODER_DIED, "took longer than 1.5 s")
    assert all(isinstance(results[place], np.ndarray) for place in (0, 2, 3))


def test_many_crashes_in_a_row_are_survived() -> None:
    results = decode_all(misbehaving_pool(), ["exit"] * 5 + ["ok"])
    assert all(isinstance(result, Failure) for result in results[:5])
    assert isinstance(results[5], np.ndarray)


def test_a_worker_that_wants_too_much_memory_loses_only_its_image() -> None:
    pool = DecodePool(Misbehaving(), 1, 60.0, memory_bytes=1 << 30)
    results = decode_all(pool, ["ok", "eat", "ok"])
    assert results[1] == Failure(Reason.DECODER_DIED, "out of memory")
    assert isinstance(results[2], np.ndarray)


def test_workers_have_limits_and_do_not_import_torch() -> None:
    (decoded,) = decode_all(DecodePool(Reporting(), 1, 60.0, MEMORY), ["ok"])
    assert isinstance(decoded, Failure)
    pid, loaded, soft, _ = decoded.detail.split()
    assert int(pid) != os.getpid()
    assert loaded == "[]"
    assert int(soft) == MEMORY


def test_no_more_than_the_look_ahead_is_requested() -> None:
    asked = 0

    def tasks() -> Iterator[DecodeTask]:
        nonlocal asked
        for number in range(50):
            asked += 1
            yield DecodeTask(str(number), "ok")

    with misbehaving_pool() as pool:
        for taken, _ in enumerate(pool.results(tasks(), ahead=5)):
            assert asked <= taken + 5


def test_workers_decode_like_this_process(tmp_path: Path) -> None:
    paths = write_pngs(tmp_path, 6)
    tasks = [DecodeTask(image_key(path.read_bytes()), str(path)) for path in paths]
    for workers in (0, 2):
        with DecodePool(Decoder(SPEC, LIMITS), workers, 30.0, MEMORY) as pool:
            results = [decoded for _, decoded in pool.results(iter(tasks), 4)]
        for number, decoded in enumerate(results):
            assert isinstance(decoded, np.ndarray)
            np.testing.assert_array_equal(decoded, to_pixels(draw(number), SPEC))


def test_pixels_in_shared_memory_are_valid_as_long_as_stated() -> None:
    shared = SharedRows.of(7, (4, 4, 3))
    uris = ["ok", "ok", "exit", "ok", "fail", *["ok"] * 20]
    tasks = [DecodeTask(str(number), uri) for number, uri in enumerate(uris)]
    held: list[tuple[DecodeTask, Decoded]] = []
    with DecodePool(Misbehaving(), 2, 30.0, MEMORY, shared) as pool:
        for task, decoded in pool.results(iter(tasks), ahead=4):
            held = [*held[-2:], (task, decoded)]  # this result, and two more
            for one, its in held:
                if one.uri == "ok":
                    assert isinstance(its, np.ndarray)
                    assert np.shares_memory(its, shared.view())
                    assert (its == int(one.key)).all()
                else:
                    assert isinstance(its, Failure)
    assert task.key == str(len(tasks) - 1)


def test_pixels_of_this_process_need_no_shared_memory() -> None:
    shared = SharedRows.of(1, (4, 4, 3))
    with DecodePool(Misbehaving(), 0, 30.0, MEMORY, shared) as pool:
        results = [
            decoded for _, decoded in pool.results([DecodeTask(key, "ok") for key in "12"], 1)
        ]
    assert [one[0, 0, 0] for one in results if isinstance(one, np.ndarray)] == [1, 2]


def test_other_bytes_than_were_crawled_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    decoder = Decoder(SPEC, LIMITS)
    decoded = decoder(DecodeTask(image_key(png(2)), str(path)))
    assert isinstance(decoded, Failure)
    assert decoded.reason is Reason.CHANGED
    gone = decoder(DecodeTask(image_key(png(2)), str(tmp_path / "gone.png")))
    assert isinstance(gone, Failure)
    assert gone.reason is Reason.MISSING


SCRIPT = """
import sys, time
from support.decoders import Misbehaving
from mmindex.encode.decoding import DecodePool, DecodeTask
with DecodePool(Misbehaving(), 2, 600.0, 4 << 30) as pool:
    tasks = (DecodeTask(str(n), "ok" if n < 2 else "hang") for n in range(10))
    for n, _ in enumerate(pool.results(tasks, 4)):
        if n == 1:
            print("ready", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_run(how: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
        parent.send_signal(how)
        parent.wait(30)
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
