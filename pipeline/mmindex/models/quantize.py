"""``--precision int8``: linear layers of a model on a CPU in 8-bit integers.

Dynamic quantisation: weights are rounded once, with a scale per output; activations are rounded at
run time, with a scale per row (one token). Sums are exact 32-bit integers, and all other operations
are float32. torch has had this as ``torch.ao.quantization.quantize_dynamic``, which is deprecated
and rounds with one scale for a whole batch, so that the vector of an image depends on its batch;
here it does not.

Only layers that are plain ``nn.Linear`` change: in open_clip's transformers the feed-forward
layers, which are two thirds of all multiplications (attention has its projections in one
parameter); in timm's towers also the attention layers.

Equal inputs give equal integers and equal sums on every processor that is accepted, so they share
one fingerprint. The float32 work around the layers rounds differently: vectors of ViT-B-32 under
AVX-512 and under AVX2 have a cosine of at least 0.99998.

torchao 0.18 (``Int8DynamicActivationInt8WeightConfig``) computes the same, but is made for compiled
models: without a compiler at run time, ViT-B-32 is not faster than float32 (0.98 times); with
this module it is 1.5 times as fast (one core of a Xeon with AVX-512 VNNI and without AMX).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mmindex.core.errors import UsageError

if TYPE_CHECKING:
    import torch

_CPU_INFO = Path("/proc/cpuinfo")
# Without these instructions, oneDNN sums pairs of 8-bit products in 16 bits, which can overflow:
# https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_LEVELS = 127
# Activations are stored as unsigned numbers. For signed numbers, oneDNN has a fast kernel only with
# AMX; without AMX, its reference loop takes a thousand times as long.
_ZERO_POINT = 128
# Rounding is limited by memory: in parts that fit in the processor's cache, it takes a third of the
# time of a whole layer (3,200 tokens of 3,072 numbers: 12 ms instead of 39 ms).
_ROWS_AT_ONCE = 512
# In smaller layers, rounding takes more time than the multiplication saves.
_LEAST_WEIGHTS = 1 << 16
# Enough rows that reading the weights does not dominate, but few enough for milliseconds.
_PROBE_ROWS = 64
_PROBE_RUNS = 3


def require_int8(cpu_info: Path = _CPU_INFO) -> None:
    """Check that this processor supports int8; does not import torch.

    Raises:
        UsageError: it does not, or it is not an x86 processor under Linux.
    """
    text = cpu_info.read_text() if cpu_info.is_file() else ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    if not _VNNI & set(flags.split()):
        raise UsageError(
            "int8 needs an x86 processor with VNNI or AMX instructions, which this machine does "
            "not have",
            "use `precision=fp32` or bf16",
        )


def quantize_linears(model: torch.nn.Module) -> int:
    """Make a model's larger linear layers compute in 8 bits.

    Args:
        model: on the CPU, in float32, for inference; changed in place. The float32 weights stay:
            open_clip reads the dtype of layers, and attention pooling uses them.

    Returns:
        the number of changed layers.

    Raises:
        UsageError: this torch lacks the operators, or its kernel for the model's largest layer
            is slower than float32 or computes wrong sums.
    """
    import torch

    # Exact type, because a subclass may be used in other ways than by calling it.
    found = [
        layer
        for layer in model.modules()
        if type(layer) is torch.nn.Linear and layer.weight.numel() >= _LEAST_WEIGHTS
    ]
    with torch.inference_mode():
        made = [(layer, _Int8Linear.of(layer)) for layer in found]
        if made:
            _check_kernel(*max(made, key=lambda pair: pair[0].weight.numel()))
        for layer, rounded in made:
            layer.forward = rounded  # type: ignore[method-assign,assignment]
    return len(found)


def _check_kernel(layer: torch.nn.Linear, rounded: _Int8Linear) -> None:
    """Compare the kernel that oneDNN chooses for a layer with float32.

    It uses one thread, because on a busy machine, threads that wait for each other would distort
    the comparison.

    Raises:
        UsageError: the kernel computes wrong sums, or is slower than float32.
    """
    import torch

    outputs, inputs = layer.weight.shape
    shape = f"{inputs} x {outputs}"
    rows = torch.ones(_PROBE_ROWS, inputs)
    # The largest weights times the largest inputs: if sums can overflow, these do.
    largest = torch.full((outputs, inputs), _LEVELS, dtype=torch.int8)
    full = replace(
        rounded,
        packed=_operators().qlinear_prepack(largest, None),
        scales=torch.ones(outputs),
        bias=torch.zeros(outputs),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sums = full(rows)
        int8_s, float_s = (_cpu_seconds(partial(run, rows)) for run in (rounded, layer))
    finally:
        torch.set_num_threads(threads)
    if not torch.allclose(sums, torch.tensor(float(_LEVELS * inputs)), rtol=1e-5):
        raise UsageError(
            f"int8: the kernel for layers of {shape} computes wrong sums on this processor",
            "use `precision=fp32` or `precision=bf16`, or unset ONEDNN_MAX_CPU_ISA if it is set",
        )
    if int8_s > float_s:
        raise UsageError(
            f"int8 is slower than float32 on this processor: {_PROBE_ROWS} rows through a layer"
            f" of {shape} take {1e3 * int8_s:.1f} ms instead of {1e3 * float_s:.1f} ms",
            "use `precision=fp32` or `precision=bf16`",
        )


def _cpu_seconds(run: Callable[[], object]) -> float:
    """Return the lowest CPU time of this thread in a few runs, without other processes."""
    run()
    took = []
    for _ in range(_PROBE_RUNS):
        start = time.thread_time()
        run()
        took.append(time.thread_time() - start)
    return min(took)


@dataclass(frozen=True, slots=True)
class _Int8Linear:
    """The ``forward`` of a quantised layer.

    Attributes:
        packed: int8 weights in oneDNN's order.
        scales: float32 (outputs,), the divisors of the weights of each output.
        zeros: int32 (outputs,): rounding is symmetric.
        bias: float32 (outputs,), added last.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, layer: torch.nn.Linear) -> Self:
        import torch

        weight = layer.weight.detach()
        scales = _scales(weight)
        rounded = (weight / scales).round_().to(torch.int8)
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        return cls(_operators().qlinear_prepack(rounded, None), scales.flatten(), zeros, bias)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        import torch

        rows, scales = _rounded(values.reshape(-1, values.shape[-1]))
        weights = (self.packed, self.scales, self.zeros)
        # Input scale 1, because the scale of each row is applied here.
        out = _operators().qlinear_pointwise(
            rows, 1.0, _ZERO_POINT, *weights, None, 1.0, 0, torch.float32, "none", [], ""
        )
        torch.addcmul(self.bias, out, scales, out=out)
        whole: torch.Tensor = out.reshape(*values.shape[:-1], -1)
        return whole


def _operators() -> Any:
    import torch

    operators = torch.ops.onednn
    if not (hasattr(operators, "qlinear_prepack") and hasattr(operators, "qlinear_pointwise")):
        raise UsageError(
            f"int8: torch {torch.__version__} has no oneDNN linear layers",
            "use `precision=fp32` or bf16",
        )
    return operators


def _scales(rows: torch.Tensor) -> torch.Tensor:
    """Return the divisors of each row: float32 (n, 1); zeros stay zero."""
    return rows.abs().amax(dim=1, keepdim=True).div_(_LEVELS).clamp_min_(1e-30)


def _rounded(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round float32 (n, d) to uint8 (n, d) around the zero point, and return scales (n, 1)."""
    import torch

    rounded = torch.empty(values.shape, dtype=torch.int8)
    scales = torch.empty((len(values), 1))
    for start in range(0, len(values), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        scales[part] = _scales(values[part])
        rounded[part] = (values[part] / scales[part]).round_()
    # Flipping the sign bit adds 128; torch converts float32 to uint8 half as fast as to int8.
    return rounded.view(torch.uint8).bitwise_xor_(_ZERO_POINT), scales
