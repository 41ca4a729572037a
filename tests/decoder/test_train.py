"""Training: a killed run ends with the same weights, and the input is checked first."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mmindex.core.errors import MmindexError, ModelMismatchError, UsageError
from mmindex.decoder import train as module
from mmindex.decoder.model import DECODER_FILE, load_decoder
from mmindex.decoder.network import Shape
from mmindex.decoder.train import DecoderRecipe, train_decoder
from mmindex.models.resolve import ModelRequest
from mmindex.train.settings import TrainSettings

SETTINGS = TrainSettings(steps=6, batch_size=4, warmup_steps=2, checkpoint_every=2, seed=3)


@pytest.fixture
def recipe(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_VOCABULARY_SCENES", 12)
    small = Shape(0, (), width=16, layers=1, heads=2)
    return DecoderRecipe(
        ["scenes:12@4294967296"], [], ModelRequest(tiny_model.name, ""), SETTINGS,
        tmp_path / "out", shape=small,
    )  # fmt: skip


def weights(folder):
    return load_decoder(folder / DECODER_FILE).network.state_dict()


def test_a_killed_run_ends_with_the_same_weights(recipe, tmp_path, monkeypatch):
    report = train_decoder(recipe)
    assert report.resumed_at == 0
    assert not recipe.work.exists()
    again = replace(recipe, folder=tmp_path / "again")
    step = module.DecoderTrainer.step

    def killed(self, number, packed, maps):
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number, packed, maps)

    monkeypatch.setattr(module.DecoderTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_decoder(again)
    assert not (again.folder / DECODER_FILE).exists()
    monkeypatch.setattr(module.DecoderTrainer, "step", step)
    assert train_decoder(again).resumed_at == 4
    for name, value in weights(recipe.folder).items():
        assert torch.equal(value, weights(again.folder)[name]), name


def test_a_run_measures_and_reports(recipe):
    report = train_decoder(replace(recipe, validation=["scenes:2@4294967297"]))
    saved = json.loads((recipe.folder / module.REPORT_FILE).read_text())
    assert saved["accuracy"] == dict(report.accuracy)
    assert {"yes/no", "count", "colour", "place"} <= report.accuracy.keys()
    assert report.parameters == sum(value.numel() for value in weights(recipe.folder).values())


def test_the_loss_falls(recipe):
    longer = replace(SETTINGS, steps=60, learning_rate=1e-2)
    train_decoder(replace(recipe, settings=longer))
    lines = (recipe.folder / module.LOG_FILE).read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < 0.8 * losses[0]


def test_other_settings_do_not_continue_a_run(recipe, monkeypatch):
    step = module.DecoderTrainer.step

    def killed(self, number, packed, maps):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, packed, maps)

    monkeypatch.setattr(module.DecoderTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_decoder(recipe)
    with pytest.raises(ModelMismatchError, match="seed"):
        train_decoder(replace(recipe, settings=replace(SETTINGS, seed=4)))


def test_an_existing_decoder_is_kept(recipe):
    recipe.folder.mkdir()
    (recipe.folder / DECODER_FILE).write_bytes(b"mine")
    with pytest.raises(UsageError, match="already contains a decoder"):
        train_decoder(recipe)
    assert (recipe.folder / DECODER_FILE).read_bytes() == b"mine"


@pytest.mark.parametrize("sources", [[], ["folder:/pictures"], ["coco:val2017"], ["scenes:0"]])
def test_only_scenes_are_accepted(recipe, sources):
    with pytest.raises(UsageError):
        train_decoder(replace(recipe, sources=sources))


def test_a_model_without_feature_maps_is_refused(recipe):
    with pytest.raises(MmindexError):
        train_decoder(replace(recipe, model=ModelRequest("photos", "")))
