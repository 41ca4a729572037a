"""Models for benchmarks: an architecture with seeded weights in a file, or the embedded model.

Speed does not depend on the values of the weights, so no download is needed, and all programs can
read the same file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SEED = 20_240_229


def seeded_weights(name: str, folder: Path) -> Path:
    """The state of an open_clip architecture, drawn from a seed: ``folder/<name>.safetensors``."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(SEED)
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, str(path))
    return path


def load(name: str, weights: Path | None, precision: str = "fp32") -> Any:
    """Return an encoder on the CPU, loaded as by ``mmindex encode``."""
    from mmindex.models.devices import place
    from mmindex.models.openclip import load_encoder
    from mmindex.models.resolve import resolve_model

    request = resolve_model(name, None if weights is None else str(weights))
    return load_encoder(request, place("cpu", precision))


def captions(path: Path | None, count: int) -> tuple[str, list[str]]:
    """Return captions and their origin: a COCO annotation file, or drawn scenes."""
    if path is not None:
        rows = json.loads(path.read_text())["annotations"]
        texts = [row["caption"] for row in rows if "caption" in row]
        source = f"COCO ({path.name})"
    else:
        from mmindex.scenes import captions as scene_captions
        from mmindex.scenes import make_scene

        scenes = (make_scene(7, number) for number in range(-(-count // 3)))
        texts = [mention.text for scene in scenes for mention in scene_captions(scene)]
        source = "drawn scenes"
    return source, [texts[place % len(texts)] for place in range(count)]
