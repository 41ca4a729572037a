"""Adapted models on disk and in torch: what is refused, and what is unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmindex.core.errors import (
    DataError,
    MmindexError,
    ModelMismatchError,
    NoInputError,
    UsageError,
)
from mmindex.core.modality import Modality
from mmindex.insight.explain import explain
from mmindex.models.adapted import (
    MAPS_FILE,
    Affine,
    Maps,
    config_text,
    load_maps,
    parent_card,
    save_maps,
)
from mmindex.models.fingerprint import fingerprint_of, same_model
from mmindex.models.heads import noise_covariance
from mmindex.models.resolve import CONFIG_FILE, NO_WEIGHTS, ModelRequest, resolve_model
from mmindex.train.folder import load_trainable
from support.loading import cosines, load
from support.models import DIM, IMAGE_SIZE, TinyModel

RNG = np.random.default_rng(0)


def affine(seed: int, dim: int = DIM) -> Affine:
    rng = np.random.default_rng(seed)
    weight = np.eye(dim) + 0.3 * rng.normal(size=(dim, dim))
    return Affine(weight.astype(np.float32), (0.1 * rng.normal(size=dim)).astype(np.float32))


MAPS = Maps(affine(1), affine(2), 20.0)


def write_adapted(folder: Path, parent: ModelRequest, stored: ModelRequest) -> Path:
    folder.mkdir(parents=True)
    info = fingerprint_of(parent, "fp32")
    (folder / CONFIG_FILE).write_text(config_text(parent_card(stored, info)))
    save_maps(MAPS, folder / MAPS_FILE)
    return folder


@pytest.fixture
def adapted(tmp_path: Path, tiny_model: TinyModel) -> Path:
    """The tiny model, copied into the folder of the maps."""
    folder = tmp_path / "adapted"
    shutil.copytree(tiny_model.folder, tmp_path / "copy")
    write_adapted(
        folder, resolve_model(tiny_model.name, None), ModelRequest("local-dir:parent", "")
    )
    (tmp_path / "copy").rename(folder / "parent")
    return folder


def request(folder: Path) -> ModelRequest:
    return resolve_model(f"local-dir:{folder}", None)


def change_card(folder: Path, **values: Any) -> None:
    whole = json.loads((folder / CONFIG_FILE).read_text())
    whole["model_cfg"]["parent"] |= values
    (folder / CONFIG_FILE).write_text(json.dumps(whole))


def test_both_towers_are_those_of_the_parent_followed_by_the_maps(
    adapted: Path, tiny_model: TinyModel
):
    parent, model = load(tiny_model.name), load(f"local-dir:{adapted}")
    pixels = RNG.integers(0, 256, (4, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    texts = ["the red dog", "a blue cat", "", "一只红色的猫"]
    seen, said = MAPS.image(parent.encode_images(pixels)), MAPS.text(parent.encode_texts(texts))
    assert cosines(model.encode_images(pixels), seen).min() > 0.99999
    assert cosines(model.encode_texts(texts), said).min() > 0.99999
    assert abs(model.logit_scale - 20.0) < 1e-4


def test_stored_vectors_map_to_what_the_model_gives(adapted: Path, tiny_model: TinyModel):
    parent, model = load(tiny_model.name), load(f"local-dir:{adapted}")
    pixels = RNG.integers(0, 256, (32, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    stored = parent.encode_images(pixels).astype(np.float16)
    assert cosines(MAPS.image(stored), model.encode_images(pixels)).min() > 0.9999


def test_the_fingerprint_names_the_parent_and_changes_with_the_maps(
    adapted: Path, tiny_model: TinyModel
):
    parent = fingerprint_of(resolve_model(tiny_model.name, None), "fp32")
    one = fingerprint_of(request(adapted), "fp32")
    assert one.parent == parent.fingerprint
    assert parent.parent == ""
    assert one.fingerprint != parent.fingerprint
    assert not same_model(one, parent)
    save_maps(Maps(MAPS.text, MAPS.image, 20.0), adapted / MAPS_FILE)
    other = fingerprint_of(request(adapted), "fp32")
    assert other.fingerprint != one.fingerprint
    assert not same_model(one, other)


def test_an_unchanged_model_is_recognised_by_its_files(adapted: Path):
    info = fingerprint_of(request(adapted), "fp32")
    assert fingerprint_of(request(adapted), "fp32", info) is info
    names = {Path(known.path).name for known in info.inputs}
    assert {CONFIG_FILE, MAPS_FILE, "open_clip_model.safetensors", "merges.txt.gz"} <= names


def test_a_parent_that_changed_is_refused(adapted: Path):
    weights = adapted / "parent" / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelMismatchError, match="its weights has changed"):
        fingerprint_of(request(adapted), "fp32")


def test_a_missing_parent_is_named(adapted: Path):
    shutil.rmtree(adapted / "parent")
    with pytest.raises(NoInputError, match="parent"):
        fingerprint_of(request(adapted), "fp32")


@pytest.mark.parametrize(
    ("model", "pretrained"),
    [
        ("local-dir:/etc", ""),
        ("local-dir:../elsewhere", ""),
        ("local-dir:parent/parent", ""),
        ("ViT-B-32", "/etc/passwd"),
        ("ViT-B-32", "parent/../../x.safetensors"),
        ("ViT-B-32", "parent/"),
    ],
)
def test_a_card_cannot_point_outside_its_folder(adapted: Path, model: str, pretrained: str):
    change_card(adapted, model=model, pretrained=pretrained)
    with pytest.raises(DataError, match="neither known by its name nor in the folder"):
        fingerprint_of(request(adapted), "fp32")


@pytest.mark.parametrize("values", [{"model": None}, {"weights": 3}, {"pretrained": ["x"]}])
def test_a_card_with_other_values_is_damaged(adapted: Path, values: dict[str, Any]):
    change_card(adapted, **values)
    with pytest.raises(DataError, match="does not name the parent"):
        fingerprint_of(request(adapted), "fp32")


def test_a_folder_that_is_its_own_parent_ends_in_an_error(adapted: Path):
    shutil.rmtree(adapted / "parent")
    (adapted / "parent").symlink_to(adapted, target_is_directory=True)
    with pytest.raises(MmindexError):
        fingerprint_of(request(adapted), "fp32")


def test_maps_are_read_back_exactly_and_equal_maps_have_equal_bytes(tmp_path: Path):
    save_maps(MAPS, tmp_path / "one")
    save_maps(MAPS, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = load_maps(tmp_path / "one", DIM)
    assert np.array_equal(found.of(Modality.IMAGE).weight, MAPS.image.weight)
    assert np.array_equal(found.of(Modality.TEXT).bias, MAPS.text.bias)


def test_damaged_maps_are_refused(tmp_path: Path):
    path = tmp_path / MAPS_FILE
    save_maps(MAPS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(DataError, match="damaged"):
        load_maps(path, DIM)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"image\.weight is not float32 \(12, 12\)"):
        load_maps(path, 12)
    broken = Affine(MAPS.image.weight * np.float32(np.nan), MAPS.image.bias)
    save_maps(Maps(broken, MAPS.text, 20.0), path)
    with pytest.raises(DataError, match=r"image\.weight is not finite"):
        load_maps(path, DIM)


def test_there_is_no_untrained_form_and_train_refuses(adapted: Path):
    with pytest.raises(UsageError, match="no untrained form"):
        fingerprint_of(resolve_model(f"local-dir:{adapted}", NO_WEIGHTS), "fp32")
    with pytest.raises(UsageError, match="train its parent"):
        load_trainable(request(adapted), 0)


def test_an_adapted_model_explains_by_gradients(adapted: Path):
    model = load(f"local-dir:{adapted}")
    pixels = RNG.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    found = explain(model, pixels, model.encode_texts(["the red dog"])[0])
    assert found.method == "gradient"
    assert found.heat.shape == (IMAGE_SIZE // 8, IMAGE_SIZE // 8)


def test_noise_of_features_is_that_of_the_last_layer(tiny_model: TinyModel):
    network = load(tiny_model.name).model
    state = network.state_dict()
    gain = state["visual.ln_post.weight"].double()
    weight = state["visual.proj"].double().T * gain
    assert torch.allclose(noise_covariance(network, Modality.IMAGE, DIM), weight @ weight.T)
    text = state["text_projection"].double().T * state["ln_final.weight"].double()
    assert torch.allclose(noise_covariance(network, Modality.TEXT, DIM), text @ text.T)


def test_noise_goes_through_the_maps_of_an_adapted_parent(adapted: Path, tiny_model: TinyModel):
    inner = noise_covariance(load(tiny_model.name).model, Modality.TEXT, DIM)
    outer = noise_covariance(load(f"local-dir:{adapted}").model, Modality.TEXT, DIM)
    turn = torch.from_numpy(MAPS.text.weight).double()
    assert torch.allclose(outer, turn @ inner @ turn.T)


def test_the_photos_network_has_both_layers_and_an_unknown_one_none():
    network = load("photos").model
    for side in Modality:
        found = noise_covariance(network, side, 384)
        assert found is not None
        assert found.shape == (384, 384)
    assert noise_covariance(torch.nn.Linear(2, 2), Modality.IMAGE, 2) is None
