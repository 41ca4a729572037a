"""A small decoder with random weights, and feature maps."""

from __future__ import annotations

import pytest
import torch

from mmindex.decoder.model import DecoderModel
from mmindex.decoder.network import DecoderNetwork, Shape
from mmindex.decoder.words import Vocabulary

WORDS = ("a", "boat", "boats", "red", "blue", "how", "many", "yes", "no", ",", "2", "is", "it")
MAPS = ((6, 4), (8, 2))


@pytest.fixture
def model() -> DecoderModel:
    vocabulary = Vocabulary(WORDS)
    torch.manual_seed(3)
    network = DecoderNetwork(Shape(len(vocabulary), MAPS, width=16, layers=2, heads=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.eval().requires_grad_(requires_grad=False)
    return DecoderModel(network, vocabulary, "weights of the tower")


@pytest.fixture
def maps() -> list[torch.Tensor]:
    """Maps of three images."""
    torch.manual_seed(5)
    return [torch.randn(3, places, channels) for channels, places in MAPS]
