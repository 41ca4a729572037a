"""The input of a training run and its settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from mmindex.core.errors import UsageError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class CaptionedImage(Protocol):
    """One image with its captions, as every source lists it (``records.SourceItem`` matches)."""

    @property
    def captions(self) -> tuple[str, ...]:
        """Texts that describe the image."""
        ...

    @property
    def uri(self) -> str:
        """The image's location; empty if unknown."""
        ...

    @property
    def read(self) -> Callable[[], bytes]:
        """Function that returns the image file's bytes; must be picklable for decode workers."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """What training needs of an image: a function to read it, its captions, and its location."""

    read: Callable[[], bytes]
    captions: tuple[str, ...]
    uri: str = ""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The settings of a training run.

    Attributes:
        steps: optimizer steps of the whole run; a resumed run ends at the same number.
        batch_size: images per step. Every other image of the batch is a negative, so recall grows
            with it; at small sizes the loss saturates early.
        captions_per_image: different captions of each image used in a step. Each set is
            contrasted separately, so captions of one image are never each other's negatives;
            2 is worthwhile if the text tower is cheap compared with the image tower.
        learning_rate: peak of the schedule. 1e-3 suits a few million new parameters; use 1e-5 to
            5e-5 for fine-tuning a published model.
        warmup_steps: linear warm-up before the cosine decay to zero.
        weight_decay: AdamW's, for matrices only (no gains, biases, temperature, positions).
        clip_norm: largest gradient norm; larger gradients are scaled down.
        ema_decay: decay of the running mean of weights that is validated and saved; 0 saves the
            last weights themselves.
        hard_negatives: images with similar captions that share a batch; 0 draws batches
            at random. A quarter of the batch is a good size: harder negatives teach details (kinds
            of things) that are not needed to distinguish the images of a random batch, and several
            groups together keep batch statistics near those of the corpus.
        crop_scale: smallest share of the image's area that a random crop keeps; 1 turns cropping
            off. There is no mirroring (captions mention left and right) and no colour change.
        seed: seed of the weights, the order, the captions and the crops.
        lock_image, lock_text: do not train that tower (LiT, Zhai et al. 2022).
        precision: ``auto`` is bf16 on CUDA and on CPUs with AMX tiles, fp16 on older CUDA cards,
            fp32 elsewhere.
        workers: processes that decode and crop batches ahead; 0 does it in this process.
        checkpoint_every, validate_every: in steps.
    """

    steps: int = 2_000
    batch_size: int = 256
    captions_per_image: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    hard_negatives: int = 0
    crop_scale: float = 0.9
    seed: int = 0
    lock_image: bool = False
    lock_text: bool = False
    precision: Precision = "auto"
    device: str = "auto"
    workers: int = 1
    checkpoint_every: int = 250
    validate_every: int = 250

    def __post_init__(self) -> None:
        for name in ("steps", "captions_per_image", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.batch_size < 2:
            raise UsageError("batch_size must be at least 2: the other images are the negatives")
        if self.hard_negatives and not 2 <= self.hard_negatives <= self.batch_size:
            raise UsageError(f"alike must be 0, or from 2 to batch_size, not {self.hard_negatives}")
        if not 0 < self.crop_scale <= 1:
            raise UsageError(f"crop_scale must be above 0 and at most 1, not {self.crop_scale}")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay must be at least 0 and below 1, not {self.ema_decay}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(
                f"learning_rate must be greater than 0, not {self.learning_rate}",
                "use 1e-3 for a new model, and 1e-5 to 5e-5 to fine-tune",
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay must be at least 0, not {self.weight_decay}")
        for name in ("warmup_steps", "seed", "workers"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.lock_image and self.lock_text:
            raise UsageError("both towers are locked, so there is nothing to train")

    def identity(self) -> dict[str, object]:
        """Return what must match a checkpoint to resume it: everything that changes the weights."""
        free = {"device", "workers", "checkpoint_every", "validate_every"}
        return {key: value for key, value in asdict(self).items() if key not in free}
