"""Several devices behave as one encoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from mmindex.core.errors import BusyError, InternalError
from mmindex.core.system import usable_cores
from mmindex.models.devices import DeviceGroup
from support.models import FakeEncoder, make_fake


@pytest.fixture
def group(fake_encoder: FakeEncoder) -> Iterator[DeviceGroup]:
    made = DeviceGroup(fake_encoder.info, fake_encoder.preprocess, make_fake, ("a", "b", "c"))
    yield made
    made.close()


def test_any_number_of_rows_is_returned_in_order(
    group: DeviceGroup, fake_encoder: FakeEncoder
) -> None:
    for count in (1, 2, 3, 7):
        pixels = np.arange(count * 192, dtype=np.uint64).astype(np.uint8).reshape(count, 8, 8, 3)
        texts = [f"text {number}" for number in range(count)]
        np.testing.assert_array_equal(
            group.encode_images(pixels), fake_encoder.encode_images(pixels)
        )
        np.testing.assert_array_equal(group.encode_texts(texts), fake_encoder.encode_texts(texts))
    assert group.encode_texts([]).shape == (0, fake_encoder.dim)


def test_large_batches_are_split_and_started_before_they_are_collected(
    fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmindex.models.devices._HALF_BYTES", 3 * 192)
    group = DeviceGroup(fake_encoder.info, fake_encoder.preprocess, make_fake, ("a", "b"))
    batches = [
        np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        for count in (25, 1, 12)
    ]
    try:
        waits = [group.start_images(batch.copy()) for batch in batches]
        for batch, wait in reversed(list(zip(batches, waits, strict=True))):
            np.testing.assert_array_equal(wait(), fake_encoder.encode_images(batch))
    finally:
        group.close()


def test_an_error_of_a_device_is_raised_when_the_vectors_are_collected(
    fake_encoder: FakeEncoder,
) -> None:
    group = DeviceGroup(fake_encoder.info, fake_encoder.preprocess, make_fake, ("a", "small"))
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    try:
        wait = group.start_images(pixels)
        with pytest.raises(BusyError, match="not enough memory"):
            wait()
        assert group.encode_texts(["one", "two"]).shape == (2, fake_encoder.dim)
    finally:
        group.close()


def test_cut_texts_of_all_devices_are_counted(group: DeviceGroup) -> None:
    long = "word " * (FakeEncoder().context + 1)
    group.encode_texts(["one", long, long, "two", long])
    assert group.cut_texts == 3
    group.encode_texts(["one", long])
    assert group.cut_texts == 4


def test_an_unusable_device_is_a_one_line_error(fake_encoder: FakeEncoder) -> None:
    group = DeviceGroup(fake_encoder.info, fake_encoder.preprocess, make_fake, ("a", "broken"))
    try:
        with pytest.raises(InternalError) as caught:
            group.encode_texts(["one", "two"])
        assert "`device=" in caught.value.hint
    finally:
        group.close()
        group.close()


SCRIPT = """
import time
from support.models import FakeEncoder, make_fake
from mmindex.models.devices import DeviceGroup
if __name__ == "__main__":
    fake = FakeEncoder()
    group = DeviceGroup(fake.info, fake.preprocess, make_fake, ("a", "b"))
    group.encode_texts(["one", "two"])
    print("ready", flush=True)
    time.sleep(600)
"""


def test_no_device_worker_outlives_a_killed_run() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
