"""The requested model, and what is refused before any work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmindex.core import resources
from mmindex.core.errors import DataError, MmindexError, NoInputError, UsageError
from mmindex.core.model_names import DEFAULT_MODEL, DEFAULT_PRETRAINED
from mmindex.models.devices import Placement, place
from mmindex.models.files import locate
from mmindex.models.resolve import architectures, resolve_model
from support.models import TinyModel, tiny_config, write_merges


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with fake weights, which resolution does not read."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "open_clip_config.json").write_text(json.dumps(tiny_config()))
    (path / "open_clip_model.safetensors").write_bytes(b"weights")
    write_merges(path / "merges.txt.gz")
    return path


def test_the_default_comes_from_the_hub_and_for_scenes_alone_it_is_the_embedded_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = resolve_model(None, None)
    assert (request.name, request.pretrained) == (DEFAULT_MODEL, DEFAULT_PRETRAINED)
    assert resolve_model(DEFAULT_MODEL, None) == request
    shutil.copytree(folder, tmp_path / "data" / "models" / "scenes-clip")
    monkeypatch.setattr(resources, "data_dir", lambda: tmp_path / "data")
    assert resolve_model(None, None, specs=["scenes:5"]).name == "embedded"
    assert resolve_model("embedded", None).folder == tmp_path / "data" / "models" / "scenes-clip"
    assert resolve_model(None, "none", specs=["scenes:5"]).name == DEFAULT_MODEL


def test_an_install_without_the_embedded_model_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "data_dir", lambda: tmp_path)
    with pytest.raises(NoInputError) as caught:
        resolve_model("embedded", None)
    assert "`model`" in caught.value.hint


def test_an_unknown_name_lists_similar_ones() -> None:
    with pytest.raises(UsageError, match="ViT-B-32") as caught:
        resolve_model("ViT-B32", None)
    assert "mmindex models" in caught.value.hint
    assert "ViT-B-32" in architectures()


def test_an_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="laion3b") as caught:
        locate(resolve_model("ViT-B-32", "laion3b"))
    assert DEFAULT_PRETRAINED in caught.value.hint


def test_a_model_other_than_the_default_needs_weights_to_be_named() -> None:
    with pytest.raises(UsageError, match="`pretrained"):
        resolve_model("ViT-L-14", None)


def test_paths_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under cron, the working directory differs from that of the person who wrote the settings."""
    monkeypatch.chdir(folder.parent)
    assert resolve_model("local-dir:model", None).name == f"local-dir:{folder}"
    request = resolve_model("ViT-B-32", "model/open_clip_model.safetensors")
    assert request.weights_path == folder / "open_clip_model.safetensors"


def test_a_relative_tokenizer_file_is_in_the_folder_of_the_model(folder: Path) -> None:
    files = locate(resolve_model(f"local-dir:{folder}", None))
    assert files.tokenizer.merges == folder / "merges.txt.gz"
    assert files.tokenizer.merges.is_absolute()


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "open_clip_pytorch_model.bin"])
def test_pickled_weights_are_refused_unless_allowed(folder: Path, name: str) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / name)
    with pytest.raises(DataError, match="pickle") as caught:
        resolve_model(f"local-dir:{folder}", None)
    assert "allow_pickle_weights" in caught.value.hint
    with pytest.raises(DataError, match="pickle"):
        resolve_model("ViT-B-32", str(folder / name))
    allowed = resolve_model(f"local-dir:{folder}", None, allow_pickle_weights=True)
    assert locate(allowed).weights == folder / name


def test_safe_weights_have_priority_over_pickles(folder: Path) -> None:
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"pickle")
    request = resolve_model(f"local-dir:{folder}", None, allow_pickle_weights=True)
    assert locate(request).weights == folder / "open_clip_model.safetensors"


@pytest.mark.parametrize(
    ("model", "pretrained", "error"),
    [
        ("local-dir:/nowhere", None, NoInputError),
        ("ViT-B-32", "/nowhere/weights.safetensors", NoInputError),
        ("ViT-B-32", "weights.safetensors", NoInputError),
        ("hf-hub:nobody", None, UsageError),
        ("embedded", "openai", UsageError),
    ],
)
def test_impossible_requests_are_refused_immediately(
    model: str, pretrained: str | None, error: type[MmindexError]
) -> None:
    with pytest.raises(error):
        resolve_model(model, pretrained)


def test_a_folder_without_weights_or_with_several_says_what_is_needed(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    weights.rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(b"others")
    with pytest.raises(UsageError, match=r"a\.safetensors, b\.safetensors"):
        resolve_model(f"local-dir:{folder}", None)
    (folder / "a.safetensors").unlink()
    (folder / "b.safetensors").unlink()
    with pytest.raises(NoInputError, match="no weights"):
        resolve_model(f"local-dir:{folder}", None)
    untrained = resolve_model(f"local-dir:{folder}", "none")
    assert locate(untrained).weights is None


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model_cfg": {}}', '{"model_cfg": {"vision_cfg": {}}}']
)
def test_a_broken_configuration_is_one_line_about_its_file(folder: Path, content: str) -> None:
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(DataError, match=r"open_clip_config\.json"):
        locate(resolve_model(f"local-dir:{folder}", None))


def test_a_missing_tokenizer_file_is_reported(folder: Path) -> None:
    (folder / "merges.txt.gz").unlink()
    with pytest.raises(DataError, match=r"merges\.txt\.gz"):
        locate(resolve_model(f"local-dir:{folder}", None))


def test_weights_as_a_file_take_the_preprocessing_that_the_architectures_weights_share(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip alone would use CLIP's mean and crop for SigLIP too."""
    # SigLIP's tokenizer needs transformers, but nothing here uses it.
    monkeypatch.setattr("mmindex.models.files.require_transformers", lambda _what: None)
    siglip = locate(resolve_model("ViT-B-16-SigLIP", str(tiny_model.weights)))
    assert siglip.preprocess.resize_mode == "squash"
    assert siglip.preprocess.mean == (0.5, 0.5, 0.5)
    clip = locate(resolve_model("ViT-B-32", str(tiny_model.weights)))
    assert clip.preprocess.resize_mode == "shortest"


@pytest.mark.parametrize(
    ("device", "precision"),
    [("tpu", "auto"), ("cpu", "fp64"), ("cpu", "fp16"), ("cuda:x", "auto"), ("cuda", "auto")],
)
def test_a_missing_device_is_refused(device: str, precision: str) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError):
        place(device, precision)


def test_the_cpu_computes_in_float32_by_default() -> None:
    assert place("cpu").precision == "fp32"
    assert place("cpu", "bf16").precision == "bf16"


def test_a_gpu_computes_in_16_bits_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for supported, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda found=supported, **_: found)
        assert place("cuda", model="ViT-B-32") == Placement(("cuda:0", "cuda:1"), expected)
        assert place("cuda:1", model="photos") == Placement(("cuda:1",), "fp16")
        assert place("cuda:1", "bf16", model="photos").precision == "bf16"


def test_resolving_imports_neither_torch_nor_open_clip(folder: Path) -> None:
    code = (
        "import sys\n"
        "from mmindex.encode.stage import encoder_source\n"
        "from mmindex.core.config import Config\n"
        f"model = {{'name': 'local-dir:{folder}'}}\n"
        "config = Config.model_validate({'model': model, 'encode': {'device': 'cpu'}})\n"
        "print(encoder_source(config, None).info.fingerprint)\n"
        "print([name for name in ('torch', 'open_clip', 'faiss') if name in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fingerprint, loaded = out.stdout.split("\n")[:2]
    assert len(fingerprint) == 64
    assert loaded == "[]"
