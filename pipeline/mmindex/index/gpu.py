"""GPU limits, and moving indexes between CPU and GPU.

The limits are tested. The functions that use a device (``to_gpu``, ``to_gpu_for_build``, ``to_cpu``
and the memory part of ``detect``) have not been run on a GPU. They use only calls that the FAISS
wiki documents (https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmindex.core.errors import UsageError

MAX_K = 2048  # the limit of the classic kernels for k and for nprobe
# 8-bit codes of these lengths have kernels (faiss/gpu/impl/IVFPQ.cu).
LEGAL_M = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
LEGAL_SUB_DIMS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)
# Each sub-quantizer needs 256 float32 entries, so 48 of them fill 48 KiB of shared memory.
FLOAT16_TABLES_FROM_M = 56
_USABLE_SHARE = 0.7  # the rest: faiss's own 1.5-GiB scratch space, queries, and other users


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """The GPUs that faiss sees.

    Attributes:
        count: the number of GPUs.
        memory_bytes: free memory of the smallest one; None if not requested.
    """

    count: int
    memory_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        """The bytes that an index can use on one GPU."""
        return int((self.memory_bytes or 0) * _USABLE_SHARE)


def detect(mode: str, *, memory: bool = False) -> GpuInfo | None:
    """Return the GPUs to use for ``index.gpu``: ``auto``, ``never`` or ``always``.

    Args:
        mode: the setting.
        memory: whether to determine the free memory, which needs torch.

    Raises:
        UsageError: ``always``, and faiss sees no GPU.
    """
    if mode == "never":
        return None
    import faiss  # imported here, because the limits in this module do not need it

    count = faiss.get_num_gpus()
    if count == 0:
        if mode == "always":
            raise UsageError(
                "index.gpu is always, but faiss sees no GPU",
                "run `mmindex doctor`, or set index.gpu to auto",
            )
        return None
    if not memory:
        return GpuInfo(count)
    import torch

    return GpuInfo(count, min(torch.cuda.mem_get_info(device)[0] for device in range(count)))


def gpu_sub_quantizers(code_dim: int, most: int) -> list[int]:
    """Return the numbers of 8-bit sub-quantizers that a GPU supports, the most precise first."""
    return [
        m
        for m in reversed(LEGAL_M)
        if m <= most and code_dim % m == 0 and code_dim // m in LEGAL_SUB_DIMS
    ]


def check_gpu_legal(m: int, bits: int, code_dim: int, nprobe: int) -> None:
    """Raise an error for settings that the GPU kernels would reject during a run.

    Args:
        m: the number of sub-quantizers.
        bits: the bits per sub-quantizer.
        code_dim: the total number of their dimensions.
        nprobe: the number of lists to probe.

        Raises:
        UsageError: a limit is exceeded; the message names it.
    """
    hint = "set index.gpu to never, or choose another `index`"
    if bits != 8:
        raise UsageError(f"a GPU supports only 8-bit product quantizers, not {bits}-bit", hint)
    if m not in LEGAL_M:
        legal = ", ".join(map(str, LEGAL_M))
        raise UsageError(f"a GPU does not support {m} sub-quantizers, only {legal}", hint)
    if code_dim % m or code_dim // m not in LEGAL_SUB_DIMS:
        legal = ", ".join(map(str, LEGAL_SUB_DIMS))
        raise UsageError(
            f"a GPU does not support {m} sub-quantizers over {code_dim} dimensions:"
            f" each must have {legal} of them",
            hint,
        )
    if nprobe > MAX_K:
        raise UsageError(f"a GPU probes at most {MAX_K} lists, not {nprobe}", hint)


def fits_search(count: int, nprobe: int) -> bool:
    """Return whether the GPU kernels support ``count`` candidates with ``nprobe`` lists."""
    return count <= MAX_K and nprobe <= MAX_K


def to_gpu(index: Any, m: int, nprobe: int) -> Any:
    """Clone a CPU index to all GPUs for searching (not run yet, see the module).

    Each of several GPUs has a copy and processes a share of the queries. A rotation stays on the
    CPU.
    """
    import faiss

    options = faiss.GpuMultipleClonerOptions()
    options.shard = False
    # Of an IVF-PQ index this turns its look-up tables into float16.
    options.useFloat16 = m >= FLOAT16_TABLES_FROM_M
    options.indicesOptions = faiss.INDICES_64_BIT
    clone = faiss.index_cpu_to_all_gpus(index, co=options)
    # Copies on several GPUs do not accept search parameters.
    faiss.GpuParameterSpace().set_index_parameter(clone, "nprobe", nprobe)
    return clone


def to_gpu_for_build(index: Any, m: int) -> Any:
    """Clone an untrained or trained CPU index to the first GPU, for training and adding.

    Not run yet, see the module.
    """
    import faiss

    options = faiss.GpuClonerOptions()
    # Of an IVF-PQ index this turns its look-up tables into float16.
    options.useFloat16 = m >= FLOAT16_TABLES_FROM_M
    options.indicesOptions = faiss.INDICES_64_BIT
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)


def to_cpu(index: Any) -> Any:
    """Return the index for the CPU, which is stored (not run yet, see the module)."""
    import faiss

    return faiss.index_gpu_to_cpu(index)
