"""Import open_clip without torch's compiler, which mmindex does not use.

Two modules that open_clip imports load the compiler with sympy and triton: torchvision's
``roi_align`` checks whether it can compile, and timm's ``naflexvit`` marks a function as not to be
compiled. This takes 1.3 of the 5 seconds of CPU time of a cold query (benchmarks/bench_startup.py).
While open_clip is imported, replacements return "no" and mark nothing; afterwards the compiler is
available. Only ``torch.compile`` of timm's NaFlex towers, in this same process, would see a
difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo.utils"


def import_open_clip() -> None:
    """Import open_clip without torch's compiler if possible."""
    import torch  # noqa: F401 # first and whole: its own modules must see the real compiler

    if "open_clip" in sys.modules:
        return
    try:
        with _without_compiler():
            import open_clip
    except ImportError:
        # Other versions may use parts of the compiler that the replacement lacks.
        import open_clip  # noqa: F401


@contextmanager
def _without_compiler() -> Iterator[None]:
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)
    vars(stand_in)["is_compile_supported"] = lambda _device: False
    mark = torch.compiler.disable
    sys.modules[_COMPILER] = stand_in
    vars(torch.compiler)["disable"] = _unmarked
    try:
        yield
    finally:
        del sys.modules[_COMPILER]
        vars(torch.compiler)["disable"] = mark


def _unmarked(function: Any = None, *_: Any, **_settings: Any) -> Any:
    """Replace ``torch.compiler.disable``, as a decorator with or without arguments."""
    return _unmarked if function is None else function
