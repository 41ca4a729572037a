"""``completion``: scripts that complete command lines without starting mmindex.

A script contains every command and option of this version, so that pressing Tab does not start
Python. Print it again after an upgrade.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import typer

Shell = Literal["bash", "zsh", "fish"]

_FILE: Final = "file"
_FOLDER: Final = "folder"


@dataclass(frozen=True, slots=True)
class _Option:
    """One option.

    Attributes:
        names: all spellings.
        value: None for a flag, ``file``, ``folder``, or another text for any other value.
        choices: the allowed values, if they are known.
        help: the help text on one line.
    """

    names: tuple[str, ...]
    value: str | None
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class _Command:
    """One command, or a group with its commands and their summaries."""

    options: tuple[_Option, ...]
    below: Mapping[str, str]


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")],
) -> None:
    """Print a completion script for your shell.

    bash: mmindex completion bash > ~/.local/share/bash-completion/completions/mmindex

    zsh: mmindex completion zsh > DIR/_mmindex, where DIR is in $fpath

    fish: mmindex completion fish > ~/.config/fish/completions/mmindex.fish

    Example: mmindex completion bash
    """
    from mmindex_cli.app import app

    commands = dict(_commands(typer.main.get_command(app), ""))
    script: Mapping[Shell, Callable[[Mapping[str, _Command]], Iterator[str]]] = {
        "bash": _bash,
        "zsh": _zsh,
        "fish": _fish,
    }
    for line in script[shell](commands):
        typer.echo(line)


def _commands(command: Any, path: str) -> Iterator[tuple[str, _Command]]:
    """Return all commands by path, such as ``/quarantine/list``; the path of the root is empty."""
    entries = getattr(command, "entries", {})
    below = {name: entry.summary for name, entry in entries.items()}
    help_names = ("-h", "--help")
    # From the function, because typer stores the types of parameters differently in each release.
    kinds = {
        name: _plain(parameter.annotation)
        for name, parameter in inspect.signature(command.callback).parameters.items()
    } if command.callback is not None else {}  # fmt: skip
    options = [
        _option(one, kinds.get(one.name)) for one in command.params if hasattr(one, "is_flag")
    ]
    options += [_Option(help_names, None, (), "Show help.")]
    yield path, _Command(tuple(options), below)
    for name in below:
        yield from _commands(command.commands[name], f"{path}/{name}")


def _plain(annotation: Any) -> Any:
    """Return the type ``T`` in ``Annotated[T | None, ...]``."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    some = [one for one in get_args(kind) if one is not type(None)]
    return some[0] if isinstance(kind, UnionType) or get_origin(kind) is Union else kind


def _option(param: Any, kind: Any) -> _Option:
    from mmindex.core.records import Reason
    from mmindex.sources.registry import names

    sources = tuple(f"{kind}:" for kind in names())
    known = {"source": sources, "validate": sources, "reason": tuple(Reason)}
    choices = known.get(param.name, get_args(kind) if get_origin(kind) is Literal else ())
    value = None
    if not param.is_flag:
        is_path = kind is Path or param.name in {"image", "plus", "minus", "pretrained"}
        value = _FOLDER if param.name in {"store", "out"} else _FILE if is_path else ""
    spelled = tuple(dict.fromkeys((*param.opts, *param.secondary_opts)))
    return _Option(spelled, value, tuple(map(str, choices)), " ".join((param.help or "").split()))


