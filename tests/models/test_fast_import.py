"""open_clip without torch's compiler: a faster start, and no difference afterwards."""

from __future__ import annotations

import subprocess
import sys

from support.models import TinyModel

SCRIPT = """
import sys
import numpy as np
from mmindex.models.devices import place
from mmindex.models.resolve import resolve_model
from mmindex.models.openclip import load_encoder
encoder = load_encoder(resolve_model(sys.argv[1], None), place("cpu"))
encoder.encode_texts(["a red dog", "a cat"])
encoder.encode_images(np.zeros((1, 32, 32, 3), dtype=np.uint8))
print("compiler" if "torch._dynamo" in sys.modules else "lean")
import torch
from torch._dynamo.utils import is_compile_supported
import torchvision.ops
print(is_compile_supported.__module__)
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
print(tuple(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, (2, 2)).shape))
"""


def test_encoding_never_loads_the_compiler_and_leaves_it_usable(tiny_model: TinyModel) -> None:
    """A later import gets the real compiler, and torchvision's operators work."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tiny_model.name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["lean", "torch._dynamo.utils", "(1, 1, 2, 2)"]
