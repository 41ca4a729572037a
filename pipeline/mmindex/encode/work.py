"""Feeds the model: pictures through decode workers, texts in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from tqdm import tqdm

from mmindex.core.config import Config
from mmindex.core.errors import DataError, InternalError
from mmindex.core.modality import Modality
from mmindex.core.progress import StageTimer, counter, get_logger
from mmindex.core.system import trim_heap, usable_cores
from mmindex.encode.backlog import Backlog, read_rows
from mmindex.encode.decoding import (
    Decoded,
    DecodePool,
    Decoder,
    DecodeTask,
    Failure,
    worker_bytes,
)
from mmindex.encode.units import UnitWriter, unit_sizes
from mmindex.media.images import ImageLimits
from mmindex.models.adapted import Maps
from mmindex.models.encoder import Encoder, Float32, good_rows
from mmindex.models.preprocess import PreprocessSpec
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects

# More processes than this only fight over the memory bus.
_MAX_WORKERS = 16
# Texts handed over at once: enough to sort by length, little enough to hold.
_TEXTS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder that is loaded only when something is to be encoded.

    Attributes:
        info: which encoder it will be.
        preprocess: how it wants its pictures; decode workers start before the model is loaded.
        load: loads it.
        devices: on how many devices it runs; each gets a batch.
        maps: of an adapted model, reads the maps behind its parent, whose fingerprint is
            ``info.parent``; None for other models.
    """

    info: EncoderInfo
    preprocess: Callable[[], PreprocessSpec]
    load: Callable[[], Encoder]
    devices: int = 1
    maps: Callable[[], Maps] | None = None


@dataclass(slots=True)
class Worker:
    """Encodes backlogs, loading the model at the first item.

    Attributes:
        cut_texts: texts so far that were longer than the model's context.
        timer: wall time by part.
    """

    source: EncoderSource
    objects: Objects
    config: Config
    cut_texts: int = 0
    timer: StageTimer = field(default_factory=StageTimer)
    _encoder: Encoder | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time by part, see :class:`mmindex.encode.stage.EncodeReport`."""
        return dict(self.timer.seconds)

    def encode(
        self, side: Modality, table: ObjectRef, backlog: Backlog, writer: UnitWriter
    ) -> None:
        """Encode the backlog's rows of a table, in the table's order.

        Raises:
            MmindexError: the model cannot be loaded, or a shard cannot be written.
        """
        work = self._images if side is Modality.IMAGE else self._texts
        work(table, backlog, writer)

    def close(self) -> None:
        """Release the model."""
        if self._encoder is not None:
            self._encoder.close()

    def _images(self, table: ObjectRef, backlog: Backlog, writer: UnitWriter) -> None:
        batch_size = self.config.encode.batch_size * self.source.devices
        tasks = (
            DecodeTask(key, uri.decode("utf-8"))
            for key, uri in read_rows(self.objects, table, "uri", backlog.rows)
        )
        with (
            self._pool(backlog.missing) as pool,
            counter(total=backlog.missing, label="images", unit="image") as progress,
        ):
            # One batch for the model to work on, and one that is filled meanwhile.
            stream = pool.results(tasks, ahead=2 * batch_size)
            for unit in unit_sizes(backlog.missing, self.config.encode.shard_rows):
                for count in unit_sizes(unit, batch_size):
                    with self.timer.measure("image_wait"):
                        batch = list(islice(stream, count))
                    _expect(count, len(batch))
                    self._image_batch(batch, writer, progress)
                    progress.update(count)
                with self.timer.measure("image_write"):
                    writer.publish()

    def _pool(self, pictures: int) -> DecodePool[DecodeTask, Decoded]:
        workers, limits = self.config.encode.workers, self.config.limits
        if workers is None:
            workers = min(usable_cores(), _MAX_WORKERS)
        return DecodePool(
            Decoder(self.source.preprocess(), ImageLimits.of(limits)),
            min(workers, pictures),
            limits.decode_timeout_s,
            worker_bytes(limits.max_pixels),
        )

    def _image_batch(
        self,
        batch: list[tuple[DecodeTask, Decoded]],
        writer: UnitWriter,
        progress: tqdm,  # type: ignore[type-arg]  # tqdm is generic in its stubs only
    ) -> None:
        keys, pictures = [], []
        for task, decoded in batch:
            if isinstance(decoded, Failure):
                writer.fail(task.key, decoded)
            else:
                keys.append(task.key)
                pictures.append(decoded)
        if keys:
            first = self._encoder is None
            encoder = self._loaded()
            if first:
                progress.unpause()  # loading the model is no part of the estimate
            with self.timer.measure("image_model"):
                vectors = encoder.encode_images(np.stack(pictures))
            if first:
                _require_vectors(vectors, self.source.info)
            writer.add(keys, vectors)

    def _texts(self, table: ObjectRef, backlog: Backlog, writer: UnitWriter) -> None:
        encoder = self._loaded()
        rows = read_rows(self.objects, table, "text", backlog.rows)
        first = True
        with counter(total=backlog.missing, label="texts", unit="text") as progress:
            for unit in unit_sizes(backlog.missing, self.config.encode.shard_rows):
                for count in unit_sizes(unit, _TEXTS_AT_ONCE):
                    with self.timer.measure("text_wait"):
                        batch = list(islice(rows, count))
                    _expect(count, len(batch))
                    # A lone surrogate is stored as it is; the tokenizer's cleaning replaces it.
                    texts = [text.decode("utf-8", "surrogatepass") for _, text in batch]
                    before = encoder.cut_texts
                    with self.timer.measure("text_model"):
                        vectors = encoder.encode_texts(texts)
                    if first:
                        _require_vectors(vectors, self.source.info)
                        first = False
                    self.cut_texts += encoder.cut_texts - before
                    writer.add([key for key, _ in batch], vectors)
                    trim_heap()  # every batch is cut into other sizes; bench_growth.py sees it
                    progress.update(count)
                with self.timer.measure("text_write"):
                    writer.publish()

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            get_logger("encode").info("loading the model", model=self.source.info.model)
            with self.timer.measure("load"):
                self._encoder = self.source.load()
            if self._encoder.info.fingerprint != self.source.info.fingerprint:
                raise InternalError(
                    f"model {self.source.info.model}: its files changed while it was loaded",
                    "run the command again",
                )
        return self._encoder


def _expect(wanted: int, came: int) -> None:
    if came != wanted:
        raise InternalError(f"{wanted} items asked for, {came} came")


def _require_vectors(vectors: Float32, info: EncoderInfo) -> None:
    """Stop at a model's first batch if none of its vectors can be used.

    One bad picture has one bad vector; a batch of them is the model's fault.

    Raises:
        DataError: all of several vectors are NaN, infinite or zero.
    """
    if len(vectors) > 1 and not good_rows(vectors).any():
        raise DataError(
            f"model {info.model}: every vector of the first batch is NaN, infinite or zero",
            "its weights are damaged, or `precision` is too low for it: try `precision=fp32`",
        )
