"""The text side of open_clip's standard models without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from safetensors.torch import load_file, save_file

from mmindex.core.errors import DataError, ModelMismatchError
from mmindex.models.adapted import MAPS_FILE, Affine, Maps, config_text, parent_card, save_maps
from mmindex.models.encoder import good_rows
from mmindex.models.files import locate
from mmindex.models.fingerprint import describe, same_model
from mmindex.models.openclip import OpenClipEncoder
from mmindex.models.resolve import CONFIG_FILE, ModelRequest, resolve_model
from mmindex.models.text_side import TextSide, read_text_side
from mmindex.search.vectorize import open_vectorizer
from mmindex.store.manifest import EncoderInfo
from support.command import mmindex
from support.loading import TEXTS, load
from support.models import DIM, TinyModel, save_tiny_model, tiny_config

WEIGHTS = "open_clip_model.safetensors"

COLD = """
import sys
from mmindex_cli.app import main
sys.argv = ["mmindex", "query", "--store", sys.argv[1], "a red dog"]
try:
    main()
finally:
    print("torch" in sys.modules or "open_clip" in sys.modules, file=sys.stderr)
"""


def described(request: ModelRequest) -> EncoderInfo:
    return describe(request, locate(request), "fp32")


def read(request: ModelRequest) -> TextSide | None:
    return read_text_side(request, described(request))


def same(request: ModelRequest) -> TextSide:
    """Compare the text side with torch."""
    texts = read(request)
    assert texts is not None
    encoder = load(request.name, request.pretrained or None)
    found = texts.encode_texts(TEXTS)
    np.testing.assert_allclose(found, encoder.encode_texts(TEXTS), atol=1e-6)
    assert good_rows(found).all()
    assert texts.cut_texts == encoder.cut_texts >= 2
    assert texts.info == encoder.info
    return texts


def changed(**text_cfg: Any) -> dict[str, Any]:
    return tiny_config(text_cfg=text_cfg)


def top(**model_cfg: Any) -> dict[str, Any]:
    config = tiny_config()
    config["model_cfg"] |= model_cfg
    return config


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        top(custom_text=True),
        top(quick_gelu=True),
        top(custom_text=True, quick_gelu=True, init_logit_bias=-10),
        changed(pool_type="eos", eos_id=526),
        changed(heads=1, layers=1, context_length=40),
    ],
    ids=["clip", "custom", "quick", "custom quick", "eos", "small"],
)
def test_its_vectors_are_those_of_open_clip(tmp_path: Path, config: dict[str, Any]) -> None:
    same(resolve_model(save_tiny_model(tmp_path, config=config).name, None))


def test_the_embedded_model_has_one() -> None:
    same(resolve_model("embedded", None))


@pytest.mark.slow
def test_a_model_of_usual_size_has_one(tmp_path: Path) -> None:
    """With ViT-S-32-alt: the real vocabulary and context, ten layers."""
    request = resolve_model("ViT-S-32-alt", str(seeded("ViT-S-32-alt", tmp_path)))
    same(request)


def seeded(name: str, folder: Path) -> Path:
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(name, load_weights=False)
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def test_a_text_alone_and_in_a_batch_has_the_same_vector(tiny_model: TinyModel) -> None:
    texts = read(resolve_model(tiny_model.name, None))
    assert texts is not None
    together = texts.encode_texts(TEXTS)
    alone = np.concatenate([texts.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert texts.encode_texts([]).shape == (0, DIM)


def convert(weights: Path, dtype: torch.dtype) -> None:
    save_file({name: one.to(dtype) for name, one in load_file(weights).items()}, weights)


def test_weights_in_half_precision_are_read(tmp_path: Path) -> None:
    tiny = save_tiny_model(tmp_path)
    convert(tiny.folder / WEIGHTS, torch.float16)
    same(resolve_model(tiny.name, None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_type", "last"),
        ("no_causal_mask", True),
        ("embed_cls", True),
        ("ls_init_value", 0.1),
        ("proj_bias", True),
        ("mlp_ratio", 2.0),
        ("norm_kwargs", {"eps": 1e-3}),
        ("act_kwargs", {"approximate": "tanh"}),
        ("qk_norm", True),
        ("tokenizer_kwargs", {"bpe_path": "merges.txt.gz", "clean": "whitespace"}),
    ],
)
def test_other_text_towers_have_none(tmp_path: Path, name: str, value: Any) -> None:
    tiny = save_tiny_model(tmp_path, config=changed(**{name: value}))
    assert read(resolve_model(tiny.name, None)) is None


@pytest.mark.parametrize("change", ["bf16", "longer", "prefixed", "missing", "extra", "old"])
def test_weights_that_open_clip_converts_are_left_to_it(tmp_path: Path, change: str) -> None:
    tiny = save_tiny_model(tmp_path, config=top(custom_text=change == "old"))
    weights = tiny.folder / WEIGHTS
    tensors = load_file(weights)
    if change == "longer":  # open_clip interpolates these
        tensors["positional_embedding"] = torch.ones(30, 32)
    elif change == "prefixed":
        tensors = {f"module.{name}": one for name, one in tensors.items()}
    elif change == "missing":
        del tensors["ln_final.bias"]
    elif change == "extra":
        tensors["transformer.resblocks.2.ln_1.weight"] = torch.ones(32)
    elif change == "old":  # before custom towers existed
        tensors = {name.removeprefix("text."): one for name, one in tensors.items()}
    save_file(tensors, weights)
    if change == "bf16":
        convert(weights, torch.bfloat16)
    request = resolve_model(tiny.name, None)
    assert read(request) is None
    if change in ("bf16", "longer", "prefixed", "old"):
        assert load(request.name).encode_texts(TEXTS).shape == (len(TEXTS), DIM)
    else:
        with pytest.raises(ModelMismatchError, match="do not fit"):
            load(request.name)


def test_pickled_and_untrained_weights_are_left_to_torch(tmp_path: Path) -> None:
    tiny = save_tiny_model(tmp_path)
    assert read(resolve_model(tiny.name, "none")) is None
    torch.save(load_file(tiny.folder / WEIGHTS), tiny.folder / "open_clip_pytorch_model.bin")
    (tiny.folder / WEIGHTS).unlink()
    assert read(resolve_model(tiny.name, None, allow_pickle_weights=True)) is None


@pytest.mark.parametrize(
    "values",
    [
        {"heads": 3},
        {"heads": 0},
        {"heads": "2"},
        {"layers": None},
        {"vocab_size": True},
        {"width": 0},
    ],
)
def test_a_damaged_configuration_is_left_to_open_clip(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    tiny = save_tiny_model(tmp_path)
    (tiny.folder / CONFIG_FILE).write_text(json.dumps(changed(**values)))
    assert read(resolve_model(tiny.name, None)) is None


def test_damaged_weights_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    tiny = save_tiny_model(tmp_path)
    weights = tiny.folder / WEIGHTS
    weights.write_bytes(weights.read_bytes().replace(b'{"', b'{{"', 1))
    with pytest.raises(DataError, match=WEIGHTS):
        read(resolve_model(tiny.name, None))


def test_an_adapted_model_is_mapped_as_by_torch(tmp_path: Path, tiny_model: TinyModel) -> None:
    shutil.copytree(tiny_model.folder, tmp_path / "parent")
    parent = resolve_model("local-dir:" + str(tmp_path / "parent"), None)
    draw = np.random.default_rng(0)
    weight = np.eye(DIM, dtype=np.float32) + draw.normal(0, 0.1, (DIM, DIM)).astype(np.float32)
    affine = Affine(weight, draw.normal(0, 0.1, DIM).astype(np.float32))
    save_maps(Maps(affine, affine, 10.0), tmp_path / MAPS_FILE)
    card = parent_card(ModelRequest("local-dir:parent", ""), described(parent))
    (tmp_path / CONFIG_FILE).write_text(config_text(card))
    same(resolve_model(f"local-dir:{tmp_path}", None))


def test_an_architecture_is_recognised_by_the_description_of_the_index(tmp_path: Path) -> None:
    request = resolve_model("ViT-S-32-alt", str(seeded("ViT-S-32-alt", tmp_path)))
    files = locate(request)
    index = describe(request, files, "bf16")
    texts = read_text_side(request, index)
    assert texts is not None
    assert texts.info == describe(request, files, "fp32")
    assert same_model(texts.info, index)
    moved = structs.replace(index.inputs[0], path=str(tmp_path / "elsewhere" / WEIGHTS))
    assert read_text_side(request, structs.replace(index, inputs=(moved,))) is None
    convert(files.weights or tmp_path, torch.float16)
    assert read_text_side(request, index) is None  # open_clip's table is needed to describe it


def cold(store: Path) -> str:
    """Return the last line of a query's errors: whether it imported torch or open_clip."""
    run = subprocess.run(
        [sys.executable, "-c", COLD, str(store)], capture_output=True, text=True, check=True
    )
    assert "images for a red dog" in run.stdout
    return run.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of the embedded model."""
    store = tmp_path_factory.mktemp("scenes")
    mmindex("build", "--store", str(store), "--source", "scenes:30", "--model", "embedded")
    return store


def test_a_query_from_the_shell_does_not_import_torch(scenes: Path) -> None:
    assert cold(scenes) == "False"


@pytest.mark.slow
def test_a_query_with_an_architecture_does_not_import_open_clip(tmp_path: Path) -> None:
    weights = str(seeded("ViT-S-32-alt", tmp_path))
    store = tmp_path / "store"
    named = ("--model", "ViT-S-32-alt", "--pretrained", weights)
    mmindex("build", "--store", str(store), "--source", "scenes:4", *named)
    assert cold(store) == "False"


def test_many_texts_are_encoded_by_the_whole_model(scenes: Path) -> None:
    texts = [f"{number} red boats" for number in range(257)]
    with open_vectorizer(scenes, "cpu") as vectorizer:
        few = vectorizer.texts(texts[:256])
        assert isinstance(vectorizer.text_encoder, TextSide)
        many = vectorizer.texts(texts)
        assert isinstance(vectorizer.text_encoder, OpenClipEncoder)
    np.testing.assert_allclose(many[:256], few, atol=1e-6)


def test_once_the_whole_model_is_loaded_it_encodes_texts(scenes: Path) -> None:
    with open_vectorizer(scenes, "cpu") as vectorizer:
        assert isinstance(vectorizer.text_encoder, TextSide)
        before = vectorizer.texts(TEXTS[:4])
        assert vectorizer.text_encoder is not vectorizer.encoder
        assert vectorizer.text_encoder is vectorizer.encoder
        np.testing.assert_allclose(vectorizer.texts(TEXTS[:4]), before, atol=1e-6)
