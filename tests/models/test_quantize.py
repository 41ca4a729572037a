"""8-bit linear layers: close to float32, independent of the batch, refused if slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmindex.core.errors import UsageError
from mmindex.models import quantize
from mmindex.models.devices import Placement, place
from mmindex.models.encoder import good_rows
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.preprocess import to_pixels
from mmindex.models.quantize import quantize_linears, require_int8
from mmindex.models.resolve import resolve_model
from support.images import draw
from support.models import save_tiny_model, tiny_config


def _refused() -> bool:
    try:
        require_int8()
    except UsageError:
        return True
    return False


needs_vnni = pytest.mark.skipif(_refused(), reason="this processor has no 8-bit instructions")


def _load(name: str, precision: str) -> OpenClipEncoder:
    encoder = load_encoder(resolve_model(name, None), Placement(("cpu",), precision))
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of a busy machine must not decide a test of results."""
    monkeypatch.setattr(quantize, "_cpu_seconds", lambda _: 0.0)


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model whose layers are large enough to be worth quantising."""
    config = tiny_config(
        vision_cfg={"width": 512, "head_width": 64, "layers": 1},
        text_cfg={"width": 512, "heads": 8, "layers": 1},
    )
    return save_tiny_model(tmp_path_factory.mktemp("wide"), config=config).name


@needs_vnni
@pytest.mark.usefixtures("untimed")
def test_vectors_stay_within_a_thousandth_of_float32(wide_model: str) -> None:
    exact, rounded = _load(wide_model, "fp32"), _load(wide_model, "int8")
    pixels = np.stack([to_pixels(draw(number), exact.preprocess) for number in range(16)])
    texts = ["the red dog", "a blue cat on the dog", "", "red " * 50]
    pairs = [
        (exact.encode_images(pixels), rounded.encode_images(pixels)),
        (exact.encode_texts(texts), rounded.encode_texts(texts)),
    ]
    for one, other in pairs:
        assert good_rows(other).all()
        assert np.einsum("ij,ij->i", one, other).min() >= 0.999
        assert not np.array_equal(one, other)
    assert rounded.info.fingerprint != exact.info.fingerprint


@needs_vnni
@pytest.mark.usefixtures("untimed")
def test_an_image_has_the_same_vector_in_any_batch() -> None:
    """Each row has its own scale, so a bright image in the batch does not reduce precision."""
    model = torch.nn.Sequential(torch.nn.Linear(512, 2048))
    assert quantize_linears(model) == 1
    rows = torch.randn(100, 512, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = model(torch.cat([rows, 1e4 * rows]))[:100]
        torch.testing.assert_close(together, model(rows), rtol=0, atol=0)
        torch.testing.assert_close(model(rows[:1]), together[:1], rtol=0, atol=0)


@needs_vnni
@pytest.mark.usefixtures("untimed")
def test_zeros_and_missing_biases_are_computed_right() -> None:
    layer = torch.nn.Linear(512, 2048, bias=False)
    model = torch.nn.Sequential(layer)
    quantize_linears(model)
    with torch.inference_mode():
        assert torch.equal(model(torch.zeros(2, 3, 512)), torch.zeros(2, 3, 2048))


# In its own process, because it reads ONEDNN_MAX_CPU_ISA. The reference is exact: integers below
# 2^53 in float64.
_ON_ONE_PROCESSOR = """
import torch
from mmindex.models import quantize
from mmindex.core.errors import UsageError

quantize._cpu_seconds = lambda _: 0.0  # a busy machine must not decide

def rounded(rows):
    scales = rows.abs().amax(dim=1, keepdim=True) / 127
    return (rows / scales).round().double(), scales.double()

with torch.inference_mode():
    torch.manual_seed(0)
    layer = torch.nn.Linear(512, 2048)
    model = torch.nn.Sequential(layer)
    rows = torch.randn(200, 512)
    weights, weight_scales = rounded(layer.weight)
    inputs, scales = rounded(rows)
    expected = inputs @ weights.T * scales * weight_scales.T + layer.bias.double()
    try:
        quantize.quantize_linears(model)
    except UsageError as error:
        print("refused:", error)
    else:
        error = (model(rows) - expected).norm() / expected.norm()
        print("error:", error.item())
"""


@pytest.mark.parametrize(
    ("cap", "flag", "accepted"),
    [
        ("ALL", "", True),
        ("AVX512_CORE_VNNI", "avx512_vnni", True),
        ("AVX2_VNNI", "avx_vnni", True),
        ("AVX512_CORE", "avx512bw", False),
        ("AVX2", "avx2", False),
    ],
)
@needs_vnni
def test_every_processor_computes_the_same_with_a_fast_kernel_or_is_refused(
    cap: str, flag: str, *, accepted: bool
) -> None:
    """oneDNN's reference loop takes a thousand times as long, and older kernels overflow."""
    if flag not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {flag}")
    done = subprocess.run(
        [sys.executable, "-c", _ON_ONE_PROCESSOR],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": cap, "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *log, outcome = done.stdout.splitlines()
    kernels = {
        line.split(",")[6]
        for line in log
        if line.startswith("onednn_verbose") and ",exec,cpu,matmul," in line and "wei:s8" in line
    }
    assert kernels
    assert not [name for name in kernels if name.startswith("ref")]
    if accepted:
        assert outcome.startswith("error: ")
        assert float(outcome.removeprefix("error: ")) < 1e-6
    else:
        assert "wrong sums" in outcome


@needs_vnni
def test_a_kernel_slower_than_float32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = torch.ops.onednn

    def slow(*values: Any) -> torch.Tensor:
        out: torch.Tensor = [fast.qlinear_pointwise(*values) for _ in range(100)][-1]
        return out

    kernels = SimpleNamespace(qlinear_prepack=fast.qlinear_prepack, qlinear_pointwise=slow)
    monkeypatch.setattr(quantize, "_operators", lambda: kernels)
    layer = torch.nn.Linear(512, 2048)
    threads = torch.get_num_threads()
    with pytest.raises(UsageError, match=r"slower than float32 .* 512 x 2048 take") as caught:
        quantize_linears(torch.nn.Sequential(layer))
    assert "`precision=fp32`" in caught.value.hint
    assert torch.get_num_threads() == threads


def test_small_layers_and_other_classes_are_left_alone() -> None:
    class Special(torch.nn.Linear):
        pass

    assert quantize_linears(torch.nn.Sequential(torch.nn.Linear(8, 8), Special(512, 512))) == 0


@pytest.mark.parametrize("flags", ["", "flags\t\t: fpu sse avx2\n", "Features\t: fp asimd i8mm\n"])
def test_a_processor_without_8_bit_products_is_refused(tmp_path: Path, flags: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{flags}")
    with pytest.raises(UsageError) as caught:
        require_int8(path)
    assert "`precision=" in caught.value.hint
    with pytest.raises(UsageError):
        require_int8(tmp_path / "missing")
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n")
    require_int8(path)


@needs_vnni
def test_int8_is_never_chosen_automatically() -> None:
    assert place("cpu", "auto").precision == "fp32"
    assert place("cpu", "int8").precision == "int8"
