"""The devices that a model runs on, and its precision."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from mmindex.core.errors import InternalError, UsageError
from mmindex.core.system import die_with_parent
from mmindex.core.workers import WORKERS
from mmindex.models.encoder import Encoder, Float32
from mmindex.models.preprocess import Pixels, PreprocessSpec
from mmindex.models.quantize import require_int8
from mmindex.store.manifest import EncoderInfo

if TYPE_CHECKING:
    from collections.abc import Callable

# Without one of these, no CUDA or ROCm runtime works, and torch need not be imported (it takes
# seconds).
_GPU_NODES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg"), Path("/dev/kfd"))
T = TypeVar("T", Pixels, list[str])
R = TypeVar("R")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices and precision.

    Attributes:
        devices: ``("cpu",)`` or CUDA devices; with several, batches are split between them.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast; weights stay float32), or ``int8``
            (linear layers on a CPU, see :mod:`mmindex.models.quantize`).
        cores: threads of a model on a CPU; None for one per available core.
    """

    devices: tuple[str, ...]
    precision: str
    cores: int | None = None


def place(device: str = "auto", precision: str = "auto", cores: int | None = None) -> Placement:
    """Choose devices and precision; imports torch only if there may be a GPU.

    Args:
        device: ``auto`` (all GPUs, or the CPU), ``cpu``, ``cuda`` (all GPUs), ``cuda:0,1``.
        precision: ``auto`` is fp32 on a CPU, and on GPUs bf16, or fp16 without bf16 support.
        cores: threads of a model on a CPU; None: one for each available core.

    Raises:
        UsageError: there is no such device, or it does not support the precision.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision {precision!r} must be one of auto, {', '.join(PRECISIONS)}")
    kind, _, numbers = device.partition(":")
    if kind not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"device {device!r} must be one of auto, cpu, cuda, cuda:N", "try `device=auto`"
        )
    if kind == "cpu" or (kind == "auto" and not any(node.exists() for node in _GPU_NODES)):
        if precision == "fp16":
            raise UsageError("fp16 is slow and imprecise on a CPU", "use `precision=fp32` or bf16")
        if precision == "int8":
            require_int8()
        return Placement(("cpu",), "fp32" if precision == "auto" else precision, cores)
    return _place_on_gpus(device, numbers, precision, cores)


def _place_on_gpus(device: str, numbers: str, precision: str, cores: int | None) -> Placement:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        if device != "auto":
            raise UsageError(f"device {device!r}: torch sees no GPU", "run `mmindex doctor`")
        return place("cpu", precision, cores)
    if precision == "int8":
        raise UsageError("int8 runs only on CPUs", "use `precision=bf16`, or `device=cpu`")
    try:
        wanted = [int(number) for number in numbers.split(",")] if numbers else list(range(count))
    except ValueError:
        raise UsageError(f"device {device!r} is not of the form cuda:0 or cuda:0,1") from None
    if not all(0 <= number < count for number in wanted):
        raise UsageError(f"device {device!r}: torch sees {count} GPUs, numbered from 0")
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return Placement(tuple(f"cuda:{number}" for number in wanted), precision)


class MakeEncoder(Protocol):
    """Loads the model on a device; picklable, because each device has its own process."""

    def __call__(self, device: str) -> Encoder:
        """Return the loaded encoder."""


class DeviceGroup:
    """One worker process per device; every batch is split evenly between them.

    Vectors are returned in order, as from a single encoder. Pixels are sent through pipes (10 MB
    for 64 images of 224 x 224), which takes about as long as copying them twice.

    The splitting is tested with two CPU "devices"; on several real GPUs it has not been run yet.
    """

    def __init__(
        self,
        info: EncoderInfo,
        preprocess: PreprocessSpec,
        make: MakeEncoder,
        devices: Sequence[str],
    ) -> None:
        self._info = info
        self._preprocess = preprocess
        self._count = len(devices)
        self._cut_texts = 0
        self._pools = [
            ProcessPoolExecutor(1, WORKERS, _load_here, (make, device)) for device in devices
        ]

    @property
    def info(self) -> EncoderInfo:
        """The description of the model."""
        return self._info

    @property
    def preprocess(self) -> PreprocessSpec:
        """The preprocessing of images."""
        return self._preprocess

    @property
    def cut_texts(self) -> int:
        """The number of texts so far that were longer than the context of the model."""
        return self._cut_texts

    def encode_images(self, pixels: Pixels) -> Float32:
        """Encode uint8 (b, height, width, 3) into float32 (b, dim), unit length."""
        parts = [pixels[part] for part in self._parts(len(pixels))]
        return self._joined(self._spread(_images_here, parts))

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts into float32 (b, dim), unit length."""
        parts = [list(texts[part]) for part in self._parts(len(texts))]
        results = self._spread(_texts_here, parts)
        self._cut_texts += sum(cut for _, cut in results)
        return self._joined([vectors for vectors, _ in results])

    def close(self) -> None:
        """Stop the worker processes."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _parts(self, count: int) -> list[slice]:
        edges = np.linspace(0, count, self._count + 1).astype(int).tolist()
        return [slice(low, high) for low, high in pairwise(edges)]

    def _joined(self, results: Sequence[Float32]) -> Float32:
        return np.concatenate([np.empty((0, self._info.dim), dtype=np.float32), *results])

    def _spread(self, work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
        futures: list[Future[R]] = [
            pool.submit(work, part)
            for pool, part in zip(self._pools, parts, strict=True)
            if len(part)
        ]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise InternalError(
                f"the worker of a device failed: {error}",
                "try a single device, for example `device=cuda:0`",
            ) from error


_here: Encoder | None = None  # the encoder of this worker process


def _load_here(make: MakeEncoder, device: str) -> None:
    die_with_parent()
    global _here  # noqa: PLW0603 # a pool's initializer has no other way to leave something behind
    _here = make(device)


def _encoder_here() -> Encoder:
    assert _here is not None  # noqa: S101 # the initializer ran, or the pool would be broken
    return _here


def _images_here(pixels: Pixels) -> Float32:
    return _encoder_here().encode_images(pixels)


def _texts_here(texts: list[str]) -> tuple[Float32, int]:
    encoder = _encoder_here()
    before = encoder.cut_texts
    return encoder.encode_texts(texts), encoder.cut_texts - before
