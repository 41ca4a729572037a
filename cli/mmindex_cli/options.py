"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

DeviceOption = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:N.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Leave out images, and their captions, unless they fulfil a condition on their "
        "columns: \"width >= 640 and split = 'val'\".",
    ),
]
FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="text for people, json for scripts.")
]
