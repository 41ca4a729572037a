"""Describe a version in text: the summary of a build, and ``status``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mmindex.core.display import visible
from mmindex.core.records import NoteKind
from mmindex.keywords.names import keyword_facts
from mmindex.media.kinds import remedy
from mmindex.models.resolve import unfit
from mmindex.runs.report import RunReport
from mmindex.store.manifest import IndexInfo, Manifest, count_not_read
from mmindex_cli.flags import as_flags
from mmindex_cli.output import Form, emit, labelled

if TYPE_CHECKING:
    from mmindex.encode.part import PartReport
    from mmindex.runs.forecast import Forecast
    from mmindex.runs.run import RunSummary


def print_run(root: Path, summary: RunSummary, form: Form) -> None:
    """Print the result of a run, and the state of the store."""
    emit(
        [summary],
        form,
        text=lambda _: (
            *summary_lines(root, summary.manifest, published=summary.published),
            *labelled(run_lines(summary.report)),
        ),
        json=lambda one: {"store": str(root.absolute()), **msgspec.to_builtins(one.report)},
    )


def summary_lines(root: Path, manifest: Manifest, *, published: bool) -> Iterator[str]:
    """Return lines about the published version."""
    headline = "published version" if published else "nothing changed; still version"
    yield f"{headline} {manifest.version}  ({visible(str(root))})"
    yield from labelled(describe(manifest))


def run_lines(report: RunReport) -> Iterator[tuple[str, str]]:
    """Return labelled lines about a run."""
    if report.changes is not None:
        yield from change_lines(report.changes)
    encode = report.reports.get("encode")
    if encode:
        yield "encoded", _encoded(encode)
        if encode["bottleneck"]:
            yield "speed", _speed(encode)
        if encode["nodes"]:
            yield "cluster", _cluster(encode)
    label = "indexed"
    for side in ("image", "text"):
        index = report.reports.get(f"index {side}")
        if index:
            yield label, f"{side} {index_line(index)}"
            label = ""
    if report.seconds:
        parts = ", ".join(f"{name} {duration(s)}" for name, s in report.seconds.items())
        yield "time", f"{duration(sum(report.seconds.values()))}: {parts}"


def print_part(root: Path, report: PartReport, form: Form) -> None:
    """Print what a part of an encoding did."""
    emit(
        [report],
        form,
        text=lambda _: (
            f"encoded part {report.part} of {report.parts}  ({visible(str(root))})",
            *labelled(_part_lines(report)),
        ),
        json=lambda one: {"store": str(root.absolute()), **msgspec.to_builtins(one)},
    )


def _part_lines(report: PartReport) -> Iterator[tuple[str, str]]:
    failed = f", {report.failed:,} failed" if report.failed else ""
    yield "encoded", f"{report.encoded_images:,} images, {report.encoded_texts:,} texts{failed}"
    if mapped := report.mapped_images + report.mapped_texts:
        yield "mapped", f"{mapped:,} vectors of the parent model"
    yield "shards", f"{report.units:,} ({report.done_before:,} existed before)"
    yield "next", "when all parts are done, run `mmindex build` or `mmindex encode`"


def print_forecast(forecast: Forecast, form: Form) -> None:
    """Print what a build would do."""
    now = f"version {forecast.version}" if forecast.version else "nothing published yet"
    emit(
        [forecast],
        form,
        text=lambda _: (
            f"{_WOULD[forecast.would]}  ({visible(forecast.store)}, {now})",
            *labelled(_forecast_lines(forecast)),
        ),
        json=msgspec.to_builtins,
    )


def _setting(value: Any) -> str:
    """Return the value of a setting as text."""
    if value is None:
        return "the default"
    return visible(" ".join(value) if isinstance(value, list | tuple) else str(value))


_WOULD = {
    "publish": "would publish a new version",
    "nothing": "would change nothing",
    "stop": "would stop without changing anything",
    "fetch": "would download missing files first",
}


def _forecast_lines(forecast: Forecast) -> Iterator[tuple[str, str]]:
    for unread in forecast.unread:
        yield "not read", f"{unread.source}: {unread.why}"
    if forecast.changes is not None:
        yield from change_lines(forecast.changes)
    for name, (before, after) in forecast.settings.items():
        yield "setting", f"{name}: {_setting(after)}, was {_setting(before)}"
    if forecast.not_read:
        yield from _not_read(forecast.not_read)
    label = "encode"
    for side, plan in forecast.encode.items():
        if plan.encode or plan.reuse or plan.mapped or plan.given:
            mapped = f", {plan.mapped:,} to compute from the parent's" if plan.mapped else ""
            given = f", {plan.given:,} to take from files" if plan.given else ""
            failed = f", {plan.failed:,} known failures" if plan.failed else ""
            known = f"{plan.encode:,} to encode, {plan.reuse:,} to reuse"
            yield label, f"{side}: {known}{mapped}{given}{failed}"
            label = ""
    for side, index in forecast.index.items():
        yield f"{side} index", index_line(msgspec.structs.asdict(index))
    if forecast.keywords and forecast.keywords != "none":
        yield "keywords", forecast.keywords
    for stop in forecast.stops:
        yield "stop", f"exit {stop.exit_code}: {as_flags(stop.message)}"
        if stop.hint:
            yield "", f"hint: {as_flags(stop.hint)}"
    needed, free = size(forecast.needed_bytes), size(forecast.free_bytes)
    yield "disk", f"{needed} needed at least, {free} free"
    if any(forecast.seconds.values()) and not forecast.stops:
        parts = ", ".join(f"{name} {duration(s)}" for name, s in forecast.seconds.items() if s)
        yield "time", f"about {duration(sum(forecast.seconds.values()))} at the last rates: {parts}"


def index_line(report: dict[str, Any]) -> str:
    """Return what a build did with an index, or would do."""
    counts = [f"{report[name]:,} {name}" for name in ("added", "removed") if report[name]]
    if report["action"] == "extended":
        return f"extended: {', '.join(counts)}"
    return f"{report['action']} ({report['why']})"


def size(count: int) -> str:
    """Return a number of bytes as text: 840 bytes, 1.1 GB."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return (
        f"{value:,.0f} {units[0]}" if value >= 99.5 or count < 1000 else f"{value:.1f} {units[0]}"
    )


