"""The devices that a model runs on, and its precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from mmindex.core.errors import InternalError, UsageError
from mmindex.core.model_names import PHOTOS
from mmindex.core.shared import SharedRows
from mmindex.core.system import die_with_parent
from mmindex.core.workers import WORKERS
from mmindex.models.encoder import Encoder, Float32
from mmindex.models.preprocess import Pixels, PreprocessSpec
from mmindex.models.quantize import require_int8
from mmindex.store.manifest import EncoderInfo

# Without one of these, no CUDA or ROCm runtime works, and torch need not be imported (it takes
# seconds).
_GPU_NODES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg"), Path("/dev/kfd"))
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices and precision.

    Attributes:
        devices: ``("cpu",)`` or CUDA devices; with several, batches are split between them.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast), or ``int8`` (linear layers on a CPU,
            see :mod:`mmindex.models.quantize`).
        cores: threads of a model on a CPU; None for one per available core.
    """

    devices: tuple[str, ...]
    precision: str
    cores: int | None = None


def place(
    device: str = "auto", precision: str = "auto", cores: int | None = None, model: str = ""
) -> Placement:
    """Choose devices and precision; imports torch only if there may be a GPU.

    Args:
        device: ``auto`` (all GPUs, or the CPU), ``cpu``, ``cuda`` (all GPUs), ``cuda:0,1``.
        precision: ``auto`` is fp32 on a CPU, and on GPUs bf16, or fp16 without bf16 support.
        cores: threads of a model on a CPU; None: one for each available core.
        model: its name; ``auto`` is fp16 on GPUs for the model for photographs.

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
    return _place_on_gpus(device, numbers, precision, cores, model)


def _place_on_gpus(
    device: str, numbers: str, precision: str, cores: int | None, model: str
) -> Placement:
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
        precision = _half_type(model)
    return Placement(tuple(f"cuda:{number}" for number in wanted), precision)


def _half_type(model: str) -> str:
    import torch

    # The lowest cosine to float32 of this network's vectors of photos is 0.998 in bf16 and 0.99998
    # in fp16 (measured on a CPU); its values are too small to overflow.
    if model == PHOTOS:
        return "fp16"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


class MakeEncoder(Protocol):
    """Loads the model on a device; picklable, because each device has its own process."""

    def __call__(self, device: str) -> Encoder:
        """Return the loaded encoder."""


# Pixels of a device in shared memory, in two halves: while the device reads one, the other is
# filled. A half has 213 images of 224 x 224; larger batches are split.
_HALF_BYTES = 32 << 20


@dataclass(slots=True)
class _Device:
    """The worker process of a device, and the memory for its pixels."""

    make: MakeEncoder
    name: str
    shape: tuple[int, int, int]
    _rows: int = field(init=False)
    _pixels: SharedRows = field(init=False)
    _pool: ProcessPoolExecutor = field(init=False)
    _readers: list[Future[None] | None] = field(default_factory=lambda: [None, None])
    _tickets: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._rows = max(1, _HALF_BYTES // int(np.prod(self.shape)))
        self._pixels = SharedRows.of(2 * self._rows, self.shape)
        start = (self.make, self.name, self._pixels)
        self._pool = ProcessPoolExecutor(1, WORKERS, _load_here, start)

    def start_images(self, pixels: Pixels) -> Callable[[], list[Float32]]:
        """Start to encode images; the returned function waits for the vectors."""
        tickets = [
            self._start(pixels[first : first + self._rows])
            for first in range(0, len(pixels), self._rows)
        ]

        def wait() -> list[Float32]:
            with _worker_errors():
                for _, started in tickets:
                    started.result()
                ends = [self._pool.submit(_finish_here, ticket) for ticket, _ in tickets]
                return [end.result() for end in ends]

        return wait

    def _start(self, pixels: Pixels) -> tuple[int, Future[None]]:
        ticket = next(self._tickets)
        half = ticket % 2
        with _worker_errors():
            if (reader := self._readers[half]) is not None:
                reader.result()
            first = half * self._rows
            self._pixels.view()[first : first + len(pixels)] = pixels
            started = self._pool.submit(_start_here, ticket, first, len(pixels))
        self._readers[half] = started
        return ticket, started

    def start_texts(self, texts: list[str]) -> Future[tuple[Float32, int]]:
        """Encode texts; the result includes how many were cut."""
        with _worker_errors():
            return self._pool.submit(_texts_here, texts)

    def close(self) -> None:
        """Stop the process."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class DeviceGroup:
    """One worker process per device; every batch is split evenly between them.

    Vectors are returned in order, as from a single encoder. Pixels are copied to memory that the
    workers share. Each worker starts a batch before it waits for the vectors of the previous one.

    The splitting is tested with CPU "devices"; on several real GPUs it has not been run yet.
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
        self._cut_texts = 0
        shape = (preprocess.height, preprocess.width, 3)
        self._devices = [_Device(make, name, shape) for name in devices]

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
        return self.start_images(pixels)()

    def start_images(self, pixels: Pixels) -> Callable[[], Float32]:
        """Start as :meth:`encode_images`; the returned function waits for the vectors."""
        waits = [
            device.start_images(pixels[part])
            for device, part in zip(self._devices, self._parts(len(pixels)), strict=True)
        ]
        return lambda: self._joined([vectors for wait in waits for vectors in wait()])

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts into float32 (b, dim), unit length."""
        started = [
            device.start_texts(list(texts[part]))
            for device, part in zip(self._devices, self._parts(len(texts)), strict=True)
            if part.start < part.stop
        ]
        with _worker_errors():
            results = [future.result() for future in started]
        self._cut_texts += sum(cut for _, cut in results)
        return self._joined([vectors for vectors, _ in results])

    def close(self) -> None:
        """Stop the worker processes."""
        for device in self._devices:
            device.close()

    def _parts(self, rows: int) -> list[slice]:
        edges = np.linspace(0, rows, len(self._devices) + 1).astype(int).tolist()
        return [slice(low, high) for low, high in pairwise(edges)]

    def _joined(self, results: Sequence[Float32]) -> Float32:
        return np.concatenate([np.empty((0, self._info.dim), dtype=np.float32), *results])


@contextmanager
def _worker_errors() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise InternalError(
            f"the worker of a device failed: {error}",
            "try a single device, for example `device=cuda:0`",
        ) from error


@dataclass(frozen=True, slots=True)
class _Here:
    """The state of a worker process.

    Attributes:
        encoder: the model on its device.
        pixels: the memory that the parent fills.
        started: waits for the vectors of batches, by ticket.
    """

    encoder: Encoder
    pixels: Pixels
    started: dict[int, Callable[[], Float32]] = field(default_factory=dict)


_state: _Here | None = None


def _load_here(make: MakeEncoder, device: str, pixels: SharedRows) -> None:
    die_with_parent()
    global _state  # noqa: PLW0603 # a pool's initializer has no other way to leave something behind
    _state = _Here(make(device), pixels.view())


def _here() -> _Here:
    assert _state is not None  # noqa: S101 # the initializer ran, or the pool would be broken
    return _state


def _start_here(ticket: int, first: int, rows: int) -> None:
    here = _here()
    here.started[ticket] = here.encoder.start_images(here.pixels[first : first + rows])


def _finish_here(ticket: int) -> Float32:
    return _here().started.pop(ticket)()


def _texts_here(texts: list[str]) -> tuple[Float32, int]:
    encoder = _here().encoder
    before = encoder.cut_texts
    return encoder.encode_texts(texts), encoder.cut_texts - before
