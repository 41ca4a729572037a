"""Import a command only when it is used: ``status`` does not wait for ``train``.

Importing every command, with all options for typer, takes as long as everything else in
``mmindex --help``.
"""

from __future__ import annotations

import importlib
import sys
from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import typer
from typer.core import TyperGroup

from mmindex.core.display import visible
from mmindex.core.errors import MmindexError, UsageError
from mmindex_cli.boundary import run_guarded
from mmindex_cli.common import command

# Parts of pydantic's messages that newer versions of typer pass on.
_WORDS: Final = {
    ": Value error, ": ": ",
    ": Input should be greater than or equal to ": ": must be at least ",
    ": Input should be less than or equal to ": ": must be at most ",
    ": Input should be ": ": should be ",
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
    ". Did you mean ": "; did you mean ",
}
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet.

    Attributes:
        where: ``module:function`` in this package.
        summary: one line for the list of commands.
    """

    where: str
    summary: str

    def load(self, name: str) -> Any:
        """Return the click command."""
        module, _, function = self.where.partition(":")
        found = getattr(importlib.import_module(f"mmindex_cli.{module}"), function)
        alone = typer.Typer(
            add_completion=False, rich_markup_mode=None, context_settings=HELP_OPTIONS
        )
        alone.command(name)(command(found))
        return typer.main.get_command(alone)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of commands with a common name."""

    summary: str
    entries: Mapping[str, Entry]

    def load(self, name: str) -> Any:
        """Return the click group, without importing its commands."""
        kind = type(f"{name}_commands", (LazyCommands,), {"entries": self.entries})
        return kind(
            name=name,
            help=self.summary,
            no_args_is_help=True,
            rich_markup_mode=None,
            context_settings=HELP_OPTIONS,
        )


class _Loading(UserDict[str, Any]):
    """Commands by name, each loaded on first access."""

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, Entry | Group):
            found = self.data[name] = found.load(name)
        return found


class LazyCommands(TyperGroup):
    """A group that lists its commands without importing them.

    Attributes:
        entries: the commands, in the order of their list.
    """

    entries: Mapping[str, Entry | Group] = {}

    def __init__(self, **settings: Any) -> None:
        """Create a typer group with the commands ``entries``."""
        super().__init__(**{**settings, "commands": None})
        self.commands: Any = _Loading(self.entries)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # click's own
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *_others: Any,
        **extra: Any,
    ) -> Any:
        """Run a command line inside the error boundary and exit."""
        words = list(sys.argv[1:] if args is None else args)
        known = {name: extra[name] for name in ("obj", "color") if name in extra}

        def run() -> None:
            with self.make_context(prog_name or "mmindex", list(words), **known) as context:
                self.invoke(context)

        sys.exit(run_guarded(run, partial(_explained, self, words)))


def _explained(group: TyperGroup, words: Sequence[str], error: Any) -> MmindexError | int:
    """Convert a usage error of click to an mmindex error, or to an exit code if it printed help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # the message is the help text
        return int(error.exit_code)
    message, path = visible(_message(error)), _path(group, words)
    extra = words[-1:] if message.startswith("got unexpected extra argument") else []
    if path in {"mmindex build", "mmindex crawl"} and extra and not extra[0].startswith("-"):
        return UsageError(message, f"did you mean --source folder:{extra[0]}?")
    return UsageError(message, f"`{path} --help` shows the usage")


def _message(error: Any) -> str:
    option, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if option is not None and near is not None:
        guess = f"; did you mean {', '.join(sorted(near))}?" if near else ""
        return f"no such option: {option}{guess}"
    text = " ".join(str(error.format_message()).split())
    for words, ours in _WORDS.items():
        text = text.replace(words, ours)
    return text[:1].lower() + text[1:].removesuffix(".")


def _path(group: TyperGroup, words: Sequence[str]) -> str:
    """Return the command that the words name, such as ``mmindex quarantine list``."""
    names, here = ["mmindex"], group
    for word in words:
        commands = getattr(here, "commands", {})
        if word not in commands:
            break
        names.append(word)
        here = commands[word]
    return " ".join(names)
