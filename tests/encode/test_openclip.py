"""The real open_clip model behind the protocol: parity, trimming, memory, damaged weights."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from PIL import Image

from mmindex.encode import openclip, text
from mmindex.encode.devices import DeviceGroup, Placement
from mmindex.encode.encoder import Float32, good_rows
from mmindex.encode.files import ModelFiles, TokenizerSpec, locate
from mmindex.encode.fingerprint import describe
from mmindex.encode.model import ModelRequest, resolve_model
from mmindex.encode.openclip import OpenClipEncoder, load_encoder
from mmindex.encode.preprocess import Pixels, to_pixels
from mmindex.encode.trim import TextTower, spans
from mmindex.errors import (
    BusyError,
    DataError,
    InternalError,
    ModelMismatchError,
)
from support.models import DIM, IMAGE_SIZE, TinyModel, save_tiny_model, tiny_config
from support.pictures import draw

CPU = Placement(("cpu",), "fp32")
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


@pytest.fixture(scope="module")
def encoder(tiny_model: TinyModel) -> OpenClipEncoder:
    return load(tiny_model.name)


def pixels_of(encoder: OpenClipEncoder, count: int) -> Pixels:
    return np.stack([to_pixels(draw(number), encoder.preprocess) for number in range(count)])


def unit(features: torch.Tensor) -> Float32:
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def cosines(one: Float32, other: Float32) -> Float32:
    return np.einsum("ij,ij->i", one, other)


def test_image_vectors_are_open_clips(tiny_model: TinyModel, encoder: OpenClipEncoder) -> None:
    """From the same file through open_clip's own preprocessing and model."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(tiny_model.name)
    model.eval()
    images = [draw(number, (640 - number, 480)) for number in range(6)]
    with torch.inference_mode():
        expected = unit(model.encode_image(torch.stack([transform(image) for image in images])))
    pixels = np.stack([to_pixels(image, encoder.preprocess) for image in images])
    actual = encoder.encode_images(pixels)
    assert actual.shape == (6, DIM)
    assert actual.dtype == np.float32
    assert cosines(actual, expected).min() > 0.999999
    assert good_rows(actual).all()
    assert cosines(actual[:1], actual[1:2]).max() < 0.999  # pictures differ, or this shows nothing


