"""Find every place in the code of the store that calls fsync.

Pages and model checkpoints, which lie outside of stores, have fsyncs of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import mmindex.store

_PACKAGE = Path(mmindex.store.__file__).parent


def fsync_sites() -> list[str]:
    """Return the sites, named as in :mod:`support.lossy`, and calls of ``sync_directory``."""
    return sorted(
        f"{path.name}:{line} {name}"
        for path in _PACKAGE.rglob("*.py")
        for line, name in _in_scope(ast.parse(path.read_text()), "")
        if name != "sync_directory"
    )


def _in_scope(node: ast.AST, scope: str) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{scope}{child.name}.<locals>."
        elif isinstance(child, ast.ClassDef):
            inner = f"{scope}{child.name}."
        elif isinstance(child, ast.Call) and _called(child) in (
            "fsync",
            "fdatasync",
            "sync_directory",
        ):
            yield child.lineno, scope.removesuffix(".<locals>.")
        yield from _in_scope(child, inner)


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
