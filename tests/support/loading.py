"""Loaded open_clip models, and the similarity of two sets of vectors."""

from __future__ import annotations

import numpy as np
import torch

from mmindex.models.devices import Placement
from mmindex.models.encoder import Float32
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.resolve import resolve_model

TEXTS = [
    "the red dog",
    "a blue cat on the dog",
    "一只红色的猫在蓝色的狗上面",
    "שלום עולם",
    "🦆🦆🦆",
    "a &amp; b &lt;script&gt;",
    "",
    "\ud83d broken",
    "red " * 200,
    "x" * 100_000,
]


def load(name: str, pretrained: str | None = None, precision: str = "fp32") -> OpenClipEncoder:
    encoder = load_encoder(resolve_model(name, pretrained), Placement(("cpu",), precision))
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def unit(features: torch.Tensor) -> Float32:
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def cosines(one: Float32, other: Float32) -> Float32:
    return np.einsum("ij,ij->i", one, other)
