"""Copies between this process and the device of a model.

On a GPU, copies and kernels are queued, and the processor continues at once: it prepares the next
batch while the device computes. A second stream copies that batch to the device at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Transfer(Protocol):
    """The way to a device and back."""

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy on the device; later operations on the device wait for it."""

    def fetch(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start to copy a result back; the returned function waits for it."""


class ToCpu:
    """A device that is this process: nothing is copied."""

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor itself."""
        return tensor

    def fetch(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Return a function for the tensor itself."""
        return lambda: tensor


@dataclass(slots=True)
class ToCuda:
    """A CUDA device (``benchmarks/gpu_check.py`` tests it; not run on a GPU yet)."""

    device: torch.device
    _copies: torch.cuda.Stream = field(init=False)

    def __post_init__(self) -> None:
        import torch

        self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy to page-locked memory, and queue the copy to the device."""
        import torch

        with torch.cuda.stream(self._copies):
            there = tensor.pin_memory().to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._copies)
        there.record_stream(computing)  # or its memory could be reused while it is read
        return there

    def fetch(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Queue the copy; torch makes page-locked memory for it."""
        import torch

        here = tensor.to("cpu", non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> torch.Tensor:
            done.synchronize()
            return here

        return wait


def transfer_to(device: str) -> Transfer:
    """Return the way to a device: ``cpu``, or one CUDA device such as ``cuda:0``."""
    import torch

    return ToCpu() if device == "cpu" else ToCuda(torch.device(device))
