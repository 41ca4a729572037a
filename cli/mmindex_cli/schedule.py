"""``schedule``: a nightly build for cron or systemd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmindex.core.errors import UsageError
from mmindex_cli.build_options import ConfigOption, MetricsOption
from mmindex_cli.common import StoreOption, store_path

CronOption = Annotated[bool, typer.Option("--cron", help="Print a line for `crontab -e`.")]
SystemdOption = Annotated[
    bool, typer.Option("--systemd", help="Print a service and a timer for systemd.")
]
AtOption = Annotated[str, typer.Option("--at", metavar="HH:MM", help="Local time of day.")]
LogOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="cron: where output is appended; systemd has its journal. [default: STORE.log]",
        show_default=False,
    ),
]


def schedule(
    cron: CronOption = False,
    systemd: SystemdOption = False,
    at: AtOption = "03:15",
    store: StoreOption = None,
    config: ConfigOption = None,
    metrics_file: MetricsOption = None,
    log: LogOption = None,
) -> None:
    """Print what runs `build`, then `gc`, every night: ready to paste, with absolute paths.

    Example: mmindex schedule --cron --store ~/coco.mmindex --at 03:15
    """
    from mmindex.core.config import load_config
    from mmindex.upkeep.schedule import (
        Job,
        cron_line,
        parse_at,
        service_unit,
        timer_unit,
        unit_name,
    )

    if cron == systemd:
        raise UsageError("say --cron or --systemd", "for example: mmindex schedule --cron")
    if config is not None:
        load_config(config, {})  # a mistake in it is to show now, not at night
    job = Job(
        command=_command(),
        store=_absolute(store_path(store)),
        at=parse_at(at),
        config=None if config is None else _absolute(config),
        metrics=None if metrics_file is None else _absolute(metrics_file),
        log=None if log is None else _absolute(log),
    )
    if cron:
        typer.echo(cron_line(job))
        return
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Windows has no such number
    folder = "/etc/systemd/system" if is_root else "~/.config/systemd/user"
    for suffix, text in (("service", service_unit(job)), ("timer", timer_unit(job))):
        typer.echo(f"# {folder}/{unit_name(job)}.{suffix}\n{text}")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _command() -> tuple[str, ...]:
    """How this mmindex is started from anywhere: by its script, or as a module."""
    script = Path(sys.executable).absolute().with_name("mmindex")
    if os.access(script, os.X_OK):
        return (str(script),)
    return (str(Path(sys.executable).absolute()), "-P", "-m", "mmindex_cli")
