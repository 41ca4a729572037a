"""The encode stage on a small corpus with the fake model."""

from __future__ import annotations

import numpy as np

from mmindex.core.config import Config
from mmindex.core.modality import Modality
from mmindex.encode.stage import EncodeReport, encode
from mmindex.encode.work import EncoderSource
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from support.manifests import manifest
from support.models import FakeEncoder
from support.tables import Corpus

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


def settings(**encode: object) -> Config:
    return Config.model_validate({"encode": {"workers": 0, "batch_size": 4, **encode}})


def source_of(encoder: FakeEncoder) -> EncoderSource:
    return EncoderSource(encoder.info, lambda: encoder.preprocess, lambda: encoder)


def run(
    encoder: FakeEncoder,
    objects: Objects,
    corpus: Corpus,
    parent: EncodeReport | None = None,
    config: Config | None = None,
) -> EncodeReport:
    draft = Snapshot(objects, manifest() if parent is None else draft_after(parent))
    return encode(source_of(encoder), draft, corpus.tables, config or settings())


def draft_after(parent: EncodeReport) -> Manifest:
    shards = tuple(ref for side in Modality for ref in parent.shards[side])
    return manifest(encoder=parent.encoder, objects=shards)


def vectors(objects: Objects, report: EncodeReport, side: Modality) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for ref in report.shards[side]:
        table = objects.read_table(ref)
        assert table.num_rows == ref.rows
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        matrix = flat.reshape(table.num_rows, -1)
        assert matrix.dtype == np.float16
        found.update(zip(table["key"].to_pylist(), matrix, strict=True))
    return found
