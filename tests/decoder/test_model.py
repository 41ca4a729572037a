"""The file of a decoder: it comes back as it was, and damage is found."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmindex.core.errors import DataError, ModelMismatchError, NoInputError
from mmindex.decoder.generate import generate
from mmindex.decoder.model import DECODER_FILE, find_decoder, load_decoder, save_decoder

KEY = "mmindex.decoder"


@pytest.fixture
def path(model, tmp_path):
    save_decoder(model, tmp_path / DECODER_FILE)
    return tmp_path / DECODER_FILE


def test_a_decoder_comes_back(model, maps, path):
    found = find_decoder(path.parent, "embedded", model.weights)
    assert (found.vocabulary, found.network.shape) == (model.vocabulary, model.network.shape)
    for name, value in model.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value.half().float())
    assert generate(found, maps, ["boats"] * 3)


def test_equal_decoders_have_equal_files(model, path, tmp_path):
    save_decoder(model, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_model_without_a_decoder_is_refused(tmp_path):
    for folder in (tmp_path, None):
        with pytest.raises(ModelMismatchError, match="has no decoder"):
            find_decoder(folder, "ViT-B-32", "x")


def test_a_decoder_of_other_weights_is_refused(path):
    with pytest.raises(ModelMismatchError, match="other weights"):
        find_decoder(path.parent, "embedded", "other")


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(NoInputError):
        load_decoder(tmp_path / "none")


@pytest.mark.parametrize("size", [0, 7, 200, 5_000])
def test_a_truncated_file_is_damaged(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="damaged"):
        load_decoder(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.clear(),
        lambda card: card.update(vocabulary=["a"]),
        lambda card: card.update(weights=7),
        lambda card: card.pop("shape"),
        lambda card: card["shape"].update(heads=3),
        lambda card: card["shape"].update(heads=0),
        lambda card: card["shape"].update(layers=10**9),
        lambda card: card["shape"].update(layers=1),
        lambda card: card["shape"].update(maps=[]),
        lambda card: card["shape"].update(maps=[[6, 4, 2]]),
        lambda card: card["shape"].update(maps=7),
        lambda card: card["shape"].update(more=1),
    ],
)
def test_a_damaged_description_is_refused(path, change):
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()[KEY])
    change(card)
    save_file(load_file(path), path, metadata={KEY: json.dumps(card)})
    with pytest.raises(DataError, match="damaged"):
        load_decoder(path)


def test_weights_that_are_not_numbers_are_refused(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["positions"][0, 0] = float("nan")
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(DataError, match="not finite"):
        load_decoder(path)
