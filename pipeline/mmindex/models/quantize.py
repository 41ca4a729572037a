"""``--precision int8``: linear layers of a model on a CPU in 8-bit integers.

Dynamic quantisation: weights are rounded once, each output with a scale of its own, activations as
they come, each row (one token) with a scale of its own; sums are exact 32-bit integers. What
follows is float32 again. torch has had this as ``torch.ao.quantization.quantize_dynamic``, which is
deprecated and rounds with one scale for a whole batch, so that a picture's vector depends on its
neighbours; here it does not.

Only layers that are plain ``nn.Linear`` change: in open_clip's own transformers the feed-forward
halves of the blocks, two thirds of all multiplications (their attention keeps its projections in
one parameter); in timm's towers the attention's too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mmindex.core.errors import UsageError

if TYPE_CHECKING:
    import torch

_CPU_INFO = Path("/proc/cpuinfo")
# Without these instructions oneDNN emulates 8-bit products, in 16 bits that may overflow.
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_LEVELS = 127
# Rounding is bound by memory: a part that stays in the processor's cache takes a fifth of the time
# that whole layers take (3,200 tokens of 3,072 numbers: 12 ms in place of 39).
_ROWS_AT_ONCE = 512
# Of smaller layers the rounding costs more than the multiplication saves.
_LEAST_WEIGHTS = 1 << 16


def require_int8(cpu_info: Path = _CPU_INFO) -> None:
    """Check that this processor multiplies 8-bit integers; does not import torch.

    Raises:
        UsageError: it does not, or it is no x86 processor under Linux.
    """
    text = cpu_info.read_text() if cpu_info.is_file() else ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    if not _VNNI & set(flags.split()):
        raise UsageError(
            "int8 needs an x86 processor with VNNI or AMX instructions, which this one is not",
            "use `precision=fp32` or bf16",
        )


def quantize_linears(model: torch.nn.Module) -> int:
    """Make a model's larger linear layers compute in 8 bits.

    Args:
        model: on the CPU, in float32, for inference; changed in place. The float32 weights stay:
            open_clip asks layers for their dtype, and attention pooling reads them.

    Returns:
        how many layers were changed.

    Raises:
        UsageError: this torch lacks the operators.
    """
    import torch

    # Exact type: a subclass may be read by other means than by calling it.
    found = [
        layer
        for layer in model.modules()
        if type(layer) is torch.nn.Linear and layer.weight.numel() >= _LEAST_WEIGHTS
    ]
    with torch.inference_mode():
        for layer in found:
            layer.forward = _Int8Linear.of(layer)  # type: ignore[method-assign,assignment]
    return len(found)


@dataclass(frozen=True, slots=True)
class _Int8Linear:
    """What such a layer does in place of its own ``forward``.

    Attributes:
        packed: int8 weights in oneDNN's order.
        scales: float32 (outputs,), what each output's weights were divided by.
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
        # Input scale 1 and zero point 0: each row has a scale of its own, applied here.
        out = _operators().qlinear_pointwise(
            rows, 1.0, 0, *weights, None, 1.0, 0, torch.float32, "none", [], ""
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
    """What a row's numbers are divided by: float32 (n, 1); zeros stay zero."""
    return rows.abs().amax(dim=1, keepdim=True).div_(_LEVELS).clamp_min_(1e-30)


def _rounded(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (n, d) as int8 (n, d) and scales (n, 1)."""
    import torch

    rounded = torch.empty(values.shape, dtype=torch.int8)
    scales = torch.empty((len(values), 1))
    for start in range(0, len(values), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        scales[part] = _scales(values[part])
        rounded[part] = (values[part] / scales[part]).round_()
    return rounded, scales
