"""The encode stage: every live key gets a vector, or a reason why it has none.

Encoding is a cache by key and encoder fingerprint. A shard is published as soon as it is complete,
which makes shards the unit of resume.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mmindex.core.config import Config
from mmindex.core.errors import DataError, InternalError
from mmindex.core.modality import Modality
from mmindex.core.model_names import UNKNOWN
from mmindex.core.progress import get_logger
from mmindex.encode.backlog import plan_backlog, read_rows
from mmindex.encode.cluster import ClusterWorker, NodeFigures
from mmindex.encode.compact import Compaction
from mmindex.encode.decoding import Failure
from mmindex.encode.given import GivenFiles, take_vectors
from mmindex.encode.node import Sample
from mmindex.encode.plan import EncodePlan, ShardReader, plan_encode
from mmindex.encode.units import UnitResult, read_units
from mmindex.encode.work import EncoderSource, Worker, warn_of_cut_texts
from mmindex.models.adapted import Maps
from mmindex.models.devices import Placement, place
from mmindex.models.encoder import Encoder
from mmindex.models.files import locate
from mmindex.models.fingerprint import fingerprint_of, unknown_encoder
from mmindex.models.resolve import ModelRequest, resolve_model, unfit
from mmindex.sources.vector_sets import vector_sets
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

# Images that every node of a cluster must be able to read: usually some of each source.
_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """The result of the stage.

    Attributes:
        encoder: the model.
        shards: all shards that the version needs, by modality, in order.
        failed: why a key has no vector.
        encoded_images, encoded_texts: vectors that the model made.
        mapped_images, mapped_texts: vectors computed from those of an adapted model's parent.
        given_images, given_texts: vectors taken from files of vectors.
        cut_texts: texts of this run that were longer than the model's context.
        reused_images, reused_texts: live vectors that already existed.
        adopted_shards: shards adopted from a run that was killed.
        compacted_shards: shards whose rows were merged into others, see
            :mod:`mmindex.encode.compact`.
        seconds: ``load`` (the model), ``map`` (the parent's vectors),
            ``given`` (vectors from files); for images and texts
            separately: ``..._wait`` (for images or texts), ``..._model``, ``..._write``.
        images_per_second, texts_per_second: without loading the model, except on a cluster; 0 if
            there were none.
        bottleneck: the slowest part for images: ``decode``, ``model``, ``write`` or empty.
        nodes: figures of each node of a cluster; empty without one.
        retries: number of times that a unit was restarted on a cluster.
    """

    encoder: EncoderInfo
    shards: dict[Modality, tuple[ObjectRef, ...]]
    failed: dict[str, Failure]
    encoded_images: int
    encoded_texts: int
    mapped_images: int
    mapped_texts: int
    given_images: int
    given_texts: int
    cut_texts: int
    reused_images: int
    reused_texts: int
    adopted_shards: int
    compacted_shards: int
    seconds: dict[str, float]
    images_per_second: float
    texts_per_second: float
    bottleneck: str
    nodes: Mapping[str, NodeFigures] = field(default_factory=dict)
    retries: int = 0


def encoder_source(config: Config, known: EncoderInfo | None) -> EncoderSource:
    """Return the encoder that the configuration names, not yet loaded.

    Args:
        config: only the sections sources, model and encode are used.
        known: the published version's encoder; if it is this one, torch is not even imported.

    Raises:
        MmindexError: there is no such model, or its files are not available.
    """
    request, specs = _request(config), [source.spec for source in config.source]
    if warning := unfit(request.name, specs):
        get_logger("encode").warning(warning)
    encode = config.encode
    placement = place(encode.device, encode.precision, encode.cores, request.name)
    if request.name == UNKNOWN:
        info = unknown_encoder(max((found.dim for found in vector_sets(specs)), default=0))
    else:
        info = fingerprint_of(request, placement.precision, known)
    return EncoderSource(
        info=info,
        preprocess=lambda: locate(request).preprocess,
        load=partial(_load, request, placement),
        devices=len(placement.devices),
        on_gpu=placement.devices[0] != "cpu",
        maps=partial(_maps, request) if info.parent else None,
    )


def with_maps(source: EncoderSource, config: Config) -> EncoderSource:
    """Return the cluster's encoder with an adapted model's maps, which this process applies."""
    if not source.info.parent:
        return source
    return replace(source, maps=partial(_maps, _request(config)))


def _request(config: Config) -> ModelRequest:
    return resolve_model(
        config.model.name,
        config.model.pretrained,
        specs=[source.spec for source in config.source],
        allow_pickle_weights=config.model.allow_pickle_weights,
    )


def _load(request: ModelRequest, placement: Placement) -> Encoder:
    from mmindex.models.openclip import load_encoder

    return load_encoder(request, placement)


def _maps(request: ModelRequest) -> Maps:
    adapted = locate(request).adapted
    if adapted is None:
        raise InternalError(f"model {request.name}: its files changed", "run the command again")
    return adapted.maps()


def encode(
    source: EncoderSource,
    draft: Snapshot,
    tables: tuple[ObjectRef, ObjectRef],
    config: Config,
    *,
    files: GivenFiles | None = None,
    retry: bool = False,
    cluster: ClusterWorker | None = None,
) -> EncodeReport:
    """Encode what is missing.

    Args:
        source: the encoder; loaded only if something is missing.
        draft: the next version; its encoder and shards are reused where they match.
        tables: the corpus tables, images and captions.
        config: only the sections encode and limits are used.
        files: files from which vectors are taken.
        retry: retry items that are known to fail; repeated failures are recorded again.
        cluster: encodes in place of this process.

    Raises:
        MmindexError: the model is not available, or writing failed; complete shards stay for the
            next run.
    """
    objects = draft.objects
    reader = ShardReader(objects, source.info)
    worker = cluster or Worker(source, config)
    files = files or GivenFiles()
    stage = _Stage(source, objects, reader, worker, files, config.encode.shard_rows, retry)
    try:
        for side, table in zip(Modality, tables, strict=True):
            plan = plan_encode((objects, table), side, draft.manifest, reader, files, retry=retry)
            stage.execute(plan)
            reader.forget()
    finally:
        if isinstance(worker, Worker):
            worker.close()
    warn_of_cut_texts(stage.cut_texts)
    return stage.report()


@dataclass(slots=True)
class _Stage:
    """The content of the report, collected side by side."""

    source: EncoderSource
    objects: Objects
    reader: ShardReader
    worker: Worker | ClusterWorker
    files: GivenFiles
    shard_rows: int
    retry: bool
    adopted: int = 0
    compacted: int = 0
    cut_texts: int = 0
    shards: dict[Modality, tuple[ObjectRef, ...]] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    encoded: dict[Modality, int] = field(default_factory=dict)
    mapped: dict[Modality, int] = field(default_factory=dict)
    given: dict[Modality, int] = field(default_factory=dict)
    reused: dict[Modality, int] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    wall: dict[Modality, float] = field(default_factory=dict)

    def execute(self, plan: EncodePlan) -> None:
        """Execute the plan of one side."""
        log, side, backlog = get_logger("encode"), plan.side, plan.backlog
        if plan.adopted:
            log.info("continuing an interrupted run", side=side, shards=len(plan.adopted))
        self.adopted += len(plan.adopted)
        self.reused[side] = backlog.reused
        self.encoded[side] = self.mapped[side] = self.given[side] = 0
        new: list[tuple[int, ObjectRef]] = []
        failed: dict[str, Failure] = {}

        def collect(results: Iterator[tuple[int, UnitResult]]) -> None:
            for first, result in results:
                failed.update(result.failed)
                if result.shard is not None:
                    new.append((first, result.shard))

        collect(self._map(plan))
        if self.mapped[side]:
            log.info(f"{side}s computed from the parent's vectors", vectors=self.mapped[side])
        collect(self._take(plan))
        if self.given[side]:
            log.info(f"{side}s taken from files of vectors", vectors=self.given[side])
        if plan.rest.missing:
            self._require_model(plan)
            log.info(f"encoding {side}s", missing=plan.rest.missing, reused=backlog.reused)
            collect(self._encode(plan))
            log.info(f"{side}s encoded", encoded=self.encoded[side], failed=len(failed))
        kept, known = plan.shards(new), backlog.failed
        if self.retry and known:
            # Keep only old and new shards with content that no other shard has.
            settled = plan_backlog(plan.live, self.reader.read(kept))
            kept, known = settled.kept, settled.failed
        failed |= known
        self.failed.update(failed)
        compaction = Compaction(self.objects, side, self.source.info, self.shard_rows)
        self.shards[side] = compaction.run(plan.live, self.reader.read(kept), failed)
        self.compacted += len(set(kept) - set(self.shards[side]))

    def _map(self, plan: EncodePlan) -> Iterator[tuple[int, UnitResult]]:
        """Compute the vectors that an adapted model's parent has; results as :meth:`_encode`."""
        if plan.mapping is None:
            return
        start = time.perf_counter()
        for first, result in self.worker.map(self.objects, plan.side, plan.mapping.parts):
            self.mapped[plan.side] += result.encoded
            yield first, result
        self.seconds.update({"map": time.perf_counter() - start})

    def _take(self, plan: EncodePlan) -> Iterator[tuple[int, UnitResult]]:
        """Take vectors from files; results as :meth:`_encode`."""
        if plan.given is None:
            return
        start, info = time.perf_counter(), self.source.info
        maps = self.source.maps() if self.source.maps is not None else None
        for first, result in take_vectors(self.objects, plan.given, plan.side, info, maps):
            self.given[plan.side] += result.encoded
            yield first, result
        self.seconds.update({"given": time.perf_counter() - start})

    def _require_model(self, plan: EncodePlan) -> None:
        """Raise an error if something is to be encoded with an unknown model."""
        if self.source.info.model == UNKNOWN:
            raise DataError(
                f"{plan.rest.missing} {plan.side}s have no vector in the files any more",
                "the files changed after they were read: run `mmindex build`",
            )

    def _encode(self, plan: EncodePlan) -> Iterator[tuple[int, UnitResult]]:
        """Encode the units of a plan; yield each result with its first row of the table."""
        rows, start = plan.units(self.shard_rows), time.perf_counter()
        begins = {unit.number: unit.first for unit in rows}
        if isinstance(self.worker, ClusterWorker) and plan.side is Modality.IMAGE:
            self.worker.prove(_samples(self.objects, plan))
        units = read_units(self.objects, plan.table, plan.side, rows)
        for result in self.worker.encode(self.objects, plan.side, units, plan.rest.missing):
            self.encoded[plan.side] += result.encoded
            self.cut_texts += result.cut_texts
            self.seconds.update(result.seconds)
            yield begins[result.number], result
        self.wall[plan.side] = time.perf_counter() - start

    def _rate(self, side: Modality) -> float:
        """Return vectors per second; on a cluster by wall time, because workers run in parallel."""
        if isinstance(self.worker, ClusterWorker):
            seconds = self.wall.get(side, 0.0)
        else:
            seconds = sum(self.seconds[f"{side}_{part}"] for part in ("wait", "model", "write"))
        return self.encoded[side] / seconds if seconds else 0.0

    def report(self) -> EncodeReport:
        parts = {
            "decode": self.seconds["image_wait"],
            "model": self.seconds["image_model"],
            "write": self.seconds["image_write"],
        }
        images, cluster = self.encoded[Modality.IMAGE], self.worker
        return EncodeReport(
            encoder=self.source.info,
            shards=self.shards,
            failed=dict(sorted(self.failed.items())),
            encoded_images=images,
            encoded_texts=self.encoded[Modality.TEXT],
            mapped_images=self.mapped[Modality.IMAGE],
            mapped_texts=self.mapped[Modality.TEXT],
            given_images=self.given[Modality.IMAGE],
            given_texts=self.given[Modality.TEXT],
            cut_texts=self.cut_texts,
            reused_images=self.reused[Modality.IMAGE],
            reused_texts=self.reused[Modality.TEXT],
            adopted_shards=self.adopted,
            compacted_shards=self.compacted,
            seconds=dict(self.seconds),
            images_per_second=self._rate(Modality.IMAGE),
            texts_per_second=self._rate(Modality.TEXT),
            bottleneck=max(parts, key=lambda part: parts[part]) if images else "",
            nodes=cluster.nodes if isinstance(cluster, ClusterWorker) else {},
            retries=cluster.retries if isinstance(cluster, ClusterWorker) else 0,
        )


def _samples(objects: Objects, plan: EncodePlan) -> list[Sample]:
    """Return some of the images to encode, spread over the table."""
    rows = np.flatnonzero(plan.rest.rows)
    chosen = np.zeros(plan.table.rows, dtype=np.bool_)
    chosen[rows[np.linspace(0, len(rows) - 1, _SAMPLES).astype(int)]] = True
    found = read_rows(objects, plan.table, "uri", chosen)
    return [Sample(key, uri.decode("utf-8")) for key, uri in found]
