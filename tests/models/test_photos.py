"""The embedded model for photographs: its network, its files, its answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmindex.core.errors import DataError, ModelMismatchError, UsageError
from mmindex.core.resources import data_dir
from mmindex.insight.explain import explain
from mmindex.models.devices import place
from mmindex.models.encoder import Encoder, good_rows
from mmindex.models.files import locate
from mmindex.models.openclip import load_encoder
from mmindex.models.packing import PackedEmbedding, pack_rows, packed, unpacked
from mmindex.models.photos import ImageTower, PhotosNetwork, Stage, load_network
from mmindex.models.preprocess import Pixels
from mmindex.models.resolve import LOCAL_DIR, resolve_model
from mmindex.train.folder import load_trainable
from support.command import mmindex, mmindex_json

FOLDER = data_dir() / "models" / "photos-clip"
CONFIG = "open_clip_config.json"
# EfficientNet-Lite2 as timm knows it.
STAGES = [
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 3),
    Stage(6, 5, 2, 48, 3),
    Stage(6, 3, 2, 88, 4),
    Stage(6, 5, 1, 120, 4),
    Stage(6, 5, 2, 208, 5),
    Stage(6, 3, 1, 352, 1),
]

COLD = """
import sys
from mmindex.models.devices import place
from mmindex.models.resolve import resolve_model
from mmindex.models.openclip import load_encoder
load_encoder(resolve_model("photos", None), place("cpu")).encode_texts(["a dog"])
packages = {name.partition(".")[0] for name in sys.modules}
print(sorted(packages & {"open_clip", "timm", "transformers", "tokenizers", "torchvision"}))
print("torch._dynamo" in sys.modules)
"""


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    threads = torch.get_num_threads()
    loaded = load_encoder(resolve_model("photos", None), place("cpu"))
    torch.set_num_threads(1)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (3, 260, 260, 3), dtype=np.uint8)


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24 << 20
    assert {path.suffix for path in files} == {".safetensors", ".json", ".gz", ".md", ""}
    assert (FOLDER / "NOTICE").is_file()


def test_the_image_tower_is_timm_s_efficientnet_lite2() -> None:
    """With batch normalisation that has random statistics and is folded into the weights."""
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = timm.create_model("tf_efficientnet_lite2", num_classes=0)
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(std=0.1)
        images = torch.randn(2, 3, 260, 260)
    ours = ImageTower(32, STAGES, 1_280)
    layers = [m for m in ours.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    kernels = [m for m in theirs.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for layer, kernel, norm in zip(layers, kernels, norms, strict=True):
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        folded = kernel.weight * factor.view(-1, 1, 1, 1)
        layer.weight.data = folded.view(layer.weight.shape)
        layer.bias = torch.nn.Parameter(norm.bias - norm.running_mean * factor)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=1e-3, atol=1e-4)


def test_the_text_tower_is_transformers_bert(encoder: Encoder) -> None:
    transformers = pytest.importorskip("transformers")
    files = locate(resolve_model("photos", None))
    assert files.weights is not None
    network = load_network(files.config, files.weights).eval()
    tower, sizes = network.text, files.config["text_cfg"]
    theirs = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            intermediate_size=sizes["inner"],
            max_position_embeddings=sizes["context_length"],
        ),
        add_pooling_layer=False,
    ).eval()
    embeddings = theirs.embeddings
    with torch.no_grad():
        embeddings.word_embeddings.weight.copy_(tower.words(torch.arange(sizes["vocab_size"])))
        embeddings.position_embeddings.weight.copy_(tower.places)
        embeddings.token_type_embeddings.weight.zero_()
        embeddings.LayerNorm.load_state_dict(tower.norm.state_dict())
        for ours, other in zip(tower.layers, theirs.encoder.layer, strict=True):
            attention = other.attention
            heads = (attention.self.query, attention.self.key, attention.self.value)
            for part, linear in enumerate(heads):
                rows = slice(part * sizes["width"], (part + 1) * sizes["width"])
                linear.weight.copy_(ours.attend.weight[rows])
                linear.bias.copy_(ours.attend.bias[rows])
            attention.output.dense.load_state_dict(ours.attended.state_dict())
            attention.output.LayerNorm.load_state_dict(ours.attended_norm.state_dict())
            other.intermediate.dense.load_state_dict(ours.widen.state_dict())
            other.output.dense.load_state_dict(ours.narrow.state_dict())
            other.output.LayerNorm.load_state_dict(ours.norm.state_dict())
        tokens = encoder.tokenize(["a dog on the beach", "two"])  # type: ignore[attr-defined]
        real = tokens != 0
        states = theirs(tokens, attention_mask=real.long()).last_hidden_state
        means = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        torch.testing.assert_close(tower(tokens), means, rtol=1e-4, atol=1e-5)


def test_a_packed_table_gives_its_rows_back() -> None:
    table = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    embedding = PackedEmbedding(50, 16)
    embedding.packed, scale = pack_rows(table)
    embedding.scale = scale.float()
    numbers = torch.tensor([[3, 49], [0, 3]])
    step = table[numbers].abs().amax(dim=-1, keepdim=True) / 31
    assert ((embedding(numbers) - table[numbers]).abs() <= 0.51 * step).all()


def test_stored_weights_are_within_half_a_step_and_stable() -> None:
    state = {"a.weight": torch.randn(7, 9), "b": torch.randn(5), "n": torch.arange(3)}
    once = unpacked(packed(state))
    step = state["a.weight"].abs().amax(dim=1, keepdim=True) / 127
    assert ((once["a.weight"] - state["a.weight"]).abs() <= 0.51 * step).all()
    assert torch.equal(once["n"], state["n"])
    again = unpacked(packed(once))
    torch.testing.assert_close(again["a.weight"], once["a.weight"], rtol=1e-3, atol=1e-4)


def test_a_batch_gives_what_its_items_give_and_the_same_twice(
    encoder: Encoder, pixels: Pixels
) -> None:
    texts = ["a dog", "two people on bicycles ride along the shore at sunset", "", "🐶", "x " * 500]
    together = encoder.encode_texts(texts)
    assert good_rows(together).all()
    assert np.array_equal(together, encoder.encode_texts(texts))
    for row, text in zip(together, texts, strict=True):
        assert row @ encoder.encode_texts([text])[0] > 0.99999
    images = encoder.encode_images(pixels)
    assert good_rows(images).all()
    assert np.array_equal(images, encoder.encode_images(pixels))
    assert (images * encoder.encode_images(pixels[1:2])).sum(axis=1)[1] > 0.99999


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_explain_works_both_ways(encoder: Encoder, pixels: Pixels, method: str) -> None:
    text = encoder.encode_texts(["a dog"])[0]
    found = explain(encoder, pixels[0], text, method)  # type: ignore[arg-type]
    assert found.method == method
    assert np.isfinite(found.heat).all()
    assert found.heat.max() == 1


def test_a_cold_start_imports_none_of_the_heavy_packages() -> None:
    done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "False"]


def test_a_copied_folder_is_the_same_model_and_its_weights_must_match(
    encoder: Encoder, tmp_path: Path
) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    same = load_encoder(resolve_model(f"{LOCAL_DIR}{copy}", None), place("cpu"))
    assert same.info.fingerprint == encoder.info.fingerprint
    config = json.loads((copy / CONFIG).read_text())
    config["model_cfg"]["text_cfg"]["context_length"] = 64
    (copy / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelMismatchError, match="places"):
        load_encoder(resolve_model(f"{LOCAL_DIR}{copy}", None), place("cpu"))


def test_damaged_files_are_errors_that_name_them(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    request = resolve_model(f"{LOCAL_DIR}{copy}", None)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(DataError, match=r"model\.safetensors: damaged"):
        load_encoder(request, place("cpu"))
    config = json.loads((copy / CONFIG).read_text())
    del config["model_cfg"]["vision_cfg"]["stem"]
    with pytest.raises(DataError, match="stem"):
        load_network(config["model_cfg"], weights)
    (copy / "vocab.txt.gz").unlink()
    with pytest.raises(DataError, match=r"vocab\.txt\.gz is missing"):
        locate(request)


def test_it_has_no_untrained_form_and_is_not_trained_on() -> None:
    with pytest.raises(UsageError, match="without weights"):
        locate(resolve_model("photos", "none"))
    with pytest.raises(UsageError, match="train"):
        load_trainable(resolve_model("photos", None), 0)


def test_recall_on_real_photographs_is_what_the_card_says(
    real_photos: Path, tmp_path: Path
) -> None:
    """159 photos of COCO, to which the model was not fitted."""
    store = tmp_path / "store"
    source = f"coco:{real_photos / 'coco_val2017'}"
    mmindex("build", "--store", store, "--source", source, "--model", "photos")
    (figures,) = mmindex_json("evaluate", "--store", store)
    to_image, to_text = figures["text_to_image"], figures["image_to_text"]
    # Measured: 41.5, 90.1 and 84.9. The limits allow for the arithmetic of other processors.
    assert to_image["r@1"] >= 38
    assert to_image["r@10"] >= 86
    assert to_text["r@10"] >= 84


def test_the_network_of_the_folder_has_the_size_in_its_card() -> None:
    config = json.loads((FOLDER / CONFIG).read_text())["model_cfg"]
    network = PhotosNetwork(config)
    numbers = sum(p.numel() for p in network.parameters())
    table = network.text.words.packed.numel() * 4 // 3
    assert f"{numbers + table:,} parameters" in (FOLDER / "README.md").read_text()
