"""The figures of a run's stages, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmindex.core.modality import Modality
from mmindex.crawl.stage import CrawlReport
from mmindex.encode.cluster import NodeFigures
from mmindex.encode.stage import EncodeReport
from mmindex.index.build import IndexReport
from mmindex.index.decide import UpdatePlan
from mmindex.runs.diff import Changes
from mmindex.store.quarantine import count_reasons


@dataclass(frozen=True, slots=True)
class CrawlFigures:
    """The number of items by outcome; ``details`` are those of the sources."""

    seen: int
    images: int
    captions: int
    quarantined: int
    ignored: int
    reasons: Mapping[str, int]
    details: Mapping[str, Any]

    @classmethod
    def of(cls, report: CrawlReport) -> CrawlFigures:
        """Return the figures of a crawl."""
        return cls(
            seen=report.seen,
            images=report.images.rows,
            captions=report.captions.rows,
            quarantined=len(report.quarantined),
            ignored=report.ignored,
            reasons=count_reasons(report.quarantined),
            details=report.details,
        )


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The slowest part of image encoding, and the images per second of each part alone."""

    part: str
    images_per_second: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EncodeFigures:
    """New and reused vectors, and the speed; see :class:`mmindex.encode.stage.EncodeReport`."""

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
    failed: int
    images_per_second: float
    texts_per_second: float
    bottleneck: Bottleneck | None
    seconds: Mapping[str, float]
    nodes: Mapping[str, NodeFigures]
    retries: int

    @classmethod
    def of(cls, report: EncodeReport) -> EncodeFigures:
        """Return the figures of an encode stage."""
        return cls(
            encoded_images=report.encoded_images,
            encoded_texts=report.encoded_texts,
            mapped_images=report.mapped_images,
            mapped_texts=report.mapped_texts,
            given_images=report.given_images,
            given_texts=report.given_texts,
            cut_texts=report.cut_texts,
            reused_images=report.reused_images,
            reused_texts=report.reused_texts,
            adopted_shards=report.adopted_shards,
            compacted_shards=report.compacted_shards,
            failed=len(report.failed),
            images_per_second=round(report.images_per_second, 2),
            texts_per_second=round(report.texts_per_second, 2),
            bottleneck=_bottleneck(report) if report.bottleneck else None,
            seconds=_rounded(report.seconds),
            nodes=report.nodes,
            retries=report.retries,
        )


def _bottleneck(report: EncodeReport) -> Bottleneck:
    parts = {
        part: report.seconds.get(f"image_{name}", 0.0)
        for part, name in (("decode", "wait"), ("model", "model"), ("write", "write"))
    }
    alone = {part: round(report.encoded_images / s, 2) for part, s in parts.items() if s}
    return Bottleneck(report.bottleneck, alone)


@dataclass(frozen=True, slots=True)
class IndexFigures:
    """What was done to one side's index, and why."""

    action: str
    why: str
    added: int
    removed: int
    changed_share: float
    factory: str
    reason: str
    vectors: int
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, done: UpdatePlan, report: IndexReport) -> IndexFigures:
        """Return the figures of one side of an index stage."""
        info = report.info
        return cls(
            action=done.action,
            why=done.why,
            added=done.added,
            removed=done.removed,
            changed_share=round(info.changed / max(1, info.trained_on), 6),
            factory=info.factory,
            reason=info.reason,
            vectors=info.n,
            seconds=_rounded(report.seconds),
        )


@dataclass(slots=True)
class Figures:
    """The figures of a run; empty for stages that have not ended."""

    crawl: CrawlFigures | None = None
    changes: Changes | None = None
    encode: EncodeFigures | None = None
    index: dict[Modality, IndexFigures] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the stages' figures by name, as in ``runs/<run_id>.json``."""
        record: dict[str, Any] = {}
        if self.crawl is not None:
            crawl = msgspec.to_builtins(self.crawl)
            record["crawl"] = crawl | crawl.pop("details")
        if self.encode is not None:
            record["encode"] = msgspec.to_builtins(self.encode)
        for side, figures in self.index.items():
            record[f"index {side}"] = msgspec.to_builtins(figures)
        return record

    def rates(self, seconds: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Return the rate of each stage per second, from which later durations are estimated."""
        found: dict[str, dict[str, float]] = {}
        if seconds.get("crawl") and self.crawl is not None and self.crawl.seen:
            found["crawl"] = {"items_per_second": self.crawl.seen / seconds["crawl"]}
        if self.encode is not None:
            speeds = {
                "images_per_second": self.encode.images_per_second,
                "texts_per_second": self.encode.texts_per_second,
            }
            found["encode"] = {name: speed for name, speed in speeds.items() if speed}
        vectors = sum(figures.vectors for figures in self.index.values())
        if seconds.get("index") and vectors:
            found["index"] = {"vectors_per_second": vectors / seconds["index"]}
        return {
            stage: {name: round(value, 2) for name, value in figures.items()}
            for stage, figures in found.items()
            if figures
        }


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}
