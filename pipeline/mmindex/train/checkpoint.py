"""Checkpoints for resuming a killed run: safetensors and JSON, complete or absent."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmindex.core.durable import sync_path
from mmindex.core.errors import ModelMismatchError, os_errors

_PREFIX: Final = "checkpoint-"
_TENSORS: Final = "state.safetensors"
_NOTE: Final = "state.json"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that a step changes."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    mean: AveragedModel | None


def save_checkpoint(folder: Path, step: int, state: TrainingState, identity: Any) -> None:
    """Write ``checkpoint-<step>`` to a temporary folder, sync and rename it, drop older ones.

    Args:
        step: optimizer steps done.
        identity: settings and corpus as plain JSON; :func:`resume` requires the same.
    """
    target, aside = folder / f"{_PREFIX}{step:09d}", folder / f"{_PREFIX}{step:09d}.part"
    with os_errors(folder):
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(_tensors(state), aside / _TENSORS)
        note = {"step": step, "identity": identity, "scaler": state.scaler.state_dict()}
        (aside / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
        for path in (aside / _TENSORS, aside / _NOTE, aside):
            sync_path(path)
        aside.rename(target)
        sync_path(folder)
        for older in _checkpoints(folder)[:-1]:
            shutil.rmtree(older)


def resume(folder: Path, state: TrainingState, identity: Any) -> int:
    """Load the newest checkpoint into ``state``; return the steps done, 0 if there is none.

    Raises:
        ModelMismatchError: the checkpoint has other settings or another corpus.
    """
    found = _checkpoints(folder)
    if not found:
        return 0
    newest = found[-1]
    with os_errors(newest):
        note = json.loads((newest / _NOTE).read_text(encoding="utf-8"))
        tensors = load_file(newest / _TENSORS)
    if note["identity"] != json.loads(json.dumps(identity)):
        before, now = note["identity"], json.loads(json.dumps(identity))
        changed = sorted(
            key for key in before.keys() | now.keys() if before.get(key) != now.get(key)
        )
        raise ModelMismatchError(
            f"{newest} is from a run with other {', '.join(changed)}",
            f"use the same options, or remove {folder} to start again",
        )
    _restore(state, tensors)
    state.scaler.load_state_dict(note["scaler"])
    return int(note["step"])


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.suffix != ".part")


def _tensors(state: TrainingState) -> dict[str, torch.Tensor]:
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    if state.mean is not None:
        tensors |= {f"mean.{name}": value for name, value in state.mean.state_dict().items()}
    for position, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{position}.{name}": value for name, value in values.items()}
    return {name: value.contiguous().clone() for name, value in tensors.items()}


def _restore(state: TrainingState, tensors: dict[str, torch.Tensor]) -> None:
    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    state.network.load_state_dict(part("network."))
    if state.mean is not None:
        state.mean.load_state_dict(part("mean."))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    for key, value in part("optimizer.").items():
        position, _, name = key.partition(".")
        parameter = parameters[int(position)]
        values = moments.setdefault(int(position), {})
        # The fused step accesses weights and moments by address: both need the same layout.
        like = parameter if value.shape == parameter.shape else value
        values[name] = torch.empty_like(like, requires_grad=False).copy_(value)
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
