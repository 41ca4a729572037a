"""Supply the model with input: images through decode workers, texts in batches."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, tee
from typing import TYPE_CHECKING, Any

import numpy as np

from mmindex.core.config import Config
from mmindex.core.errors import DataError, InternalError
from mmindex.core.modality import Modality
from mmindex.core.progress import StageTimer, counter, get_logger
from mmindex.core.shared import SharedRows
from mmindex.core.system import reuse_freed_memory, trim_heap, usable_cores
from mmindex.encode.decoding import (
    Decoded,
    DecodePool,
    Decoder,
    DecodeTask,
    Failure,
    worker_bytes,
)
from mmindex.encode.mapping import MappedPart, map_part
from mmindex.encode.units import ShardWriter, Unit, UnitResult, sizes
from mmindex.media.images import ImageLimits
from mmindex.models.adapted import Maps
from mmindex.models.encoder import Encoder, Float32, good_rows
from mmindex.models.preprocess import PreprocessSpec
from mmindex.store.manifest import EncoderInfo
from mmindex.store.objects import Objects

if TYPE_CHECKING:
    from tqdm import tqdm

# On a CPU, decoding is faster than any model long before this number of processes.
_MAX_WORKERS = 16
# Texts per call: enough to sort by length, but few enough for memory.
_TEXTS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder that is loaded only when something is to be encoded.

    Attributes:
        info: the encoder's identity.
        preprocess: its preprocessing; decode workers start before the model is loaded.
        load: loads it.
        devices: number of devices on which it runs; each gets a batch.
        on_gpu: whether they are GPUs, so that the model does not need the cores.
        maps: for an adapted model, reads the maps that turn vectors of its parent, whose
            fingerprint is ``info.parent``, into its own; None for other models.
    """

    info: EncoderInfo
    preprocess: Callable[[], PreprocessSpec]
    load: Callable[[], Encoder]
    devices: int = 1
    on_gpu: bool = False
    maps: Callable[[], Maps] | None = None


@dataclass(frozen=True, slots=True)
class _Started:
    """A batch that is being encoded: its keys, and a function that waits for its vectors."""

    keys: list[str]
    wait: Callable[[], Float32]


