"""Weights are loaded as they are meant to be, or refused in one line."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mmindex.core.errors import DataError, ModelMismatchError
from mmindex.models import openclip
from mmindex.models.devices import Placement
from mmindex.models.files import ModelFiles, locate
from mmindex.models.fingerprint import describe
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.resolve import resolve_model
from support.loading import TEXTS, load
from support.models import DIM, IMAGE_SIZE, TinyModel

CPU = Placement(("cpu",), "fp32")


def test_the_same_weights_as_a_lone_file_do_not_fit_another_architecture(
    tiny_model: TinyModel,
) -> None:
    with pytest.raises(ModelMismatchError, match="do not fit") as caught:
        load("RN50", str(tiny_model.weights))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights_are_one_line(tiny_model: TinyModel, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model.folder, copy)
    weights = copy / "open_clip_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes({"truncated": data[:-100], "garbage": b"<html>", "empty": b""}[damage])
    with pytest.raises(DataError, match="damaged") as caught:
        load(f"local-dir:{copy}")
    assert "\n" not in caught.value.message


def test_a_pickle_that_runs_code_is_refused_even_when_pickles_are_allowed(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model.folder, copy)
    (copy / "open_clip_model.safetensors").unlink()
    torch.save({"evil": partial(print, "ran")}, copy / "open_clip_pytorch_model.bin")
    request = resolve_model(f"local-dir:{copy}", None, allow_pickle_weights=True)
    with pytest.raises(DataError, match="damaged"):
        load_encoder(request, CPU)


def test_plain_pickled_weights_can_be_allowed(tiny_model: TinyModel, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model.folder, copy)
    state = load(tiny_model.name).model.state_dict()
    (copy / "open_clip_model.safetensors").unlink()
    torch.save(state, copy / "open_clip_pytorch_model.bin")
    request = resolve_model(f"local-dir:{copy}", None, allow_pickle_weights=True)
    loaded = load_encoder(request, CPU)
    expected = load(tiny_model.name).encode_texts(TEXTS[:3])
    np.testing.assert_allclose(loaded.encode_texts(TEXTS[:3]), expected, atol=1e-6)


def test_an_untrained_model_is_seeded_and_says_so(
    tiny_model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    one = load(tiny_model.name, "none")
    assert "UNTRAINED" in caplog.text
    assert not one.info.trained
    two = load(tiny_model.name, "none")
    np.testing.assert_array_equal(one.encode_texts(["a"]), two.encode_texts(["a"]))
    assert one.info == two.info


def test_the_fingerprint_is_known_before_loading(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    request = resolve_model(tiny_model.name, None)
    assert describe(request, locate(request), "fp32") == encoder.info
    assert encoder.info.dim == DIM
    assert encoder.info.image_size == IMAGE_SIZE


def test_weights_trained_with_quick_gelu_are_computed_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """open_clip only warns, and gives wrong vectors."""
    from mmindex.models import files as files_module

    monkeypatch.setattr(files_module.hub, "fetch", lambda _repository, _names: tmp_path / "w")
    found = locate(resolve_model("ViT-B-32", "openai"))
    assert found.config["quick_gelu"] is True
    assert "quick_gelu" not in locate(resolve_model("ViT-B-32", "laion2b_s34b_b79k")).config


def test_quick_gelu_reaches_the_network(tiny_model: TinyModel) -> None:
    from open_clip.transformer import QuickGELU

    files = locate(resolve_model(tiny_model.name, None))
    quick = ModelFiles(
        files.base,
        {**files.config, "quick_gelu": True},
        files.preprocess,
        files.tokenizer,
        files.weights,
        files.config_file,
    )
    network = openclip.build_network(quick)
    assert any(isinstance(module, QuickGELU) for module in network.modules())


def test_loading_leaves_logging_as_it_was(tiny_model: TinyModel) -> None:
    import logging

    before = (list(logging.getLogger().handlers), logging.getLogger().disabled)
    load(tiny_model.name, "none")
    assert (list(logging.getLogger().handlers), logging.getLogger().disabled) == before
