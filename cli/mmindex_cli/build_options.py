"""Options of ``build`` and of the single stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmindex.sources.registry import built_in

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings; flags win over it.")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="KIND:PLACE[#SPLIT]",
        help=f"What to index, such as folder:~/Pictures or coco:val2017 (fetched). Kinds: "
        f"{', '.join(built_in())}. Repeat it to index several sources.",
    ),
]
AllFilesOption = Annotated[
    bool, typer.Option("--all-files", help="folder: sources try every file by its content.")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="folder: sources leave out what matches: a name ('*.png', 'Exports') or a path "
        "('2019/**'). Repeatable; the store remembers it.",
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="folder: sources take only what matches. Repeatable; the store remembers it.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="open_clip model name, `embedded`, local-dir:PATH or hf-hub:ORG/REPO."),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option(help="Weights: a tag, a .safetensors path, or `none` for an untrained model."),
]
PickleOption = Annotated[
    bool,
    typer.Option("--allow-pickle-weights", help="Also load .pt/.bin weights (weights-only)."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda (all), cuda:N or cuda:N,M.")
]
BatchOption = Annotated[int | None, typer.Option(help="Images in a batch. [default: 64]")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Decode processes; 0: none. [default: one a core]")
]
PrecisionOption = Annotated[str | None, typer.Option(help="auto, fp32, bf16, fp16, or int8 (CPU).")]
IndexOption = Annotated[
    str | None,
    typer.Option("--index", help="auto, exact, ivfpq, ivfflat, sq8, or a FAISS factory string."),
]
RecallOption = Annotated[
    float | None, typer.Option(help="Share of exact answers the index must find. [default: 0.95]")
]
RefineOption = Annotated[
    str | None,
    typer.Option(
        help="What an index is re-ranked with: fp16, or sq8 for half the bytes. [default: fp16]"
    ),
]
QuarantineOption = Annotated[
    float | None, typer.Option(help="Share of items that may be unusable. [default: 0.01]")
]
RemovedOption = Annotated[
    float | None,
    typer.Option(help="Share of the corpus that may vanish since the last build. [default: 0.2]"),
]
MetricsOption = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file",
        metavar="FILE.prom",
        help="Write what the run did for node exporter's textfile collector (Prometheus).",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what a build would do, and change nothing. Downloads nothing."
    ),
]
