"""Encode one part of the corpus, for batch systems that start the same command many times.

Parts share only the store: no lock, no messages, no order. Each encodes every N-th unit of what the
published version lacks and leaves the shards for the next full run. A restarted part continues
where it stopped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmindex.core.config import Config
from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.encode.backlog import plan_backlog
from mmindex.encode.given import GivenFiles, plan_given
from mmindex.encode.plan import ShardReader
from mmindex.encode.shards import find_leftovers, is_sound
from mmindex.encode.units import Unit, UnitResult, UnitRows, cut, read_units
from mmindex.encode.work import EncoderSource, Worker, warn_of_cut_texts
from mmindex.store.keys import live_keys
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects

_PART = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Part:
    """Part ``number`` of ``of``, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_part(text: str) -> Part:
    """Parse a part as users write it: ``2/10``.

    Raises:
        UsageError: the text does not have this form, or there is no such part.
    """
    match = _PART.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"part {text!r} is not of the form I/N, with I from 1 to N", "for example `part=2/10`"
        )
    return Part(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class PartReport:
    """The result of a part.

    Attributes:
        part, parts: number of the part, and number of parts.
        version: the published version that it used.
        units: number of its units.
        done_before: how many of them were already encoded.
        encoded_images, encoded_texts: new vectors.
        failed: items without a vector; the run that adopts the shards reports the reasons.
        cut_texts: texts that were longer than the model's context.
        seconds: wall time by part of the work, see :class:`mmindex.encode.stage.EncodeReport`.
    """

    part: int
    parts: int
    version: int
    units: int
    done_before: int
    encoded_images: int
    encoded_texts: int
    failed: int
    cut_texts: int
    seconds: dict[str, float]


def encode_part(
    source: EncoderSource, published: Manifest, objects: Objects, config: Config, part: Part
) -> PartReport:
    """Encode one part of what a published version lacks.

    Args:
        source: the encoder; loaded only if something is missing.
        published: the version, held so that ``gc`` keeps it.
        objects: the store's objects; shards are written there.
        config: only the sections encode and limits are used; ``shard_rows`` must be the same in
            each part.
        part: the part.

    Raises:
        NoInputError: the version has not been crawled.
        MmindexError: the model is not available, or writing failed; complete shards stay.
    """
    files = GivenFiles.of(config, source.info)
    work, worker = _PartWork(source, published, objects, config, files), Worker(source, config)
    try:
        work.run(worker, part)
    finally:
        worker.close()
    warn_of_cut_texts(work.cut_texts)
    return PartReport(
        part=part.number,
        parts=part.of,
        version=published.version,
        units=work.units,
        done_before=work.done_before,
        encoded_images=work.encoded[Modality.IMAGE],
        encoded_texts=work.encoded[Modality.TEXT],
        failed=work.failed,
        cut_texts=work.cut_texts,
        seconds={name: round(value, 3) for name, value in work.seconds.items()},
    )


@dataclass(slots=True)
class _PartWork:
    """The content of the report, collected unit by unit."""

    source: EncoderSource
    published: Manifest
    objects: Objects
    config: Config
    files: GivenFiles
    units: int = 0
    done_before: int = 0
    failed: int = 0
    cut_texts: int = 0
    encoded: Counter[Modality] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def run(self, worker: Worker, part: Part) -> None:
        tables = {
            Modality.IMAGE: self.published.require("crawl/images"),
            Modality.TEXT: self.published.require("crawl/captions"),
        }
        every = [(side, unit) for side, table in tables.items() for unit in self._cut(side, table)]
        mine = every[part.number - 1 :: part.of]
        self.units = len(mine)
        leftovers = find_leftovers(self.objects.layout, self.source.info)
        done = {(entry.side, entry.unit): entry.ref for entry in leftovers}
        for side, table in tables.items():
            rows = [unit for its, unit in mine if its is side]
            total = sum(len(unit.rows) for unit in rows)
            if rows:
                units = self._missing(read_units(self.objects, table, side, rows), done)
                for result in worker.encode(self.objects, side, units, total):
                    self._add(side, result)

    def _cut(self, side: Modality, table: ObjectRef) -> list[UnitRows]:
        """Return all units of a side, encoded or not: every part cuts the same ones."""
        live = live_keys(self.objects, table)
        reader = ShardReader(self.objects, self.source.info)
        listed = reader.read(self.published.named(f"embeddings/{side}/"))
        backlog = plan_backlog(live, listed)
        wanted = backlog.rows
        if files := self.files.side(side):  # their vectors are taken by the run that publishes
            wanted = plan_given(files, live, backlog).rest.rows
        return cut(wanted, wanted, self.config.encode.shard_rows)

    def _missing(
        self, units: Iterator[Unit], done: Mapping[tuple[Modality, str], ObjectRef]
    ) -> Iterator[Unit]:
        for unit in units:
            ref = done.get((unit.side, unit.digest))
            if ref is not None and is_sound(self.objects, ref):
                self.done_before += 1
            else:
                yield unit

    def _add(self, side: Modality, result: UnitResult) -> None:
        self.encoded[side] += result.encoded
        self.failed += len(result.failed)
        self.cut_texts += result.cut_texts
        self.seconds.update(result.seconds)