def test_text_vectors_are_open_clips_in_the_order_given(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(tiny_model.name)
    model.eval()
    tokenizer = open_clip.SimpleTokenizer(
        bpe_path=str(tiny_model.folder / "merges.txt.gz"), context_length=24
    )
    texts = TEXTS[:-1]
    with torch.inference_mode():
        expected = unit(model.encode_text(tokenizer(texts)))
    assert cosines(encoder.encode_texts(texts), expected).min() > 0.99999
    assert encoder.encode_texts([]).shape == (0, DIM)


def tower_config(custom: bool, **text_cfg: Any) -> dict[str, Any]:
    config = tiny_config(text_cfg=text_cfg)
    if custom:
        config["model_cfg"]["custom_text"] = True
    return config


@pytest.mark.parametrize(
    ("custom", "text_cfg", "trimmed"),
    [
        (False, {}, True),
        (True, {}, True),
        (True, {"pool_type": "eos", "eos_id": 526}, True),
        (False, {"pool_type": "eos", "eos_id": 526}, True),
        (True, {"pool_type": "last"}, False),
        (True, {"pool_type": "first"}, False),
        (True, {"no_causal_mask": True}, False),
        (True, {"embed_cls": True}, False),
    ],
)
def test_only_causal_towers_are_trimmed_and_their_vectors_stay_the_same(
    tmp_path: Path, custom: bool, text_cfg: dict[str, Any], trimmed: bool
) -> None:
    config = tower_config(custom, **text_cfg)
    tiny = save_tiny_model(tmp_path, config=config)
    encoder = load(tiny.name)
    tower = TextTower(encoder.model)
    tokens = encoder.tokenize(TEXTS[:8])
    lengths = tower.lengths(tokens)
    assert (int(lengths.min()) < tokens.shape[1]) is trimmed
    with torch.inference_mode():
        whole = unit(encoder.model.encode_text(tokens))
        for row in range(len(tokens)):
            part = unit(tower.encode(tokens[row : row + 1], int(lengths[row])))
            assert cosines(part, whole[row : row + 1]).min() > 0.99999


def test_a_trimmed_batch_never_reads_past_its_longest_text(
    encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = TextTower.encode

    def spy(self: TextTower, tokens: torch.Tensor, length: int) -> torch.Tensor:
        seen.append(length)
        return original(self, tokens, length)

    monkeypatch.setattr(TextTower, "encode", spy)
    monkeypatch.setattr(encoder, "_text_limit", 4)
    encoder.encode_texts(["red"] * 4 + ["the red dog on the blue cat"] * 4 + ["a"] * 4)
    assert seen[0] < seen[-1] < 24
    assert seen == sorted(seen)


def test_a_full_size_clip_text_tower_is_trimmed_without_changing_vectors() -> None:
    """ViT-B-32's real text tower: 12 layers, 77 positions, fresh weights."""
    from open_clip import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(
            512,
            {"layers": 1, "width": 64, "head_width": 32, "patch_size": 32, "image_size": 32},
            {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
        ).eval()
    spec = TokenizerSpec("simple", "", locate_default_merges(), 77, {})
    tokens = text.make_tokenizer(spec)(["a dog", "two cats sitting on a red sofa", "一只猫"])
    tower = TextTower(model)
    with torch.inference_mode():
        whole = unit(model.encode_text(tokens))
        part = unit(tower.encode(tokens, int(tower.lengths(tokens).max())))
    assert cosines(part, whole).min() > 0.99999


def locate_default_merges() -> Path:
    merges = locate(ModelRequest("ViT-B-32", "none")).tokenizer.merges
    assert merges is not None
    return merges


def test_an_endless_word_is_cut_before_it_is_tokenised(encoder: OpenClipEncoder) -> None:
    long = "x" * 1_000_000
    vectors = encoder.encode_texts([long, long[: text.MAX_CHARACTERS]])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


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


def test_an_untrained_model_is_seeded_and_says_so(tiny_model: TinyModel) -> None:
    with structlog.testing.capture_logs() as logs:
        one = load(tiny_model.name, "none")
    assert any("UNTRAINED" in entry["event"] for entry in logs)
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


def test_bfloat16_gives_nearly_the_same_vectors(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    coarse = load(tiny_model.name, precision="bf16")
    pixels = pixels_of(encoder, 4)
    assert cosines(coarse.encode_images(pixels), encoder.encode_images(pixels)).min() > 0.99
    assert cosines(coarse.encode_texts(TEXTS), encoder.encode_texts(TEXTS)).min() > 0.99


def test_when_memory_runs_out_the_batch_is_halved_and_stays_so(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(tiny_model.name)
    expected = encoder.encode_images(pixels_of(encoder, 11))
    sizes: list[int] = []
    original = type(encoder.model).encode_image

    def scarce(self: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        features: torch.Tensor = original(self, images)
        return features

    monkeypatch.setattr(type(encoder.model), "encode_image", scarce)
    with structlog.testing.capture_logs() as logs:
        actual = encoder.encode_images(pixels_of(encoder, 11))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert [entry["now"] for entry in logs] == [5, 2]
    sizes.clear()
    encoder.encode_images(pixels_of(encoder, 4))
    assert sizes == [2, 2]


def test_no_memory_for_even_one_is_an_error_with_advice(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(tiny_model.name)

    def none_left(_self: torch.nn.Module, _images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(encoder.model), "encode_image", none_left)
    with pytest.raises(BusyError) as caught:
        encoder.encode_images(pixels_of(encoder, 4))
    assert "--device cpu" in caught.value.hint


def test_other_errors_of_the_model_are_not_taken_for_memory(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(tiny_model.name)

    def broken(_self: torch.nn.Module, _images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(encoder.model), "encode_image", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode_images(pixels_of(encoder, 2))


def test_pixels_of_another_size_are_refused(encoder: OpenClipEncoder) -> None:
    with pytest.raises(InternalError):
        encoder.encode_images(np.zeros((1, 8, 8, 3), dtype=np.uint8))


def test_a_group_of_devices_gives_the_vectors_of_one(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    request = resolve_model(tiny_model.name, None)
    group = load_encoder(request, Placement(("cpu", "cpu"), "fp32"))
    assert isinstance(group, DeviceGroup)
    try:
        assert group.info == encoder.info
        pixels = pixels_of(encoder, 5)
        np.testing.assert_allclose(
            group.encode_images(pixels), encoder.encode_images(pixels), atol=1e-5
        )
        np.testing.assert_allclose(
            group.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=1e-5
        )
        assert group.encode_texts(["one"]).shape == (1, DIM)
    finally:
        group.close()


def test_weights_trained_with_quick_gelu_are_computed_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """open_clip only warns, and gives wrong vectors."""
    from mmindex.encode import files as files_module

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


def test_a_picture_of_one_colour_is_encoded_like_any_other(encoder: OpenClipEncoder) -> None:
    flat = to_pixels(Image.new("RGB", (50, 50)), encoder.preprocess)
    assert good_rows(encoder.encode_images(flat[None])).all()


def test_texts_of_one_length_share_a_batch_of_bounded_size() -> None:
    lengths = [1, 1, 1, 1, 4, 4, 5, 30]
    batches = [lengths[span] for span in spans(lengths, 10)]
    assert batches == [[1, 1, 1, 1], [4, 4], [5], [30]]
    assert [length for batch in batches for length in batch] == lengths
    assert list(spans([], 10)) == []
