"""An evaluation as one HTML file, see :mod:`mmindex.pages.page`.

Charts are SVG from the template, with the fonts and the colour scheme of the reader's system. The
page contains no local paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.evaluate.bootstrap import REPLICATES, Interval, recall_intervals
from mmindex.evaluate.contrast import Contrast, DirectionContrast
from mmindex.evaluate.corpus import Corpus
from mmindex.evaluate.directions import Direction
from mmindex.evaluate.evaluation import (
    Evaluation,
    JudgedFigures,
    Reliabilities,
    Reliability,
)
from mmindex.evaluate.expect import Comparison
from mmindex.evaluate.history import PastVersion, past_versions
from mmindex.evaluate.recall import Recall
from mmindex.evaluate.speed import Speed, measure_speed
from mmindex.evaluate.stage import Measured
from mmindex.pages.charts import Axis, Bin, Mark, Tick, log_axis, percent_axis, rank_bins
from mmindex.pages.collection import collection
from mmindex.pages.page import Renderer, render, shown_model, shown_name
from mmindex.pages.showcase import MovedExample, Showcase, moved_examples, showcase
from mmindex.search.vectorize import warning_about
from mmindex.store import quarantine, versions
from mmindex.store.snapshot import Snapshot

# Each example shows up to two images of about 30 KB.
_EXAMPLES = 4
_REASON_EXAMPLES = 3
_MOST_TICKS = 12


@dataclass(frozen=True, slots=True)
class RecallRow:
    """Recall@K: exact with its interval, through the index, and the best possible, in percent."""

    exact: Interval
    index: float
    ceiling: float | None


@dataclass(frozen=True, slots=True)
class ReliabilityPart:
    """The reliability of one direction; the marks are bins of first hits."""

    figures: Reliability
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class DirectionPart:
    """One direction on the page."""

    title: str
    asked: str
    found: str
    summary: Recall
    rows: tuple[RecallRow, ...]
    bins: tuple[Bin, ...]
    examples: Showcase
    reliability: ReliabilityPart | None


@dataclass(frozen=True, slots=True)
class SpeedPart:
    """The curve of an index; the axes are None for exact search, which has one point.

    ``size_bytes``: the size of its vectors and its FAISS index on disk.

    ``frontier``: no other setting is better in both respects, as measured now; ``others``: the
    rest; ``chosen``: the one in use.
    """

    speed: Speed
    size_bytes: int
    across: Axis | None = None
    upright: Axis | None = None
    frontier: tuple[Mark, ...] = ()
    others: tuple[Mark, ...] = ()
    chosen: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasonPart:
    """A quarantine reason: number of items, share of the bar, and some ids."""

    reason: str
    count: int
    share: float
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """The versions, and the marks of their recall@1; no axis if fewer than two have it.

    ``cut``: the store keeps older ones that are not shown.
    """

    versions: tuple[PastVersion, ...]
    cut: bool
    upright: Axis | None
    ticks: tuple[Tick, ...]
    to_image: tuple[Mark, ...]
    to_text: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class ContrastPart:
    """One direction of the comparison with another version."""

    title: str
    found: str
    contrast: DirectionContrast
    better: tuple[MovedExample, ...]
    worse: tuple[MovedExample, ...]


def report_page(
    snapshot: Snapshot,
    measured: Measured,
    config: EvaluateConfig,
    comparison: Comparison | None = None,
    against: Contrast | None = None,
    judged: JudgedFigures | None = None,
    *,
    render: Renderer = render,
) -> str:
    """Return the HTML page of an evaluation, and measure the speed of the indexes.

    Args:
        snapshot: the version.
        measured: the evaluation.
        config: the settings of the evaluation.
        comparison: the comparison with expected figures.
        against: the comparison with another version.
        judged: the figures with the right answers of a file.
        render: renders the page, with a frame of its own.

    Raises:
        DataError: the store's tables are damaged.
    """
    return render(
        "report.html",
        ["base.css", "cards.css", "tables.css", "report.css"],
        manifest=snapshot.manifest,
        sources=", ".join(dict.fromkeys(source.name for source in snapshot.manifest.sources))
        or "Corpus",
        model=shown_model(snapshot.encoder),
        evaluation=measured.evaluation,
        directions=_directions(snapshot, measured, config),
        speeds=_speeds(snapshot, measured.corpus, config),
        reasons=_reasons(snapshot),
        history=_history(snapshot, measured.evaluation),
        comparison=comparison,
        against=against,
        judged=judged,
        other=None if against is None else shown_name(against.model),
        other_store="" if against is None else Path(against.store).name,
        contrasts=_contrasts(snapshot, measured, against),
        replicates=REPLICATES,
        collection=collection(snapshot),
        warnings=_warnings(snapshot, comparison),
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _contrasts(
    snapshot: Snapshot, measured: Measured, against: Contrast | None
) -> tuple[ContrastPart, ...]:
    to_image, to_text = measured.text_to_image, measured.image_to_text
    if against is None or to_image is None or to_text is None:
        return ()

    def part(
        title: str, direction: Direction, contrast: DirectionContrast, *, is_text: bool
    ) -> ContrastPart:
        better, worse = (
            moved_examples(
                snapshot, measured.corpus, direction, moved[:_EXAMPLES], to_image=is_text
            )
            for moved in (contrast.better, contrast.worse)
        )
        return ContrastPart(title, "image" if is_text else "caption", contrast, better, worse)

    return (
        part("Text to image", to_image, against.text_to_image, is_text=True),
        part("Image to text", to_text, against.image_to_text, is_text=False),
    )


def _warnings(snapshot: Snapshot, comparison: Comparison | None) -> list[str]:
    warning = warning_about(snapshot)
    found = [] if warning is None else [warning]
    if comparison is not None and comparison.outside:
        outside, all_of_them = len(comparison.outside), len(comparison.figures)
        found.append(f"{outside} of {all_of_them} figures are not as expected.")
    return found


def _directions(
    snapshot: Snapshot, measured: Measured, config: EvaluateConfig
) -> tuple[DirectionPart, ...]:
    to_image, to_text = measured.text_to_image, measured.image_to_text
    if to_image is None or to_text is None:
        return ()
    return (
        _direction(snapshot, measured, to_image, config, to_image=True),
        _direction(snapshot, measured, to_text, config, to_image=False),
    )


def _direction(
    snapshot: Snapshot,
    measured: Measured,
    direction: Direction,
    config: EvaluateConfig,
    *,
    to_image: bool,
) -> DirectionPart:
    corpus, best = measured.corpus, measured.evaluation.ceiling
    intervals = recall_intervals(direction.ranks, direction.images, config.seed)
    index = direction.through_index
    through = index.r1, index.r5, index.r10
    ceilings: tuple[float | None, ...] = (None, None, None)
    if best is not None:
        side = best.text_to_image if to_image else best.image_to_text
        ceilings = side.r1, side.r5, side.r10
    gallery = len(corpus.images.id_of_row) if to_image else len(corpus.image_of_caption)
    return DirectionPart(
        title="Text to image" if to_image else "Image to text",
        asked="captions" if to_image else "images",
        found="image" if to_image else "caption",
        summary=direction.exact,
        rows=tuple(RecallRow(*row) for row in zip(intervals, through, ceilings, strict=True)),
        bins=rank_bins(direction.ranks, gallery),
        examples=showcase(snapshot, corpus, direction, to_image=to_image, count=_EXAMPLES),
        reliability=_reliability(measured.evaluation.reliability, to_image=to_image),
    )


def _reliability(known: Reliabilities | None, *, to_image: bool) -> ReliabilityPart | None:
    if known is None:
        return None
    figures = known.text_to_image if to_image else known.image_to_text
    if figures is None:
        return None
    marks = tuple(
        Mark(
            round(100 * one.probability, 3),
            round(100 - 100 * one.right, 3),
            f"{one.hits:,} first hits: {100 * one.probability:.1f} % expected, "
            f"{100 * one.right:.1f} % right",
        )
        for one in figures.first_hits.bins
        if one.probability is not None and one.right is not None
    )
    return ReliabilityPart(figures, marks)


def _speeds(snapshot: Snapshot, corpus: Corpus, config: EvaluateConfig) -> tuple[SpeedPart, ...]:
    asked = {Modality.IMAGE: corpus.captions or corpus.images, Modality.TEXT: corpus.images}
    return tuple(
        _speed_part(snapshot, measure_speed(snapshot, side, asked[side].vectors, config.seed))
        for side in Modality
        if side in snapshot.manifest.indexes
    )


def _speed_part(snapshot: Snapshot, speed: Speed) -> SpeedPart:
    objects = snapshot.manifest.named((f"vectors/{speed.side}", f"index/{speed.side}"))
    size_bytes = sum(ref.bytes for ref in objects)
    known = [(point, point.recall) for point in speed.points if point.recall is not None]
    if speed.info.exact or not known:
        return SpeedPart(speed, size_bytes)
    across = log_axis([point.queries_per_s for point, _ in known])
    upright = percent_axis([*(found for _, found in known), 100 * speed.info.recall_target])
    frontier: list[Mark] = []
    others: list[Mark] = []
    chosen: list[Mark] = []
    best = -1.0
    for point, found in sorted(known, key=lambda pair: -pair[0].queries_per_s):
        label = (
            f"nprobe {point.nprobe}, {point.k_factor} re-ranked per hit: {found:.1f} % at "
            f"{point.queries_per_s:,.0f} queries/s"
        )
        mark = Mark(across.at(point.queries_per_s), upright.at(found), label)
        (frontier if found > best else others).append(mark)
        best = max(best, found)
        if point.chosen:
            chosen.append(mark)
    return SpeedPart(
        speed, size_bytes, across, upright, tuple(frontier), tuple(others), tuple(chosen)
    )


def _reasons(snapshot: Snapshot) -> tuple[ReasonPart, ...]:
    entries = quarantine.read_entries(snapshot.objects, snapshot.manifest.find("quarantine"))
    counts = quarantine.count_reasons(entries)
    most = max(counts.values(), default=1)
    return tuple(
        ReasonPart(
            reason=reason.replace("_", " "),
            count=count,
            share=round(100 * count / most, 2),
            ids=tuple(entry.id for entry in entries if entry.reason == reason)[:_REASON_EXAMPLES],
        )
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def _history(snapshot: Snapshot, evaluation: Evaluation) -> HistoryPart:
    found = past_versions(snapshot, evaluation)
    cut = found[0].version > min(versions.list_versions(snapshot.layout))
    points = {
        side: [
            (number, past.version, block.r1)
            for number, past in enumerate(found)
            if past.evaluation is not None and (block := getattr(past.evaluation, side)) is not None
        ]
        for side in ("text_to_image", "image_to_text")
    }
    shown = [r1 for line in points.values() for _, _, r1 in line]
    if len(shown) < 2 * len(points):
        return HistoryPart(found, cut, None, (), (), ())
    upright = percent_axis(shown)
    across = [round(100 * (number + 0.5) / len(found), 3) for number in range(len(found))]
    to_image, to_text = (
        tuple(
            Mark(across[number], upright.at(r1), f"version {version}: R@1 {r1:.1f} %")
            for number, version, r1 in line
        )
        for line in points.values()
    )
    every = math.ceil(len(found) / _MOST_TICKS)
    # Counted from the newest version, which always has a tick.
    ticks = tuple(
        Tick(across[number], str(found[number].version))
        for number in range(len(found) - 1, -1, -every)
    )
    return HistoryPart(found, cut, upright, ticks, to_image, to_text)
