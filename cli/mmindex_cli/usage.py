"""Mistakes in a command line, said as all other errors are: one ``error:`` and one ``hint:``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import typer
from typer.core import TyperGroup

from mmindex.core.display import visible
from mmindex_cli.streams import say

# Newer typers carry click inside, older ones use the package: this is either's ClickException.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
# What newer typers pass on of pydantic's way to speak.
_WORDS: Final = {
    ": Value error, ": ": ",
    ": Input should be ": ": should be ",
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
    ". Did you mean ": "; did you mean ",
}


class Commands(TyperGroup):
    """The group of all commands; only how it words mistakes differs from typer's own."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; ends the process unless ``standalone_mode`` is off."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return run(**extra)
        words = sys.argv[1:] if args is None else args
        try:
            code = run(**extra)
        except _CommandLineError as error:
            code = _explain(self, words, error)
        except typer.Abort:
            say("error: aborted")
            code = 1
        sys.exit(code)


def _explain(group: TyperGroup, words: Sequence[str], error: Any) -> int:
    """Say what is wrong and where to read on; returns the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # its text is the help
    else:
        say(f"error: {visible(_message(error))}")
        say(f"hint: `{_path(group, words)} --help` shows what there is")
    return int(error.exit_code)


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
    """The command that the words name, as far as they do: ``mmindex quarantine list``."""
    names, here = ["mmindex"], group
    for word in words:
        commands = getattr(here, "commands", {})
        if word not in commands:
            break
        names.append(word)
        here = commands[word]
    return " ".join(names)
