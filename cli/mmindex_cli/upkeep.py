"""``status``, ``versions``, ``check`` and ``quarantine list``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmindex.display import visible
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import FormatOption


def status(store: StoreOption = None, output_format: FormatOption = "text") -> None:
    """Show what the store holds and how good its answers are.

    Example: mmindex status --format json
    """
    import msgspec

    from mmindex.errors import NoInputError
    from mmindex.store import versions
    from mmindex_cli.output import inert_json
    from mmindex_cli.summary import describe

    root = store_path(store)
    manifest = versions.read_current(versions.open_layout(root))
    if manifest is None:
        raise NoInputError(f"{root}: nothing is published yet", "run `mmindex build`")
    if output_format == "json":
        shown = msgspec.structs.asdict(manifest)
        del shown["objects"]
        size = sum({ref.sha256: ref.bytes for ref in manifest.objects}.values())
        record = msgspec.to_builtins({**shown, "store": str(root), "bytes": size})
        typer.echo(inert_json(record))
        return
    typer.echo(f"{visible(str(root))}: version {manifest.version}, made {manifest.created_at}")
    for label, text in describe(manifest):
        typer.echo(f"  {label:<12}{text}")


def versions(store: StoreOption = None, output_format: FormatOption = "text") -> None:
    """List the versions that the store keeps, oldest first; * marks the published one.

    Example: mmindex versions
    """
    from mmindex.store import versions as stored
    from mmindex_cli.output import inert_json

    layout = stored.open_layout(store_path(store))
    current = stored.current_number(layout)
    for number in stored.list_versions(layout):
        manifest = stored.read_version(layout, number)
        row = {
            "version": number,
            "current": number == current,
            "created_at": manifest.created_at,
            "images": manifest.counts.indexed,
            "captions": manifest.counts.captions,
            "model": manifest.encoder.model if manifest.encoder else None,
            "stages": manifest.stages,
        }
        if output_format == "json":
            typer.echo(inert_json(row))
        else:
            typer.echo(
                f"{'*' if row['current'] else ' '} {number:>4}  {manifest.created_at}  "
                f"{manifest.counts.indexed:>10,} images  {manifest.counts.captions:>10,} captions  "
                f"{visible(str(row['model'] or 'not encoded'))}"
            )


def check(
    store: StoreOption = None,
    full: Annotated[bool, typer.Option("--full", help="Read and hash every object.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Point CURRENT at the newest sound version.")
    ] = False,
) -> None:
    """Check that the store is sound: manifests, objects, and that search still answers as built.

    Exit code 65 and one line for each problem when it is not.

    Example: mmindex check --full
    """
    from mmindex.errors import DataError
    from mmindex.search.golden import check_golden
    from mmindex.store import check as checks
    from mmindex.store import versions as stored
    from mmindex.store.lock import writer_lock

    layout = stored.open_layout(store_path(store))
    if repair:
        with writer_lock(layout):
            typer.echo(f"CURRENT points at version {checks.repair(layout)}")
    report = checks.check(layout, full=full)
    problems = report.problems or check_golden(layout)
    for problem in problems:
        typer.echo(visible(problem))
    if problems:
        raise DataError(f"{len(problems)} problem(s) in {layout.root}", "run `mmindex build`")
    depth = "read and hashed" if full else "present"
    typer.echo(
        f"sound: {report.versions} version(s), {report.objects} objects {depth}, "
        f"{report.bytes:,} bytes"
    )


def quarantine_list(store: StoreOption = None, output_format: FormatOption = "text") -> None:
    """List what the newest run kept out of the index, and why.

    Example: mmindex quarantine list --format json
    """
    import msgspec

    from mmindex.store.quarantine import read_ledger
    from mmindex.store.versions import open_layout
    from mmindex_cli.output import inert_json, printable

    for entry in read_ledger(open_layout(store_path(store))):
        if output_format == "json":
            typer.echo(inert_json(msgspec.to_builtins(entry)))
        else:
            typer.echo(f"{entry.reason:<20}{printable(entry.id)}  {printable(entry.detail)}")
