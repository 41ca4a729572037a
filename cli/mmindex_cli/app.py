"""The ``mmindex`` command: registers every command; heavy imports stay inside them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import mmindex
from mmindex_cli import (
    about,
    build,
    caption,
    classify,
    dedup,
    evaluate,
    explain,
    match,
    query,
    train,
    upkeep,
)
from mmindex_cli.common import command, fail_on
from mmindex_cli.streams import open_missing_streams

app = typer.Typer(
    name="mmindex",
    help="Index and search image corpora offline: crawl, encode, index, evaluate, query.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
quarantine_app = typer.Typer(
    help="Look at what was kept out of the index.", no_args_is_help=True, rich_markup_mode=None
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmindex {mmindex.__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Index and search image corpora offline."""


for function in (
    build.build,
    build.crawl,
    build.encode,
    build.index,
    evaluate.evaluate,
    query.query,
    match.match,
    classify.classify,
    dedup.dedup,
    explain.explain,
    caption.caption,
    train.train,
    upkeep.status,
    upkeep.versions,
    upkeep.check,
    about.models,
    about.corpora,
    about.doctor,
):
    app.command()(command(function))
quarantine_app.command("list")(command(upkeep.quarantine_list))
app.add_typer(quarantine_app, name="quarantine")


def main() -> None:
    """Entry point of the installed command."""
    open_missing_streams()
    try:
        app()
    except OSError as error:  # help and version, which no command's boundary covers
        try:
            fail_on(error)
        except typer.Exit as ending:
            sys.exit(ending.exit_code)