def _bash(commands: Mapping[str, _Command]) -> Iterator[str]:
    yield from (
        "# mmindex completion for bash",
        "_mmindex() {",
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" at="" i',
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        case "$at/${COMP_WORDS[i]}" in',
        f'            {"|".join(filter(None, commands))}) at="$at/${{COMP_WORDS[i]}}" ;;',
        "        esac",
        "    done",
        '    case "$at $prev" in',
    )
    for path, command in commands.items():
        for option in command.options:
            if option.value is None:
                continue
            patterns = "|".join(f'"{path} {name}"' for name in option.names)
            if option.choices:
                action = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur"))'
                if option.choices[0].endswith(":"):
                    action += "; compopt -o nospace"
            elif option.value == _FOLDER:
                action = 'COMPREPLY=($(compgen -d -- "$cur"))'
            else:
                action = ":" if option.value == _FILE else "compopt +o default"
            yield f"        {patterns}) {action}; return ;;"
    yield "    esac"
    yield '    case "$at" in'
    for path, command in commands.items():
        names = " ".join(name for option in command.options for name in option.names)
        words = " ".join(command.below)
        yield f'        "{path}")'
        yield f'            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "{names}" -- "$cur"))'
        if words:
            yield f'            else COMPREPLY=($(compgen -W "{words}" -- "$cur")); fi ;;'
        else:
            yield "            fi ;;"
    yield from ("    esac", "}", "complete -o default -F _mmindex mmindex")


def _zsh(commands: Mapping[str, _Command]) -> Iterator[str]:
    yield from ("#compdef mmindex", "# mmindex completion for zsh")
    for path, command in commands.items():
        yield f"{_function(path)}() {{"
        yield "    local line state"
        arguments = [_zsh_option(option) for option in command.options]
        if command.below:
            arguments += ["'1:command:->command'", "'*::argument:->argument'"]
        else:
            arguments += ["'*:file:_files'"]
        yield "    _arguments -s -C \\"
        for number, argument in enumerate(arguments):
            yield f"        {argument}" + (" \\" if number < len(arguments) - 1 else "")
        if command.below:
            yield "    case $state in"
            yield "    command)"
            yield "        local -a below=("
            for name, summary in command.below.items():
                yield f"            {shlex.quote(f'{name}:{summary}')}"
            yield "        )"
            yield "        _describe command below ;;"
            yield "    argument)"
            yield "        case $line[1] in"
            for name in command.below:
                yield f"        {name}) {_function(f'{path}/{name}')} ;;"
            yield "        esac ;;"
            yield "    esac"
        yield "}"
    yield "if [[ $funcstack[1] == _mmindex ]]; then"
    yield '    _mmindex "$@"'
    yield "else"
    yield "    compdef _mmindex mmindex"
    yield "fi"


def _function(path: str) -> str:
    return "_mmindex" + path.replace("/", "_")


def _zsh_option(option: _Option) -> str:
    text = option.help.replace("\\", "\\\\")
    for char in "[]:":
        text = text.replace(char, f"\\{char}")
    takes = ""
    if option.value is not None:
        values = {_FILE: "_files", _FOLDER: "_files -/"}.get(option.value, " ")
        if option.choices:
            values = f"({' '.join(one.replace(':', chr(92) + ':') for one in option.choices)})"
        takes = f":value:{values}"
    each = (shlex.quote(f"*{name}[{text}]{takes}") for name in option.names)
    return " ".join(each)


def _fish(commands: Mapping[str, _Command]) -> Iterator[str]:
    yield "# mmindex completion for fish"
    for path, command in commands.items():
        parts = path.split("/")[1:]
        seen = "; and ".join(f"__fish_seen_subcommand_from {part}" for part in parts)
        names = " ".join(command.below)
        for name, summary in command.below.items():
            missing = f"not __fish_seen_subcommand_from {names}"
            when = f"{seen}; and {missing}" if seen else missing
            told = f"-a {name} -d {_fish_quote(summary)}"
            yield f"complete -c mmindex -f -n {_fish_quote(when)} {told}"
        for option in command.options:
            when = seen or "__fish_use_subcommand"
            yield (
                f"complete -c mmindex -n {_fish_quote(when)} {_fish_names(option.names)}"
                f"{_fish_value(option)} -d {_fish_quote(option.help)}"
            )


def _fish_names(names: Sequence[str]) -> str:
    return " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in names
    )


def _fish_value(option: _Option) -> str:
    if option.value is None:
        return ""
    if option.choices:
        return f" -x -a {_fish_quote(' '.join(option.choices))}"
    return {_FILE: " -r -F", _FOLDER: " -x -a '(__fish_complete_directories)'"}.get(
        option.value, " -x"
    )


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
