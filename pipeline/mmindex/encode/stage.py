"""The encode stage: every live key gets a vector, or a reason why it has none.

Encoding is a cache by key and encoder fingerprint. A shard is published as soon as it is complete,
which makes shards the unit of resume.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmindex.core.config import Config
from mmindex.core.errors import InternalError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.encode.backlog import plan_backlog
from mmindex.encode.compact import Compaction
from mmindex.encode.decoding import Failure
from mmindex.encode.mapping import map_vectors
from mmindex.encode.plan import EncodePlan, ShardReader, plan_encode
from mmindex.encode.units import UnitWriter
from mmindex.encode.work import EncoderSource, Worker
from mmindex.models.adapted import Maps
from mmindex.models.devices import place
from mmindex.models.encoder import Encoder
from mmindex.models.files import locate
from mmindex.models.fingerprint import fingerprint_of
from mmindex.models.resolve import ModelRequest, resolve_model, unfit
from mmindex.sources.kinds import only_scenes
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What the stage did.

    Attributes:
        encoder: the model.
        shards: all shards that the version needs, by modality, in order.
        failed: why a key has no vector.
        encoded_images, encoded_texts: vectors that the model made.
        mapped_images, mapped_texts: vectors computed from those of an adapted model's parent.
        cut_texts: texts of this run that were longer than the model's context.
        reused_images, reused_texts: live vectors that were there already.
        adopted_shards: shards taken over from a run that was killed.
        compacted_shards: shards whose rows were put into others, see :mod:`mmindex.encode.compact`.
        seconds: ``load`` (the model), ``map`` (the parent's vectors); for images and texts apart:
            ``..._wait`` (for pictures or texts to come), ``..._model``, ``..._write``.
        images_per_second: of the image part without loading; 0 when there was none.
        bottleneck: where the image part spent most: ``decode``, ``model``, ``write`` or empty.
    """

    encoder: EncoderInfo
    shards: dict[Modality, tuple[ObjectRef, ...]]
    failed: dict[str, Failure]
    encoded_images: int
    encoded_texts: int
    mapped_images: int
    mapped_texts: int
    cut_texts: int
    reused_images: int
    reused_texts: int
    adopted_shards: int
    compacted_shards: int
    seconds: dict[str, float]
    images_per_second: float
    bottleneck: str


def encoder_source(config: Config, known: EncoderInfo | None) -> EncoderSource:
    """The encoder that the configuration asks for, not yet loaded.

    Args:
        config: the sections sources, model and encode count.
        known: the published version's encoder; if it is this one, torch is not even imported.

    Raises:
        MmindexError: there is no such model, or its files cannot be had.
    """
    specs = [source.spec for source in config.source]
    request = resolve_model(
        config.model.name,
        config.model.pretrained,
        scenes_only=only_scenes(specs),
        allow_pickle_weights=config.model.allow_pickle_weights,
    )
    if warning := unfit(request.name, specs):
        get_logger("encode").warning(warning)
    placement = place(config.encode.device, config.encode.precision)

    def load() -> Encoder:
        from mmindex.models.openclip import load_encoder

        return load_encoder(request, placement)

    info = fingerprint_of(request, placement.precision, known)
    return EncoderSource(
        info=info,
        preprocess=lambda: locate(request).preprocess,
        load=load,
        devices=len(placement.devices),
        maps=(lambda: _maps(request)) if info.parent else None,
    )


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
    retry: bool = False,
) -> EncodeReport:
    """Encode what is missing.

    Args:
        source: the encoder; it is loaded only when something is missing.
        draft: the version in the making; its encoder and shards are used again where they fit.
        tables: the corpus tables, images and captions.
        config: the sections encode and limits count.
        retry: try again what is known to fail; what fails once more is remembered as before.

    Raises:
        MmindexError: the model cannot be had, or writing failed; complete shards stay for the
            next run.
    """
    objects = draft.objects
    reader = ShardReader(objects, source.info)
    stage = _Stage(source, objects, reader, config.encode.shard_rows, retry)
    worker = Worker(source, objects, config)
    try:
        for side, table in zip(Modality, tables, strict=True):
            plan = plan_encode((objects, table), side, draft.manifest, reader, retry=retry)
            stage.execute(plan, worker)
            reader.forget()
    finally:
        worker.close()
    if worker.cut_texts:
        get_logger("encode").warning(
            "the model saw only the beginning of texts: they are longer than its context",
            cut=worker.cut_texts,
        )
    return stage.report(worker)


