"""How a version looks to a person: the closing lines of a build, and ``status``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mmindex.display import visible
from mmindex.store.manifest import IndexInfo, Manifest


def print_summary(root: Path, manifest: Manifest, *, published: bool) -> None:
    """Print what a run left in the store."""
    headline = "published version" if published else "nothing changed; still version"
    typer.echo(f"{headline} {manifest.version}  ({visible(str(root))})")
    for label, text in describe(manifest):
        typer.echo(f"  {label:<12}{text}")


def describe(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """A version in labelled lines, inert in a terminal: paths and names may hold anything."""
    for label, text in _lines(manifest):
        yield label, visible(text)


def _lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    counts = manifest.counts
    yield "sources", ", ".join(source.spec for source in manifest.sources)
    yield "images", f"{counts.indexed:,} of {counts.seen:,} seen" + _lost(manifest)
    yield "captions", f"{counts.captions:,}"
    encoder = manifest.encoder
    if encoder is not None:
        trained = "" if encoder.trained else "  UNTRAINED: answers mean nothing"
        pretrained = f" / {encoder.pretrained}" if encoder.pretrained else ""
        yield "model", f"{encoder.model}{pretrained}, {encoder.dim}-d {encoder.precision}{trained}"
    for modality, info in manifest.indexes.items():
        yield f"{modality} index", _index_line(info)
    missing = [stage for stage in ("crawl", "encode", "index") if stage not in manifest.stages]
    if missing:
        yield "missing", f"{', '.join(missing)}: run `mmindex {missing[0]}`"
    if manifest.evaluation:
        yield from _recall_lines(manifest.evaluation)


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
