"""Models for tests: a real open_clip model with about 30,000 weights, and a fake that counts."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmindex.core.errors import BusyError
from mmindex.models.encoder import Encoder, Float32
from mmindex.models.preprocess import Pixels, PreprocessSpec, spec_from_config
from mmindex.store.manifest import EncoderInfo

IMAGE_SIZE = 32
DIM = 24
_MERGES = "t h|th e</w>|a </w>|r e|re d</w>|d o|do g</w>|c a|ca t</w>|b l|bl u|blu e</w>|o n</w>"


@dataclass(frozen=True, slots=True)
class TinyModel:
    """A saved open_clip model.

    ``folder`` is for ``local-dir:``; ``weights`` is a file with the same weights in another folder.
    """

    folder: Path
    weights: Path

    @property
    def name(self) -> str:
        return f"local-dir:{self.folder}"


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Return an ``open_clip_config.json`` with these values merged over the defaults."""
    merges = _MERGES.split("|")
    config: dict[str, Any] = {
        "model_cfg": {
            "embed_dim": DIM,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "layers": 2,
                "width": 32,
                "head_width": 16,
                "patch_size": 8,
            },
            "text_cfg": {
                "context_length": 24,
                "vocab_size": 512 + len(merges) + 2,
                "width": 32,
                "heads": 2,
                "layers": 2,
                "tokenizer_kwargs": {"bpe_path": "merges.txt.gz"},
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    for section, values in changes.items():
        target = config if section == "preprocess_cfg" else config["model_cfg"]
        target[section] = {**target.get(section, {}), **values}
    return config


def write_merges(path: Path) -> None:
    """Write a tokenizer file with the same bytes, and therefore the same sha256, each time."""
    text = "#version: 0.2\n" + _MERGES.replace("|", "\n")
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def save_tiny_model(
    root: Path, *, seed: int = 0, config: dict[str, Any] | None = None
) -> TinyModel:
    """Build, seed and save a model below ``root``."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = root / "tiny-clip"
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config or tiny_config()))
    write_merges(folder / "merges.txt.gz")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        _spread(model)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, str(folder / "open_clip_model.safetensors"))
    alone = root / "tiny.safetensors"
    alone.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    return TinyModel(folder, alone)


def _spread(model: Any) -> None:
    """Scale initial weights, which are so small that all images look the same."""
    import torch

    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim >= 2 and "positional" not in name:
                value.mul_(4.0)


def fake_info(seed: int = 0, dim: int = 16) -> EncoderInfo:
    """Return the description of :class:`FakeEncoder`; another seed is another model."""
    fingerprint = hashlib.sha256(f"fake {seed} {dim}".encode()).hexdigest()
    return EncoderInfo(
        fingerprint=fingerprint,
        model="fake",
        pretrained=f"seed-{seed}",
        precision="fp32",
        dim=dim,
        image_size=8,
        architecture="fake",
        weights=str(seed),
        preprocess="fake",
        tokenizer="fake",
        trained=True,
        inputs=(),
        package="fake 1",
    )


_COLOURS = {
    "red": (1.0, -0.5, -0.5),
    "green": (-0.5, 1.0, -0.5),
    "blue": (-0.5, -0.5, 1.0),
    "white": (1.0, 1.0, 1.0),
    "black": (-1.0, -1.0, -1.0),
}


@dataclass(slots=True)
class FakeEncoder:
    """A model without a network that uses an image's mean colour and a text's colour words.

    For example, "a red square" is nearest to red images. The rest of a vector is a weak hash of the
    content, so all vectors differ. The model counts its batches, and the texts with more words than
    its context.
    """

    seed: int = 0
    dim: int = 16
    image_batches: list[int] = field(default_factory=list)
    text_batches: list[int] = field(default_factory=list)
    context: int = 1_000
    cut_texts: int = 0
    closed: int = 0

    @property
    def info(self) -> EncoderInfo:
        return fake_info(self.seed, self.dim)

    @property
    def preprocess(self) -> PreprocessSpec:
        return spec_from_config(8, {"mean": 0.0, "std": 1.0})

    @property
    def logit_scale(self) -> float:
        return 20.0

    def encode_images(self, pixels: Pixels) -> Float32:
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (8, 8, 3)
        self.image_batches.append(len(pixels))
        means = pixels.reshape(len(pixels), -1, 3).mean(axis=1) / 127.5 - 1.0
        return self._vectors(means.tolist(), [image.tobytes() for image in pixels])

    def start_images(self, pixels: Pixels) -> Callable[[], Float32]:
        vectors = self.encode_images(pixels)
        return lambda: vectors

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        self.text_batches.append(len(texts))
        self.cut_texts += sum(len(text.split()) > self.context for text in texts)
        content = [text.encode("utf-8", "surrogatepass") for text in texts]
        words = [[_COLOURS[w] for w in text.lower().split() if w in _COLOURS] for text in texts]
        means = [np.mean(found, axis=0).tolist() if found else [0.0] * 3 for found in words]
        return self._vectors(means, content)

    def close(self) -> None:
        self.closed += 1

    def _vectors(self, means: Sequence[Sequence[float]], content: Sequence[bytes]) -> Float32:
        out = np.zeros((len(content), self.dim), dtype=np.float32)
        for row, (mean, data) in enumerate(zip(means, content, strict=True)):
            seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") ^ self.seed
            out[row] = np.random.default_rng(seed).normal(0.0, 0.05, self.dim)
            out[row, :3] += mean
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def no_model() -> Encoder:
    """Fail; used in place of a model that must not be loaded."""
    raise AssertionError("no model is needed here")


def make_fake(device: str) -> FakeEncoder:
    """Create the encoder in a worker process of a device.

    The device ``broken`` does not exist, and ``small`` has no memory for images.
    """
    if device == "broken":
        raise RuntimeError("no such device")
    return Small() if device == "small" else FakeEncoder()


class Small(FakeEncoder):
    """A model on a device without memory for images."""

    def encode_images(self, pixels: Pixels) -> Float32:
        raise BusyError(f"small: not enough memory for {len(pixels)} images")
