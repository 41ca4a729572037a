"""Arrays in memory that this process shares with its workers, in place of pickled copies."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import os_errors
from mmindex.core.workers import WORKERS


@dataclass(frozen=True, slots=True)
class SharedRows:
    """A fixed number of uint8 arrays of the same shape; pass it to a worker when it starts.

    The memory has no name and needs no cleaning up: it ends with the last process that has it. It
    is in ``/dev/shm`` if there is enough space, and in a deleted temporary file otherwise.

    Attributes:
        memory: the bytes, from :func:`multiprocessing.RawArray`.
        rows: the number of arrays.
        shape: the shape of one array.
    """

    memory: Any
    rows: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, rows: int, shape: tuple[int, ...]) -> Self:
        """Reserve memory for ``rows`` arrays.

        Raises:
            StorageError: there is no space for it.
        """
        with os_errors(tempfile.gettempdir()):
            return cls(WORKERS.RawArray("B", rows * math.prod(shape)), rows, shape)

    @property
    def size_bytes(self) -> int:
        """The size of all arrays."""
        return self.rows * math.prod(self.shape)

    def view(self) -> NDArray[np.uint8]:
        """Return all arrays as one, without a copy: uint8 (rows, *shape)."""
        return np.frombuffer(self.memory, dtype=np.uint8).reshape(self.rows, *self.shape)
