"""The check of a GPU runs on a CPU in its place, and finds what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

import gpu_check
from benchkit import gpu_index, gpu_models
from benchkit.checks import Check, at_least, guarded
from benchkit.gpu_models import Case
from mmindex.index.gpu import GpuInfo
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import Pixels
from support.models import FakeEncoder

CASE = Case("cpu", images=4, batch=4, turns=1)
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_without_a_gpu_everything_runs_and_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py", "--device", "cpu", "--small", "--runs", "1",
         "--results", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert [check for check in found["checks"] if not check["holds"]] == []
    assert done.returncode == 0
    names = " ".join(check["check"] for check in found["checks"])
    for part in ("bf16", "two workers", "out of memory", "rates", "recall", "settings", "filter"):
        assert part in names
    assert json.loads((tmp_path / "gpu_check.json").read_text())["tables"]


def test_without_the_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if faiss.get_num_gpus():
        pytest.skip("this machine has a GPU")
    assert gpu_check.main(["--device", "cuda:0"]) == 2
    assert "sees no GPU" in capsys.readouterr().err


def test_a_check_that_does_not_hold_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--device", "cpu", "--small", "--results", str(tmp_path)]
    for holds, code in ((True, 0), (False, 1)):
        checks = [Check("a", True, "1", "1"), Check("b", holds, "0", "1")]
        monkeypatch.setattr(gpu_check, "run_parts", lambda *_, checks=checks: checks)
        assert gpu_check.main(arguments) == code
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert [check["holds"] for check in last["checks"]] == [True, holds]
    monkeypatch.setattr(gpu_check, "run_parts", lambda *_: [])
    assert gpu_check.main(arguments) == 1  # nothing was checked


def test_an_error_does_not_hold_and_hides_nothing() -> None:
    def measure() -> Any:
        yield at_least("first", 1.0, 0.5)
        raise RuntimeError("no kernel image is available\nfor execution")

    first, second = guarded("second", measure)
    assert (first.holds, second.holds) == (True, False)
    assert second.found == "RuntimeError: no kernel image is available"
    assert not at_least("NaN", float("nan"), 0.0).holds


def loads(monkeypatch: pytest.MonkeyPatch, make: Callable[[str, tuple[str, ...]], Any]) -> None:
    monkeypatch.setattr(gpu_models, "load", lambda _name, how, devices: make(how, devices))


def held(checks: Any) -> list[bool]:
    return [check.holds for check in checks]


def test_other_vectors_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    loads(monkeypatch, lambda _how, _devices: FakeEncoder())
    assert held(gpu_models.vectors("fake", CASE)) == [True, True]
    loads(monkeypatch, lambda how, _devices: FakeEncoder(seed=int(how != "fp32")))
    assert held(gpu_models.vectors("fake", CASE)) == [False, False]


class Swapped(FakeEncoder):
    """Two workers whose results are joined in the wrong order."""

    def encode_images(self, pixels: Pixels) -> Float32:
        return np.roll(FakeEncoder.encode_images(self, pixels), len(pixels) // 2, axis=0)


def test_results_of_workers_in_the_wrong_order_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    loads(monkeypatch, lambda _how, _devices: FakeEncoder())
    assert held(gpu_models.group("fake", CASE)) == [True, True, True]
    loads(monkeypatch, lambda _how, devices: (FakeEncoder, Swapped)[len(devices) - 1]())
    assert held(gpu_models.group("fake", CASE)) == [False, False, True]


@dataclass(slots=True)
class Model:
    """The network of :class:`Halving`."""

    encode_image: Callable[[Pixels], Float32] = field(
        default_factory=lambda: FakeEncoder().encode_images
    )


@dataclass(slots=True)
class Halving(FakeEncoder):
    """Halves batches if memory runs out, or leaves out what does not fit."""

    model: Model = field(default_factory=Model)
    leaves_out: bool = False
    _image_limit: int = sys.maxsize

    def encode_images(self, pixels: Pixels) -> Float32:
        import torch

        try:
            return self.model.encode_image(pixels)
        except torch.OutOfMemoryError:
            half = len(pixels) // 2
            if self.leaves_out:
                return np.repeat(self.encode_images(pixels[:half]), 2, axis=0)
            self._image_limit = half
            parts = self.encode_images(pixels[:half]), self.encode_images(pixels[half:])
            return np.concatenate(parts)


def test_batches_that_are_not_halved_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    loads(monkeypatch, lambda _how, _devices: Halving())
    assert held(gpu_models.exhaustion("fake", CASE)) == [True, True]
    loads(monkeypatch, lambda _how, _devices: Halving(leaves_out=True))
    assert held(gpu_models.exhaustion("fake", CASE)) == [False, False]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> gpu_index.Sample:
    return gpu_index.make_sample(tmp_path_factory.mktemp("sample"), 2_000, 32, 64)


def test_an_index_with_wrong_ids_is_found(sample: gpu_index.Sample) -> None:
    kernels = gpu_index.kernels_of("cpu")
    plan = gpu_index.plans_for(2_000, (32,))[0]
    assert held(gpu_index.form(plan, sample, kernels)[0]) == [True, True]

    def lost(chosen: Any, vectors: Any) -> Any:
        index = kernels.train(chosen, vectors)
        index.remove_ids(faiss.IDSelectorRange(0, 500))
        return index

    def shifted(index: Any, m: int, nprobe: int) -> Any:
        search = kernels.search(index, m, nprobe)
        return lambda queries, count: search(queries, count) + 1

    assert held(gpu_index.form(plan, sample, replace(kernels, train=lost))[0]) == [False, True]
    broken = replace(kernels, search=shifted)
    assert held(gpu_index.form(plan, sample, broken)[0]) == [True, False]


def test_a_table_of_limits_that_is_wrong_is_found() -> None:
    kernels = gpu_index.kernels_of("cpu")
    assert held(gpu_index.limits(kernels)) == [True, True]

    def fewer(index: Any, m: int, nprobe: int) -> Any:
        if m == 48:
            raise RuntimeError("Error in 'err == cudaSuccess'")
        return kernels.search(index, m, nprobe)

    def more(index: Any, _m: int, nprobe: int) -> Any:
        return lambda queries, count: gpu_index.find_candidates(index, queries, count, nprobe)

    first, second = gpu_index.limits(replace(kernels, search=fewer))
    assert (first.holds, second.holds) == (False, True)
    assert first.found.startswith("48 x 8 bits")
    assert held(gpu_index.limits(replace(kernels, search=more))) == [True, False]


def test_a_search_on_the_device_that_returns_other_hits_is_found(
    sample: gpu_index.Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = gpu_index.kernels_of("cpu")
    good = gpu_index.filters(tmp_path / "good", sample, kernels)
    assert held(good) == [True, True, True, True]

    class Wrong:
        def __init__(self, *_: object) -> None:
            pass

        def search(self, queries: Float32, count: int) -> tuple[None, Any]:
            return None, np.tile(np.arange(count), (len(queries), 1))

    monkeypatch.setattr("mmindex.search.searcher.to_gpu", Wrong)
    bad = gpu_index.filters(tmp_path / "bad", sample, replace(kernels, gpu=GpuInfo(1)))
    assert held(bad) == [True, False, True, True]
