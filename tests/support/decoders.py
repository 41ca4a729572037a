"""Decoders that misbehave on purpose, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from mmindex.core.records import Reason
from mmindex.encode.decoding import Decoded, DecodeTask, Failure


@dataclass(frozen=True, slots=True)
class Misbehaving:
    """Does what the task's uri says; otherwise returns 4 x 4 pixels with the key's number."""

    def __call__(self, task: DecodeTask) -> Decoded:
        match task.uri:
            case "exit":
                os._exit(3)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(600)
            case "eat":
                held = bytearray()
                while True:
                    held += bytes(1 << 26)
            case "fail":
                return Failure(Reason.CORRUPT, "as asked")
        return np.full((4, 4, 3), int(task.key) % 256, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Reporting:
    """Fails every task with facts about its own process."""

    def __call__(self, task: DecodeTask) -> Decoded:
        import resource
        import sys

        loaded = sorted(name for name in ("torch", "open_clip", "faiss") if name in sys.modules)
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        return Failure(Reason.CORRUPT, f"{os.getpid()} {loaded} {soft} {task.uri}")
