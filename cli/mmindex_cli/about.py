"""``models``, ``corpora`` and ``doctor``: list models and corpora, and check the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex_cli.common import store_path
from mmindex_cli.options import StoreOption, TextFormat

if TYPE_CHECKING:
    from mmindex.models.catalogue import ModelEntry
    from mmindex.sources.corpora import Corpus
    from mmindex.upkeep.doctor import Finding


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Only models whose names contain this text."),
    ] = None,
    output_format: TextFormat = "text",
) -> None:
    """List the names that --model and --pretrained accept. Multilingual models are marked.

    Example: mmindex models ViT-B-32
    """
    import msgspec

    from mmindex.models.catalogue import list_models
    from mmindex_cli.output import emit

    entries = list_models(name or "")
    emit(entries, output_format, text=_model_lines, json=msgspec.to_builtins, compact=True)


def _model_lines(entries: Iterable[ModelEntry]) -> Iterator[str]:
    for entry in entries:
        notes = [
            *(["default"] if entry.default else []),
            *(["multilingual"] if entry.multilingual else []),
            *([f"needs mmindex[{entry.extra}]"] if entry.extra else []),
        ]
        note = f"  ({'; '.join(notes)})" if notes else ""
        yield f"{entry.name:<40}{', '.join(entry.pretrained)}{note}"


def corpora(output_format: TextFormat = "text") -> None:
    """List the corpora that mmindex can download by name, with size and licence.

    Example: mmindex corpora
    """
    import msgspec

    from mmindex.sources.corpora import list_corpora
    from mmindex_cli.output import emit

    known = list_corpora()
    emit(known, output_format, text=_corpus_lines, json=msgspec.to_builtins, compact=True)


def _corpus_lines(corpora: Iterable[Corpus]) -> Iterator[str]:
    for corpus in corpora:
        yield f"{corpus.name}: {corpus.title}"
        yield f"  licence  {corpus.licence}"
        for split in corpus.splits:
            images, captions = (
                "?" if count is None else f"{count:,}" for count in (split.images, split.captions)
            )
            spec = f"{split.kind}:{split.name}"
            yield f"  {spec:<22}{images:>8} images  {captions:>8} captions"


def doctor(
    store: StoreOption = None,
    model: Annotated[str | None, typer.Option(help="The model that you want to use.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT", help="Also check the nodes of this Ray cluster."),
    ] = None,
    output_format: TextFormat = "text",
) -> None:
    """Check whether a build can run on this machine: packages, GPU, disk and model.

    It checks the model of --model, otherwise the model of the store, otherwise the default model
    for photos. With --cluster, it also checks each node, as a build does. Exit code 0 means ready;
    69 means that you must fix something first.

    Example: mmindex doctor --model embedded
    """
    import msgspec

    from mmindex.upkeep.doctor import examine, verdict
    from mmindex_cli.output import emit

    findings: list[Finding] = []

    def examined() -> Iterator[Finding]:
        for one in examine(store_path(store), model, pretrained, cluster):
            findings.append(one)
            yield one

    def lines(found: Iterable[Finding]) -> Iterator[str]:
        for one in found:
            yield f"{one.state:<8}{one.what:<16}{visible(one.detail)}"
        yield verdict(findings)[0]

    emit(examined(), output_format, text=lines, json=msgspec.to_builtins, compact=True)
    if code := verdict(findings)[1]:
        raise typer.Exit(code)
