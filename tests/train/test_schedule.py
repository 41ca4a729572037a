from __future__ import annotations

import pytest
import torch
from torch import nn

from mmindex.train.step import decay_groups, learning_rate


def rate(step: int) -> float:
    return learning_rate(step, peak=1.0, warmup_steps=4, steps=12)


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine_to_zero() -> None:
    assert [rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate(4) == 1.0
    assert rate(8) == pytest.approx(0.5)
    assert rate(12) == pytest.approx(0.0)
    assert all(rate(step + 1) < rate(step) for step in range(4, 12))


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert learning_rate(0, peak=3e-4, warmup_steps=0, steps=10) == 3e-4


def test_only_matrices_decay_and_locked_parameters_are_left_out() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.norm = nn.LayerNorm(2)
            self.positional_embedding = nn.Parameter(torch.zeros(4, 2))
            self.logit_scale = nn.Parameter(torch.tensor(1.0))
            self.locked = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    net = Net()
    decayed, free = decay_groups(net, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [net.layer.weight]
    assert len(free["params"]) == 5  # bias, gain and shift, positions, temperature
