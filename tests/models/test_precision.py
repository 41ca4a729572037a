"""Weights in the compute type change nothing but their size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmindex.models import openclip
from mmindex.models.precision import compute_type, convert_weights
from support.loading import TEXTS, load
from support.models import TinyModel

SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", ["tiny", "embedded", pytest.param("photos", marks=SLOW)])
def test_vectors_stay_the_same_bit_for_bit(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    name = tiny_model.name if name == "tiny" else name
    converted = load(name, precision="bf16")
    monkeypatch.setattr(openclip, "convert_weights", lambda _model, _dtype: None)
    plain = load(name, precision="bf16")
    side = plain.preprocess.height
    pixels = np.random.default_rng(5).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    np.testing.assert_array_equal(converted.encode_images(pixels), plain.encode_images(pixels))
    np.testing.assert_array_equal(converted.encode_texts(TEXTS), plain.encode_texts(TEXTS))
    assert weight_bytes(converted.model) < weight_bytes(plain.model)


def test_float32_and_int8_keep_float32_weights(tiny_model: TinyModel) -> None:
    model = load(tiny_model.name).model
    for precision in ("fp32", "int8"):
        convert_weights(model, compute_type(precision))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def weight_bytes(model: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())