@dataclass(slots=True)
class _Stage:
    """What the report will say, gathered side by side."""

    source: EncoderSource
    objects: Objects
    reader: ShardReader
    shard_rows: int
    retry: bool
    adopted: int = 0
    compacted: int = 0
    shards: dict[Modality, tuple[ObjectRef, ...]] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    encoded: dict[Modality, int] = field(default_factory=dict)
    mapped: dict[Modality, int] = field(default_factory=dict)
    reused: dict[Modality, int] = field(default_factory=dict)

    def execute(self, plan: EncodePlan, worker: Worker) -> None:
        """Encode what the plan of one side says."""
        log, side, backlog = get_logger("encode"), plan.side, plan.backlog
        if plan.adopted:
            log.info("taking up an interrupted run", side=side, shards=plan.adopted)
        self.adopted += plan.adopted
        self.reused[side] = backlog.reused
        writer = UnitWriter(self.objects, side, self.source.info, plan.next_number)
        left = backlog
        if plan.mapping is not None and self.source.maps is not None:
            left = plan.mapping.rest
            with worker.timer.measure("map"):
                map_vectors(self.objects, plan.mapping, self.source.maps().of(side), writer)
            if writer.encoded:
                log.info(f"{side}s computed from the parent's vectors", vectors=writer.encoded)
        self.mapped[side] = writer.encoded
        if left.missing:
            log.info(f"encoding {side}s", missing=left.missing, reused=backlog.reused)
            worker.encode(side, plan.table, left, writer)
            log.info(f"{side}s encoded", encoded=writer.encoded, failed=len(writer.failed))
        self.encoded[side] = writer.encoded - self.mapped[side]
        kept, failed = (*backlog.kept, *writer.refs), backlog.failed
        if self.retry and backlog.failed:
            # Of the old shards and the new only those stay that tell something no other does.
            settled = plan_backlog(plan.live, self.reader.read(kept))
            kept, failed = settled.kept, settled.failed
        failed = {**writer.failed, **failed}
        self.failed.update(failed)
        compaction = Compaction(self.objects, side, self.source.info, self.shard_rows)
        self.shards[side] = compaction.run(plan.live, self.reader.read(kept), failed)
        self.compacted += len(set(kept) - set(self.shards[side]))

    def report(self, worker: Worker) -> EncodeReport:
        seconds = worker.seconds
        parts = {
            "decode": seconds.get("image_wait", 0.0),
            "model": seconds.get("image_model", 0.0),
            "write": seconds.get("image_write", 0.0),
        }
        images = self.encoded[Modality.IMAGE]
        return EncodeReport(
            encoder=self.source.info,
            shards=self.shards,
            failed=dict(sorted(self.failed.items())),
            encoded_images=images,
            encoded_texts=self.encoded[Modality.TEXT],
            mapped_images=self.mapped[Modality.IMAGE],
            mapped_texts=self.mapped[Modality.TEXT],
            cut_texts=worker.cut_texts,
            reused_images=self.reused[Modality.IMAGE],
            reused_texts=self.reused[Modality.TEXT],
            adopted_shards=self.adopted,
            compacted_shards=self.compacted,
            seconds=seconds,
            images_per_second=images / sum(parts.values()) if images else 0.0,
            bottleneck=max(parts, key=lambda part: parts[part]) if images else "",
        )
