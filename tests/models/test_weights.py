"""Weights are loaded correctly, or refused with a one-line error."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmindex.core.errors import (
    DataError,
    MmindexError,
    ModelMismatchError,
    NoInputError,
    UsageError,
)
from mmindex.models import openclip
from mmindex.models.devices import Placement
from mmindex.models.files import ModelFiles, locate
from mmindex.models.fingerprint import describe, fingerprint_of
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.resolve import resolve_model
from support.loading import TEXTS, load
from support.models import DIM, IMAGE_SIZE, TinyModel

CPU = Placement(("cpu",), "fp32")


def test_the_same_weights_as_a_single_file_do_not_match_another_architecture(
    tiny_model: TinyModel,
) -> None:
    with pytest.raises(ModelMismatchError, match="do not fit") as caught:
        load("RN50", str(tiny_model.weights))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncated", "damaged"),
        ("cut in its head", "truncated"),
        ("garbage", "truncated"),
        ("empty", "truncated"),
        ("a bit of its head", "damaged"),
    ],
)
def test_damaged_weights_are_a_one_line_error(
    tiny_model: TinyModel, tmp_path: Path, damage: str, said: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model.folder, copy)
    weights = copy / "open_clip_model.safetensors"
    data = weights.read_bytes()
    damaged = {
        "truncated": data[:-100],
        "cut in its head": data[:50],
        "garbage": b"<html>",
        "empty": b"",
        "a bit of its head": data[:9] + b"\xff" + data[10:],
    }
    weights.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=said) as caught:
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
    with pytest.raises(DataError, match="objects other than tensors") as caught:
        load_encoder(request, CPU)
    assert "weights_only" not in f"{caught.value.message} {caught.value.hint}"


def pickled(tiny_model: TinyModel, folder: Path) -> Path:
    """A copy of the model folder without weights, and the path of pickled weights."""
    shutil.copytree(tiny_model.folder, folder)
    (folder / "open_clip_model.safetensors").unlink()
    return folder / "open_clip_pytorch_model.bin"


def test_a_training_checkpoint_with_a_numpy_number_is_not_called_damaged(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    weights = pickled(tiny_model, tmp_path / "copy")
    torch.save({"state_dict": load_file(tiny_model.weights), "best": np.float64(0.5)}, weights)
    request = resolve_model(f"local-dir:{weights.parent}", None, allow_pickle_weights=True)
    with pytest.raises(DataError, match=r"training checkpoint .*numpy") as caught:
        load_encoder(request, CPU)
    assert "state_dict()" in caught.value.hint


def test_a_torchscript_archive_is_named_as_one(tiny_model: TinyModel, tmp_path: Path) -> None:
    weights = pickled(tiny_model, tmp_path / "copy")
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(weights))
    request = resolve_model(f"local-dir:{weights.parent}", None, allow_pickle_weights=True)
    with pytest.raises(MmindexError) as caught:
        load_encoder(request, CPU)
    assert "TorchScript" in caught.value.message


def test_a_truncated_pickle_is_reported_as_truncated(tiny_model: TinyModel, tmp_path: Path) -> None:
    weights = pickled(tiny_model, tmp_path / "copy")
    torch.save(load_file(tiny_model.weights), weights)
    weights.write_bytes(weights.read_bytes()[:-1_000])
    request = resolve_model(f"local-dir:{weights.parent}", None, allow_pickle_weights=True)
    with pytest.raises(DataError, match="truncated"):
        load_encoder(request, CPU)


def write_shards(tiny_model: TinyModel, folder: Path) -> dict[str, str]:
    """Write the weights of a model as two shards; return which tensor is in which."""
    tensors = load_file(tiny_model.weights)
    names, places = sorted(tensors), {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({one: tensors[one].contiguous() for one in part}, folder / name)
        places |= dict.fromkeys(part, name)
    return places


@pytest.fixture
def sharded(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """The index of a model in two shards."""
    folder = pickled(tiny_model, tmp_path / "sharded").parent
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": write_shards(tiny_model, folder)}))
    return index


def test_shards_with_their_index_are_one_model(
    tiny_model: TinyModel, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    whole, joined = load(tiny_model.name), load(f"local-dir:{sharded.parent}")
    np.testing.assert_array_equal(joined.encode_texts(TEXTS), whole.encode_texts(TEXTS))
    assert {Path(file.path).name for file in joined.info.inputs} >= {
        sharded.name,
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    assert not list((tmp_path / "tmp").iterdir())


def test_another_shard_is_another_model(sharded: Path) -> None:
    request = resolve_model(f"local-dir:{sharded.parent}", None)
    before = fingerprint_of(request, "fp32")
    shard = sharded.with_name("model-00002-of-00002.safetensors")
    tensors = load_file(shard)
    name = next(name for name, tensor in tensors.items() if tensor.numel() > 1)
    save_file({**tensors, name: tensors[name] + 1}, shard)
    assert fingerprint_of(request, "fp32", before).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[]", DataError, "not a JSON object"),
        ("{}", DataError, "no weight_map"),
        ('{"weight_map": {"a": "../b.safetensors"}}', DataError, "not the name of a file"),
        ('{"weight_map": {"a": "b.bin"}}', DataError, "not a .safetensors file"),
        ('{"weight_map": {"a": 1}}', DataError, "not the name of a file"),
        ('{"weight_map": {"a": "gone.safetensors"}}', NoInputError, "no such file"),
        (
            '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
            DataError,
            "a is missing",
        ),
    ],
)
def test_a_damaged_index_is_named(
    sharded: Path, text: str, error: type[MmindexError], words: str
) -> None:
    sharded.write_text(text)
    with pytest.raises(error, match=words):
        load(f"local-dir:{sharded.parent}")


def test_a_damaged_shard_is_named(sharded: Path) -> None:
    shard = sharded.with_name("model-00002-of-00002.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"00002-of-00002\.safetensors: damaged"):
        load(f"local-dir:{sharded.parent}")


def test_shards_without_their_index_are_refused_with_the_command_that_joins_them(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Half a model is never loaded."""
    folder = pickled(tiny_model, tmp_path / "copy").parent
    write_shards(tiny_model, folder)
    with pytest.raises(UsageError, match="2 shards") as caught:
        load(f"local-dir:{folder}")
    _, *words = shlex.split(caught.value.hint.partition("folder: ")[2])
    subprocess.run([sys.executable, *words], cwd=folder, check=True)
    assert load(f"local-dir:{folder}").info.fingerprint


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
    """open_clip only warns and then returns wrong vectors."""
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


def test_loading_does_not_change_logging(tiny_model: TinyModel) -> None:
    import logging

    before = (list(logging.getLogger().handlers), logging.getLogger().disabled)
    load(tiny_model.name, "none")
    assert (list(logging.getLogger().handlers), logging.getLogger().disabled) == before
