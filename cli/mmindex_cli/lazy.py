"""Commands that are imported when they are asked for: ``status`` does not wait for ``train``.

Importing every command and having typer look at every option takes as long as all the rest of
``mmindex --help``.
"""

from __future__ import annotations

import importlib
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from mmindex_cli.common import command
from mmindex_cli.usage import Commands

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, slots=True)
class Entry:
    """One command, not yet imported.

    Attributes:
        where: ``module:function`` inside this package.
        summary: the first line of the function's description, for the list of commands.
    """

    where: str
    summary: str

    def load(self, name: str) -> Any:
        """The command as click sees it."""
        module, _, function = self.where.partition(":")
        found = getattr(importlib.import_module(f"mmindex_cli.{module}"), function)
        alone = typer.Typer(
            add_completion=False, rich_markup_mode=None, context_settings=HELP_OPTIONS
        )
        alone.command(name)(command(found))
        return typer.main.get_command(alone)


@dataclass(frozen=True, slots=True)
class Group:
    """Commands under one word."""

    summary: str
    entries: Mapping[str, Entry]

    def load(self, name: str) -> Any:
        """The group as click sees it; its own commands stay unimported."""
        kind = type(f"{name}_commands", (LazyCommands,), {"entries": self.entries})
        return kind(
            name=name,
            help=self.summary,
            no_args_is_help=True,
            rich_markup_mode=None,
            context_settings=HELP_OPTIONS,
        )


class _Loading(UserDict[str, Any]):
    """Commands by name, each loaded when it is first looked at."""

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, Entry | Group):
            found = self.data[name] = found.load(name)
        return found


class LazyCommands(Commands):
    """A group that lists its commands without importing them.

    Attributes:
        entries: the commands, in the order of their list.
    """

    entries: Mapping[str, Entry | Group] = {}

    def __init__(self, **settings: Any) -> None:
        """As typer's own group, whose commands are ``entries``."""
        super().__init__(**{**settings, "commands": None})
        self.commands: Any = _Loading(self.entries)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # click's own
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])
