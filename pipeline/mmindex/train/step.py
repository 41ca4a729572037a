"""One optimizer step: learning rate, loss, gradients, running mean of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

from mmindex.core.errors import DataError
from mmindex.train.batches import Batch
from mmindex.train.checkpoint import TrainingState
from mmindex.train.folder import TrainableModel
from mmindex.train.settings import TrainSettings
from mmindex.train.towers import (
    computing,
    image_vectors,
    lock_towers,
    pick_device,
    pick_dtype,
    running_mean,
    text_vectors,
    training_mode,
)
from mmindex.train.validation import Validation, measure_recall


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Return the rate of a linear warm-up to ``peak``, then half a cosine to zero at ``steps``.

    Args:
        step: counted from 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * min(1.0, done))) / 2


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return AdamW's groups of the trainable parameters: only matrices decay.

    Gains, biases, the temperature, and position or class embeddings are scales and positions, which
    decay towards zero would only distort (Radford et al. 2021, section 2.5).
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


MAX_LOG_SCALE = math.log(100.0)  # the paper limits the temperature to this value for stability


def contrastive_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    same_text: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of the two cross-entropies, image to text and text to image.

    The symmetric loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3).

    Args:
        images: float32 (b, dim), unit length.
        texts: float32 (b, dim), unit length; row i describes image i.
        scale: the factor on cosine similarities (1 / temperature), scalar.
        same_text: bool (b, b), true if two rows have the same caption. Off the diagonal such
            pairs are left out: a caption that two images share is not a negative for either.

    Returns:
        Scalar float32.
    """
    # Outside autocast: with bfloat16, logits near 20 would have errors of a sixteenth.
    with torch.autocast(images.device.type, enabled=False):
        return _in_float32(images, texts, scale, same_text)


def _in_float32(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    same_text: torch.Tensor | None,
) -> torch.Tensor:
    logits = scale * images @ texts.T
    if same_text is not None:
        shared = same_text & ~torch.eye(len(images), dtype=torch.bool, device=images.device)
        logits = logits.masked_fill(shared, float("-inf"))
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def equal_rows(tokens: torch.Tensor) -> torch.Tensor:
    """Return which rows of ``tokens`` (int64 (b, context)) are the same caption: bool (b, b)."""
    _, group = torch.unique(tokens, dim=0, return_inverse=True)
    same: torch.Tensor = group[:, None] == group[None, :]
    return same


# Radford et al. 2021, table 20: a smaller beta2 and larger epsilon stabilise transformers.
_BETAS = (0.9, 0.98)
_EPSILON = 1e-6


class Trainer:
    """The network with its optimizer; each call of :meth:`step` trains on one batch."""

    def __init__(self, model: TrainableModel, settings: TrainSettings) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.precision, self.device)
        # Channels last is the layout of convolution libraries; others need a conversion.
        network: Any = model.network
        network.to(device=self.device, memory_format=torch.channels_last)
        lock_towers(network, settings)
        groups: Any = decay_groups(network, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, eps=_EPSILON, fused=True)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self._dtype == torch.float16)
        self.state = TrainingState(
            network, optimizer, scaler, running_mean(network, settings.ema_decay)
        )
        self.rate = 0.0
        preprocess = model.files.preprocess
        self._mean = torch.tensor(preprocess.mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(preprocess.std, device=self.device).view(1, 3, 1, 1) * 255

    @property
    def scale(self) -> float:
        """The factor on similarities, at most 100."""
        network: Any = self.state.network
        return math.exp(float(network.logit_scale.detach()))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convert uint8 (b, 3, s, s) to the network's float32 input on its device."""
        moved = pixels.to(self.device, non_blocking=True).float()
        return ((moved - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def final_network(self) -> nn.Module:
        """Return the weights to validate and to save: their running mean if there is one."""
        mean = self.state.mean
        network: nn.Module = self.state.network if mean is None else mean.module
        return network.eval()

    def recall(self, validation: Validation) -> dict[str, float]:
        """Measure the final network; see :func:`mmindex.train.validation.measure_recall`."""
        with computing(self.device, self._dtype):
            return measure_recall(self.final_network(), validation, self.normalise, self.device)

    def step(self, number: int, batch: Batch) -> float:
        """Train on one batch; return its loss.

        Args:
            number: steps done before this one.

        Raises:
            DataError: the loss is not a number.
        """
        network: Any = self.state.network
        optimizer, scaler = self.state.optimizer, self.state.scaler
        training_mode(network, self.settings)
        self.rate = learning_rate(
            number,
            peak=self.settings.learning_rate,
            warmup_steps=self.settings.warmup_steps,
            steps=self.settings.steps,
        )
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        with computing(self.device, self._dtype):
            loss = self._loss(batch)
        torch.autograd.backward(scaler.scale(loss))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(f"the loss is {value} at step {number}", "lower `learning_rate`")
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            network.logit_scale.clamp_(0, MAX_LOG_SCALE)
        if self.state.mean is not None:
            self.state.mean.update_parameters(network)
        return value

    def _loss(self, batch: Batch) -> torch.Tensor:
        network: Any = self.state.network
        sets, size, _ = batch.tokens.shape
        tokens = batch.tokens.to(self.device, non_blocking=True)
        images = image_vectors(network, self.normalise(batch.pixels))
        texts = text_vectors(network, tokens.flatten(0, 1)).view(sets, size, -1)
        scale = network.logit_scale.exp()
        losses = [
            contrastive_loss(images, texts[k], scale, equal_rows(tokens[k])) for k in range(sets)
        ]
        return torch.stack(losses).mean()
