"""The learning rate of each step, and which parameters decay."""

from __future__ import annotations

import math

from torch import nn


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to ``peak``, then half a cosine down to zero at ``steps``.

    Args:
        step: counted from 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * min(1.0, done))) / 2


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """AdamW's groups of the trainable parameters: matrices decay, all else does not.

    Gains, biases, the temperature, and position or class embeddings are scales and places, which
    shrinking towards zero would only distort (Radford et al. 2021, section 2.5).
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kept = parameter.ndim < 2 or "positional_embedding" in name or "pos_embed" in name
        (free if kept else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
