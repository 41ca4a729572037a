"""Texts are encoded only up to their length, and their vectors are unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmindex.models import tokenizer as text
from mmindex.models.files import TokenizerSpec, locate
from mmindex.models.openclip import OpenClipEncoder
from mmindex.models.resolve import ModelRequest
from mmindex.models.trim import TextTower, spans
from support.loading import TEXTS, cosines, load, unit
from support.models import save_tiny_model, tiny_config


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
    tokens = torch.from_numpy(encoder.tokenize(TEXTS[:8]))
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
    tokens = torch.from_numpy(
        text.make_tokenizer(spec)(["a dog", "two cats sitting on a red sofa", "一只猫"])
    )
    tower = TextTower(model)
    with torch.inference_mode():
        whole = unit(model.encode_text(tokens))
        part = unit(tower.encode(tokens, int(tower.lengths(tokens).max())))
    assert cosines(part, whole).min() > 0.99999


def locate_default_merges() -> Path:
    merges = locate(ModelRequest("ViT-B-32", "none")).tokenizer.merges
    assert merges is not None
    return merges


def test_a_very_long_word_is_cut_before_it_is_tokenised(encoder: OpenClipEncoder) -> None:
    long = "x" * 1_000_000
    vectors = encoder.encode_texts([long, long[: text.MAX_CHARACTERS]])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_texts_of_one_length_share_a_batch_of_bounded_size() -> None:
    lengths = [1, 1, 1, 1, 4, 4, 5, 30]
    batches = [lengths[span] for span in spans(lengths, 10)]
    assert batches == [[1, 1, 1, 1], [4, 4], [5], [30]]
    assert [length for batch in batches for length in batch] == lengths
    assert list(spans([], 10)) == []