def change_lines(changes: dict[str, dict[str, int]]) -> Iterator[tuple[str, str]]:
    """Return what was added, removed and replaced. In a first build, everything is new."""
    label = "changes"
    for table, delta in changes.items():
        parts = [f"{count:,} {word}" for word, count in delta.items() if count]
        if parts:
            yield label, f"{table}: {', '.join(parts)}"
            label = ""


def _cluster(encode: dict[str, Any]) -> str:
    speeds = ", ".join(
        f"{visible(name)} {node['images_per_second']:,.1f} images/s"
        for name, node in encode["nodes"].items()
    )
    retries = encode["retries"]
    return f"{speeds}; {retries:,} units restarted" if retries else speeds


def _encoded(encode: dict[str, Any]) -> str:
    reused = encode["reused_images"] + encode["reused_texts"]
    new = {"images": encode["encoded_images"], "texts": encode["encoded_texts"]}
    made = ", ".join(f"{count:,} {what}" for what, count in new.items() if count) or "nothing new"
    if encode["cut_texts"]:
        made += f" ({encode['cut_texts']:,} truncated to the context of the model)"
    mapped = encode["mapped_images"] + encode["mapped_texts"]
    if mapped:
        made += f"; {mapped:,} vectors computed from the parent's"
    given = encode["given_images"] + encode["given_texts"]
    if given:
        made += f"; {given:,} vectors taken from files"
    return f"{made}; {reused:,} vectors reused" if reused else made


def _speed(encode: dict[str, Any]) -> str:
    alone = encode["bottleneck"]["images_per_second"]
    each = ", ".join(f"{name} {speed:,.0f}" for name, speed in alone.items())
    return f"{encode['images_per_second']:,.0f} images/s; each part alone: {each}"


def duration(seconds: float) -> str:
    """Return a duration as text: 0.3 s, 12 s, 4 min 10 s, 3 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Return labelled lines about a version."""
    counts = manifest.counts
    yield "sources", ", ".join(source.spec for source in manifest.sources)
    yield "images", f"{counts.indexed:,} of {counts.seen:,} seen" + _lost(manifest)
    not_read = count_not_read(manifest.sources)
    if not_read:
        yield from _not_read(not_read)
    yield "captions", f"{counts.captions:,}" + _lost_captions(manifest)
    encoder = manifest.encoder
    if encoder is not None:
        trained = "" if encoder.trained else "  UNTRAINED: answers are meaningless"
        pretrained = f" / {encoder.pretrained}" if encoder.pretrained else ""
        yield "model", f"{encoder.model}{pretrained}, {encoder.dim}-d {encoder.precision}{trained}"
        if warning := unfit(encoder.model, (source.spec for source in manifest.sources)):
            yield "warning", warning
    for modality, info in manifest.indexes.items():
        yield f"{modality} index", _index_line(info)
    if words := keyword_facts(manifest):
        yield "keywords", f"{words.words:,} words, {size(words.bytes)}"
    missing = [stage for stage in ("crawl", "encode", "index") if stage not in manifest.stages]
    if missing:
        yield "missing", f"{', '.join(missing)}: run `mmindex {missing[0]}`"
    if manifest.evaluation:
        yield from _recall_lines(manifest.evaluation)


def _not_read(counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Return files by extension, ``12 .mp4, 3 .cr2``, and the extras that read them."""
    yield "not read", ", ".join(f"{count:,} {suffix}" for suffix, count in counts.items())
    if way := remedy(counts):
        yield "", f"hint: {way}"


_LOST_CAPTIONS = {
    NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES: "match no image",
    NoteKind.CAPTIONS_OF_REJECTED_IMAGES: "of unusable images",
    NoteKind.EMPTY_CAPTIONS: "empty",
    NoteKind.UNREADABLE_CAPTION_FILES: "unreadable caption files",
}


def _lost_captions(manifest: Manifest) -> str:
    counts = {
        words: sum(source.notes.get(kind, 0) for source in manifest.sources)
        for kind, words in _LOST_CAPTIONS.items()
    }
    counts["without a vector"] = manifest.counts.captions_quarantined
    parts = [f"{count:,} {words}" for words, count in counts.items() if count]
    return f"; not used: {', '.join(parts)}" if parts else ""


def _lost(manifest: Manifest) -> str:
    counts = manifest.counts
    parts = []
    if counts.quarantined:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.reasons.items()))
        parts.append(f"{counts.quarantined:,} quarantined ({reasons})")
    if counts.ignored:
        parts.append(f"{counts.ignored:,} ignored")
    return f"; {', '.join(parts)}" if parts else ""


def _index_line(info: IndexInfo) -> str:
    if info.exact:
        return f"exact search over {info.n:,} vectors"
    recall = "" if info.measured_recall is None else f", recall@10 {info.measured_recall:.3f}"
    return f"{info.factory} over {info.n:,} vectors, nprobe {info.nprobe}{recall}"


def _recall_lines(evaluation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, label in (("text_to_image", "text→image"), ("image_to_text", "image→text")):
        block = evaluation.get(key)
        if block:
            figures = "  ".join(f"R@{k} {block[f'r@{k}']:.1f}" for k in (1, 5, 10))
            yield label, f"{figures}  median rank {block['medr']:g}"
