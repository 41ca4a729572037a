"""Encode one part of the corpus, for batch systems that start the same command many times.

Parts share only the store: no lock, no messages, no order. Each encodes every N-th unit of what the
published version lacks and leaves the shards for the next full run. A restarted part continues
where it stopped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmindex.core.config import Config
from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.encode.given import GivenFiles
from mmindex.encode.mapping import MappedPart
from mmindex.encode.plan import EncodePlan, ShardReader, plan_encode
from mmindex.encode.shards import find_leftovers, is_sound
from mmindex.encode.units import UnitResult, UnitRows, read_units
from mmindex.encode.work import EncoderSource, Worker, warn_of_cut_texts
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects

# What is encoded: the tables of the crawl.
TABLES = {Modality.IMAGE: "crawl/images", Modality.TEXT: "crawl/captions"}
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
        encoded_images, encoded_texts: vectors that the model made.
        mapped_images, mapped_texts: vectors computed from those of an adapted model's parent.
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
    mapped_images: int
    mapped_texts: int
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
        mapped_images=work.mapped[Modality.IMAGE],
        mapped_texts=work.mapped[Modality.TEXT],
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
    mapped: Counter[Modality] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def run(self, worker: Worker, part: Part) -> None:
        plans = [self._plan(side) for side in Modality]
        every = [
            (plan, piece)
            for plan in plans
            for piece in (*plan.mapped_parts, *plan.units(self.config.encode.shard_rows))
        ]
        mine = every[part.number - 1 :: part.of]
        self.units = len(mine)
        leftovers = find_leftovers(self.objects.layout, self.source.info)
        done = {(entry.side, entry.unit): entry.ref for entry in leftovers}
        for plan in plans:
            pieces = [piece for its, piece in mine if its is plan]
            parts = [one for one in pieces if isinstance(one, MappedPart)]
            todo = (one for one in parts if not self._is_done(plan.side, one.digest, done))
            for _, result in worker.map(self.objects, plan.side, todo) if parts else ():
                self.mapped[plan.side] += result.encoded
                self._add(result)
            rows = [one for one in pieces if isinstance(one, UnitRows)]
            if rows:
                read = read_units(self.objects, plan.table, plan.side, rows)
                units = (one for one in read if not self._is_done(plan.side, one.digest, done))
                total = sum(len(one.rows) for one in rows)
                for result in worker.encode(self.objects, plan.side, units, total):
                    self.encoded[plan.side] += result.encoded
                    self._add(result)

    def _plan(self, side: Modality) -> EncodePlan:
        """Plan a side as if no other part had run: every part cuts the same units."""
        table = self.published.require(TABLES[side])
        reader = ShardReader(self.objects, self.source.info, adopts=False)
        return plan_encode((self.objects, table), side, self.published, reader, self.files)

    def _is_done(
        self, side: Modality, digest: str, done: Mapping[tuple[Modality, str], ObjectRef]
    ) -> bool:
        ref = done.get((side, digest))
        if ref is None or not is_sound(self.objects, ref):
            return False
        self.done_before += 1
        return True

    def _add(self, result: UnitResult) -> None:
        self.failed += len(result.failed)
        self.cut_texts += result.cut_texts
        self.seconds.update(result.seconds)
