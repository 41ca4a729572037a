"""A fake adapted model: the fake model with maps behind it."""

from __future__ import annotations

import msgspec
import numpy as np

from mmindex.core.config import Config
from mmindex.encode.work import EncoderSource
from mmindex.models.adapted import Affine, Maps
from mmindex.models.encoder import Float32
from mmindex.store.manifest import EncoderInfo
from support.models import FakeEncoder

DIM = 16


def affine(seed: int) -> Affine:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(DIM, DIM)), rng.normal(size=DIM)
    return Affine(weight.astype(np.float32), bias.astype(np.float32))


MAPS = Maps(affine(1), affine(2), 20.0)


class AdaptedEncoder(FakeEncoder):
    """The fake model with maps behind it."""

    @property
    def info(self) -> EncoderInfo:
        parent = FakeEncoder().info
        return msgspec.structs.replace(
            parent, fingerprint="a" * 64, weights="adapted", parent=parent.fingerprint
        )

    def encode_images(self, pixels: np.ndarray) -> Float32:
        return MAPS.image(super().encode_images(pixels))

    def encode_texts(self, texts: list[str]) -> Float32:
        return MAPS.text(super().encode_texts(texts))


def adapted_source(
    _config: Config | None = None, _known: EncoderInfo | None = None
) -> EncoderSource:
    """In place of :func:`mmindex.encode.stage.encoder_source`, also on a node."""
    encoder = AdaptedEncoder()
    return EncoderSource(
        encoder.info, lambda: encoder.preprocess, lambda: encoder, maps=lambda: MAPS
    )
