"""``models``, ``corpora`` and ``doctor``: what there is to work with."""

from __future__ import annotations

from typing import Annotated

import typer

from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import FormatOption


def models(
    name: Annotated[
        str | None, typer.Argument(help="Show only models whose name holds this.")
    ] = None,
    output_format: FormatOption = "text",
) -> None:
    """List the models that --model and --pretrained take; those for many languages are marked.

    Example: mmindex models ViT-B-32
    """
    import msgspec

    from mmindex.models.catalogue import list_models

    for entry in list_models(name or ""):
        if output_format == "json":
            typer.echo(msgspec.json.encode(entry).decode())
        else:
            notes = [
                *(["default"] if entry.default else []),
                *(["many languages"] if entry.multilingual else []),
                *([f"needs mmindex[{entry.extra}]"] if entry.extra else []),
            ]
            said = f"  ({'; '.join(notes)})" if notes else ""
            typer.echo(f"{entry.name:<40}{', '.join(entry.pretrained)}{said}")


def corpora(output_format: FormatOption = "text") -> None:
    """List the corpora that mmindex knows by name: size, licence, where to get them.

    Example: mmindex corpora
    """
    import msgspec

    from mmindex.sources.corpora import list_corpora

    for corpus in list_corpora():
        if output_format == "json":
            typer.echo(msgspec.json.encode(corpus).decode())
            continue
        typer.echo(f"{corpus.name}: {corpus.title}")
        typer.echo(f"  licence  {corpus.licence}")
        for split in corpus.splits:
            images, captions = (
                "?" if count is None else f"{count:,}" for count in (split.images, split.captions)
            )
            spec = f"{split.kind}:{split.name}"
            typer.echo(f"  {spec:<22}{images:>8} images  {captions:>8} captions")


def doctor(store: StoreOption = None, output_format: FormatOption = "text") -> None:
    """Check this machine: packages, GPU, disk, model hub; say what works and what does not.

    Exit code 0 when a build can run here, 69 when something that it needs is broken.

    Example: mmindex doctor
    """
    import msgspec

    from mmindex.upkeep.doctor import examine, verdict

    findings = list(examine(store_path(store)))
    for finding in findings:
        if output_format == "json":
            typer.echo(msgspec.json.encode(finding).decode())
        else:
            typer.echo(f"{finding.state:<8}{finding.what:<16}{finding.detail}")
    summary, code = verdict(findings)
    if output_format == "text":
        typer.echo(summary)
    if code:
        raise typer.Exit(code)
