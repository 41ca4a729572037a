"""Run the ``query`` command in this process, and the captions that it searches."""

from __future__ import annotations

import click.testing
from typer.testing import CliRunner

from mmindex_cli.app import app

CAPTIONS = ("a red\tsquare", "=1+1", "<b>blue</b> \x1b[2J square", "white 白い", "black")


def run(*arguments: str, stdin: bytes | None = None) -> click.testing.Result:
    return CliRunner().invoke(app, ["query", *arguments], input=stdin)