@dataclass(slots=True)
class Worker:
    """Encodes units. The model, loaded at the first item, and the decoders stay between units."""

    source: EncoderSource
    config: Config
    _timer: StageTimer = field(default_factory=StageTimer)
    _encoder: Encoder | None = None
    _decoders: DecodePool[DecodeTask, Decoded] | None = None
    _proven: set[Modality] = field(default_factory=set)

    def encode(
        self, objects: Objects, side: Modality, units: Iterable[Unit], total: int
    ) -> Iterator[UnitResult]:
        """Encode units of one side, in order; each is published as one shard.

        Args:
            objects: the store's objects, for the shards.
            side: images or texts.
            units: one or two are read ahead of the one that is encoded.
            total: number of items in all units.

        Raises:
            MmindexError: the model cannot be loaded, or a shard cannot be written.
        """
        with counter(total=total, label=f"{side}s", unit=str(side)) as progress:
            if side is Modality.IMAGE:
                yield from self._images(objects, units, total, progress)
            else:
                yield from self._texts(objects, units, progress)

    def map(
        self, objects: Objects, side: Modality, parts: Iterable[MappedPart]
    ) -> Iterator[tuple[int, UnitResult]]:
        """Compute vectors of an adapted model from its parent's, without loading the model.

        Args:
            objects: the store's objects.
            side: images or texts.
            parts: the parent's vectors; each part is published as one shard.

        Yields:
            the part's first row of the table, and its result.

        Raises:
            MmindexError: the maps cannot be read, or a shard cannot be written.
        """
        if self.source.maps is None:
            raise InternalError(f"model {self.source.info.model}: its maps are not available")
        affine = self.source.maps().of(side)
        for part in parts:
            yield part.first, map_part(objects, part, affine, side, self.source.info)

    def close(self) -> None:
        """Release the model and the decoders, and return their memory to the system."""
        self._stop_decoders()
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
            reuse_freed_memory()
            gc.collect()  # networks have reference cycles
            trim_heap()

    def _images(
        self, objects: Objects, units: Iterable[Unit], total: int, progress: tqdm[Any]
    ) -> Iterator[UnitResult]:
        batch_size = self._batch_size
        here, ahead = tee(units)
        tasks = (DecodeTask(key, uri.decode("utf-8")) for unit in ahead for key, uri in unit.rows)
        # One batch for the model, and one that is decoded at the same time.
        stream = self._pool(total).results(tasks, ahead=2 * batch_size)
        for unit in here:
            writer = self._writer(objects, unit)
            started: _Started | None = None
            for count in sizes(unit.size, batch_size):
                with self._timer.measure("image_wait"):
                    batch = list(islice(stream, count))
                _expect(count, len(batch))
                # A GPU gets this batch before the vectors of the previous one are collected.
                before, started = started, self._start_images(batch, writer, progress)
                self._collect(before, writer)
                progress.update(count)
            self._collect(started, writer)
            yield self._finish(writer)

    @property
    def _batch_size(self) -> int:
        return self.config.encode.batch_size * self.source.devices

    def _pool(self, images: int) -> DecodePool[DecodeTask, Decoded]:
        """Return the decode workers, and memory for pixels: no more than the images need."""
        encode, limits = self.config.encode, self.config.limits
        workers = encode.workers
        if workers is None:
            cores = encode.cores or usable_cores()
            workers = cores if self.source.on_gpu else min(cores, _MAX_WORKERS)
        workers = min(workers, images)
        # Two batches are decoded or waiting, and one is being collected.
        rows = min(3 * self._batch_size, images)
        there = self._decoders
        if there is not None and (there.workers < workers or there.rows < rows):
            self._stop_decoders()
        if self._decoders is None:
            spec = self.source.preprocess()
            self._decoders = DecodePool(
                Decoder(spec, ImageLimits.of(limits)),
                workers,
                limits.decode_timeout_s,
                worker_bytes(limits.max_pixels),
                SharedRows.of(rows, (spec.height, spec.width, 3)),
            )
        return self._decoders

    def _stop_decoders(self) -> None:
        if self._decoders is not None:
            self._decoders.close()
            self._decoders = None

    def _start_images(
        self, batch: list[tuple[DecodeTask, Decoded]], writer: ShardWriter, progress: tqdm[Any]
    ) -> _Started | None:
        """Start to encode a batch; None if none of its images can be encoded."""
        keys, images = [], []
        for task, decoded in batch:
            if isinstance(decoded, Failure):
                writer.fail(task.key, decoded)
            else:
                keys.append(task.key)
                images.append(decoded)
        if not keys:
            return None
        first = self._encoder is None
        encoder = self._loaded()
        if first:
            progress.unpause()  # the estimate does not include loading the model
        with self._timer.measure("image_model"):
            return _Started(keys, encoder.start_images(np.stack(images)))

    def _collect(self, started: _Started | None, writer: ShardWriter) -> None:
        """Wait for the vectors of a batch, and add them to its shard."""
        if started is not None:
            with self._timer.measure("image_model"):
                vectors = started.wait()
            self._prove(Modality.IMAGE, vectors)
            writer.add(started.keys, vectors)

    def _texts(
        self, objects: Objects, units: Iterable[Unit], progress: tqdm[Any]
    ) -> Iterator[UnitResult]:
        self._stop_decoders()
        for unit in units:
            encoder, writer, rows = self._loaded(), self._writer(objects, unit), iter(unit.rows)
            before = encoder.cut_texts
            for count in sizes(unit.size, _TEXTS_AT_ONCE):
                with self._timer.measure("text_wait"):
                    batch = list(islice(rows, count))
                # A lone surrogate is stored unchanged; the tokenizer's cleaning replaces it.
                texts = [text.decode("utf-8", "surrogatepass") for _, text in batch]
                with self._timer.measure("text_model"):
                    vectors = encoder.encode_texts(texts)
                self._prove(Modality.TEXT, vectors)
                writer.add([key for key, _ in batch], vectors)
                trim_heap()  # the sizes of batches differ, see bench_growth.py
                progress.update(count)
            yield self._finish(writer, encoder.cut_texts - before)

    def _writer(self, objects: Objects, unit: Unit) -> ShardWriter:
        return ShardWriter(objects, unit.side, self.source.info, unit.number, unit.digest)

    def _finish(self, writer: ShardWriter, cut_texts: int = 0) -> UnitResult:
        """Publish the shard; all measurements since the previous unit belong to this unit."""
        with self._timer.measure(f"{writer.side}_write"):
            shard = writer.publish()
        seconds, self._timer = self._timer.seconds, StageTimer()
        failed = writer.failed
        return UnitResult(writer.number, shard, failed, writer.encoded, cut_texts, seconds)

    def _prove(self, side: Modality, vectors: Float32) -> None:
        """Stop at the model's first batch of a side if none of its vectors can be used."""
        if side not in self._proven:
            _require_vectors(vectors, self.source.info)
            self._proven.add(side)

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            get_logger("encode").info("loading the model", model=self.source.info.model)
            with self._timer.measure("load"):
                self._encoder = self.source.load()
            reuse_freed_memory(1 << 30)  # every batch needs blocks of the same sizes
            if self._encoder.info.fingerprint != self.source.info.fingerprint:
                raise InternalError(
                    f"model {self.source.info.model}: its files changed while it was loaded",
                    "run the command again",
                )
        return self._encoder


def warn_of_cut_texts(count: int) -> None:
    """Log that texts were longer than the model's context, if any were."""
    if count:
        get_logger("encode").warning(
            "texts are longer than the context of the model: only their beginning is used",
            cut=count,
        )


def _expect(wanted: int, came: int) -> None:
    if came != wanted:
        raise InternalError(f"expected {wanted} items, got {came}")


def _require_vectors(vectors: Float32, info: EncoderInfo) -> None:
    """Stop at a model's first batch if none of its vectors can be used.

    One bad image has one bad vector; a whole batch of bad vectors is due to the model.

    Raises:
        DataError: all of several vectors are NaN, infinite or zero.
    """
    if len(vectors) > 1 and not good_rows(vectors).any():
        raise DataError(
            f"model {info.model}: every vector of the first batch is NaN, infinite or zero",
            "its weights are damaged, or `precision` is too low for it: try `precision=fp32`",
        )
