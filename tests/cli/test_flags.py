"""Settings in messages of the library are flags on the command line."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import mmindex
from mmindex_cli.app import app
from mmindex_cli.flags import as_flags
from support.command import mmindex as command


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`where` is empty", "--where is empty"),
        ("pass `max_removed=1`", "pass --max-removed 1"),
        ("use `precision=fp32` or bf16", "use --precision fp32 or bf16"),
        ("run `mmindex check --full`", "run `mmindex check --full`"),
        ("shows as `id`", "shows as `id`"),
    ],
)
def test_settings_become_flags_and_nothing_else_does(said: str, shown: str) -> None:
    assert as_flags(said) == shown


def test_messages_on_the_command_line_name_flags(tmp_path: Path) -> None:
    done = command("build", "--store", tmp_path, "--source", "scenes:3", "--device", "tpu", code=2)
    assert "hint: try --device auto" in done.stderr
    assert "`" not in done.stderr


def options(group: Any, context: Any) -> set[str]:
    """Return every long option of the command line, as the name of a setting."""
    found: set[str] = set()
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            found |= options(command, context)
        found |= {
            option.lstrip("-").replace("-", "_")
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--")
        }
    return found


def test_every_setting_that_a_message_names_becomes_a_flag() -> None:
    group = typer.main.get_command(app)
    known = options(group, group.context_class(group))
    assert {"where", "max_removed"} <= known
    package = Path(mmindex.__file__).parent
    texts = (text for path in package.rglob("*.py") for text in strings(path))
    named = {name for text in texts for name in re.findall(r"`([a-z_]+)[`=]", text)} & known
    named.remove("text")  # a column too, in messages about annotations
    missing = {name for name in named if as_flags(f"`{name}`") == f"`{name}`"}
    assert not missing, "add them to _NAMES in cli/mmindex_cli/flags.py"


def strings(path: Path) -> list[str]:
    """Return every string of a module that is not a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    # Strings that stand alone document modules, classes, functions and attributes.
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def test_no_message_of_the_library_names_a_flag() -> None:
    """Flags occur only in complete commands (`mmindex check --full`) and in texts for crontabs."""
    package = Path(mmindex.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        if path.name in {"doctor.py", "schedule.py"} and path.parent.name == "upkeep":
            continue
        for text in strings(path):
            outside = re.sub(r"`mmindex[^`]*`", "", text)
            if re.search(r"(?<![\w-])--[a-z]", outside):
                found.append(f"{path.name}: {text}")
    assert found == []
