"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DeviceOption = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:N.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Only images that fulfil a condition on their columns, such as "
        "\"width >= 640 and split = 'val'\".",
    ),
]
