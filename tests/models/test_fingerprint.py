"""Equal fingerprints mean interchangeable vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmindex.core.errors import ModelMismatchError
from mmindex.models import fingerprint
from mmindex.models.fingerprint import fingerprint_of, require_same_model, same_model
from mmindex.models.resolve import resolve_model
from mmindex.store.manifest import EncoderInfo
from support.models import TinyModel, fake_info, tiny_config, write_merges


def save(folder: Path, weights: bytes = b"weights", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(tiny_config(**changes)))
    (folder / "open_clip_model.safetensors").write_bytes(weights)
    write_merges(folder / "merges.txt.gz")
    return folder


def info_of(
    folder: Path, precision: str = "fp32", parent: EncoderInfo | None = None
) -> EncoderInfo:
    return fingerprint_of(resolve_model(f"local-dir:{folder}", None), precision, parent)


def test_the_same_model_in_another_place_has_the_same_fingerprint(tmp_path: Path) -> None:
    one, two = save(tmp_path / "a"), save(tmp_path / "b" / "c")
    # Another spelling of the same configuration.
    text = json.dumps(tiny_config(), indent=4, sort_keys=True)
    (two / "open_clip_config.json").write_text(text)
    (two / "merges.txt.gz").rename(two / "words.gz")
    config = json.loads(text)
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(two / "words.gz")
    (two / "open_clip_config.json").write_text(json.dumps(config))
    assert info_of(one).fingerprint == info_of(two).fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": b"others"},
        {"preprocess_cfg": {"mean": [0.4, 0.4, 0.4]}},
        {"preprocess_cfg": {"resize_mode": "squash"}},
        {"preprocess_cfg": {"interpolation": "bilinear"}},
        {"vision_cfg": {"layers": 3}},
        {"text_cfg": {"context_length": 30}},
        {"text_cfg": {"tokenizer_kwargs": {"bpe_path": "merges.txt.gz", "clean": "whitespace"}}},
    ],
)
def test_what_changes_vectors_changes_the_fingerprint(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    one, two = info_of(save(tmp_path / "a")), info_of(save(tmp_path / "b", **changes))
    assert one.fingerprint != two.fingerprint
    assert not same_model(one, two)
    with pytest.raises(ModelMismatchError) as caught:
        require_same_model(one, two)
    assert one.fingerprint[:12] in caught.value.message
    assert two.fingerprint[:12] in caught.value.message


def test_another_tokenizer_is_another_model(tmp_path: Path) -> None:
    one, two = save(tmp_path / "a"), save(tmp_path / "b")
    (two / "merges.txt.gz").write_bytes(b"other merges")
    assert info_of(one).fingerprint != info_of(two).fingerprint


def test_precision_changes_the_fingerprint_but_queries_can_use_another_one(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    one, two = info_of(folder), info_of(folder, "bf16")
    assert one.fingerprint != two.fingerprint
    require_same_model(one, two)


def test_an_untrained_model_is_marked(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    info = fingerprint_of(resolve_model(f"local-dir:{folder}", "none"), "fp32")
    assert not info.trained
    assert "torch" in info.package
    assert info.fingerprint != info_of(folder).fingerprint


def test_unchanged_files_return_the_known_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "a")
    known = info_of(folder)
    monkeypatch.setattr(fingerprint, "describe", None)
    assert info_of(folder, parent=known) is known


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    known = info_of(folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"trained further")
    again = info_of(folder, parent=known)
    assert again.fingerprint != known.fingerprint
    assert again.weights != known.weights


def test_a_changed_package_is_examined(tmp_path: Path) -> None:
    folder = save(tmp_path / "a")
    known = info_of(folder)
    older = msgspec.structs.replace(known, package="open_clip_torch 1.0 timm 0.5")
    assert info_of(folder, parent=older) == known


def test_a_tags_known_weights_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second build of the default model neither asks the hub nor imports open_clip."""
    request = resolve_model("ViT-B-32", "laion2b_s34b_b79k")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    known = msgspec.structs.replace(
        fake_info(),
        model=request.name,
        pretrained=request.pretrained,
        package=fingerprint.package_versions(trained=True),
        inputs=fingerprint.input_files([weights]),
    )
    monkeypatch.setattr(fingerprint, "locate", None)
    assert fingerprint_of(request, "fp32", known) is known


def test_a_missing_file_causes_a_full_check(tmp_path: Path, tiny_model: TinyModel) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model.folder, copy)
    known = info_of(copy)
    assert [Path(file.path).name for file in known.inputs] == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "merges.txt.gz",
    ]
    (copy / "open_clip_model.safetensors").rename(copy / "model.safetensors")
    assert info_of(copy, parent=known).fingerprint == known.fingerprint
