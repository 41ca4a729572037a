"""``schedule``: print a nightly build for cron or systemd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmindex.core.errors import UsageError
from mmindex_cli.common import store_path
from mmindex_cli.options import ConfigOption, MetricsOption, StoreOption

CronOption = Annotated[bool, typer.Option("--cron", help="Print a line for `crontab -e`.")]
SystemdOption = Annotated[
    bool, typer.Option("--systemd", help="Print a systemd service and timer.")
]
AtOption = Annotated[str, typer.Option("--at", metavar="HH:MM", help="Local time of day.")]
LogOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --cron: file to append the output to. [default: STORE.log]",
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
    """Print a crontab line or systemd units that run `build`, then `gc`, every night.

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
        raise UsageError("choose --cron or --systemd", "for example: mmindex schedule --cron")
    if config is not None:
        load_config(config, {})  # so that errors are reported now, and not at night
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
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Windows has no user ids
    folder = "/etc/systemd/system" if is_root else "~/.config/systemd/user"
    for suffix, text in (("service", service_unit(job)), ("timer", timer_unit(job))):
        typer.echo(f"# {folder}/{unit_name(job)}.{suffix}\n{text}")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _command() -> tuple[str, ...]:
    """Return the command that starts this mmindex from any directory: its script, or its module."""
    script = Path(sys.executable).absolute().with_name("mmindex")
    if os.access(script, os.X_OK):
        return (str(script),)
    return (str(Path(sys.executable).absolute()), "-P", "-m", "mmindex_cli")
