"""Validate ``--where`` conditions: parse them with DuckDB and compare them with a fixed list.

Allowed are columns, constants, comparisons, arithmetic, casts, CASE and some functions. Not allowed
are subqueries, table functions, aggregates, everything that could read a file, a setting or the
clock, and functions whose result can be far larger than their arguments.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import duckdb

from mmindex.core.errors import UsageError

MAX_CHARACTERS: Final = 10_000
TABLE: Final = "images"

# fmt: off
_KINDS: Final = frozenset({
    "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
    "OPERATOR", "TYPE",
})
_OPERATORS: Final = frozenset({
    "OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "OPERATOR_COALESCE",
    "COMPARE_IN", "COMPARE_NOT_IN",
})
# No function whose result can be much larger than its arguments: repeat() or a nested replace()
# could exhaust the memory.
FUNCTIONS: Final = frozenset({
    "abs", "ceil", "ceiling", "concat", "contains", "date_part", "day", "distance_km", "ends_with",
    "floor",
    "greatest", "hour", "if", "isfinite", "isinf", "isnan", "least", "left", "len", "length",
    "list_contains", "list_has", "list_has_all", "list_has_any", "list_position", "ln", "log",
    "lower", "ltrim", "minute", "month", "nullif", "position", "power", "prefix",
    "regexp_full_match", "regexp_matches", "right", "round", "rtrim", "second", "sign", "sqrt",
    "starts_with", "strip_accents", "strlen", "strpos", "substr", "substring", "suffix", "trim",
    "trunc", "upper", "year",
})
_SYMBOLS: Final = frozenset({
    "+", "-", "*", "/", "//", "%", "**", "||", "@", "^@", "~~", "!~~", "~~*", "!~~*", "~~~",
    "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape",
})
# fmt: on


def check(
    database: duckdb.DuckDBPyConnection, expression: str, columns: Sequence[str]
) -> list[str]:
    """Parse a condition and check that every part of it is allowed.

    Returns:
        the columns in it, as spelt in the table.

    Raises:
        UsageError: a part is not allowed; the message names it and the alternatives.
    """
    if len(expression) > MAX_CHARACTERS:
        raise UsageError(
            f"`where`: {len(expression):,} characters; the limit is {MAX_CHARACTERS:,}"
        )
    nodes = list(_nodes(_parsed(database, expression)))
    for node in nodes:
        _check_node(node)
    names = [node["column_names"] for node in nodes if node["class"] == "COLUMN_REF"]
    found = list(dict.fromkeys(_resolve(parts, columns) for parts in names))
    by_lower: dict[str, str] = {}
    for name in sorted(found):  # DuckDB would use one of them for both
        if (other := by_lower.setdefault(name.lower(), name)) != name:
            raise UsageError(
                f"`where`: the columns {other!r} and {name!r} differ only in letter case, which "
                "SQL ignores",
                "rename one of them in the source",
            )
    return found


def _parsed(database: duckdb.DuckDBPyConnection, expression: str) -> dict[str, Any]:
    """Return the syntax tree of the condition from DuckDB's parser."""
    if not expression.strip():
        raise UsageError("`where` is empty", "such as: `where` \"width >= 640 and split = 'val'\"")
    try:
        statement = f"SELECT {in_brackets(expression)}"
        statement.encode()
        [(text,)] = database.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
        tree: dict[str, Any] = json.loads(text)
    except UnicodeEncodeError:
        raise UsageError("`where` contains half a character (a lone surrogate)") from None
    except RecursionError:
        raise UsageError("`where` is nested too deeply") from None
    if tree["error"]:
        raise UsageError(
            f"`where`: {one_line(str(tree['error_message']))}",
            "an SQL condition: text in 'single quotes', column names bare or in \"double quotes\"",
        )
    [statement_node] = tree["statements"]
    select: dict[str, Any] = statement_node["node"]
    if select["type"] != "SELECT_NODE" or not _is_one_expression(select):
        raise UsageError("`where` is more than one condition", "join conditions with AND or OR")
    return dict(select["select_list"][0])


def _is_one_expression(select: dict[str, Any]) -> bool:
    """Return whether the tree is a single ``SELECT (...)`` expression."""
    clauses = ("where_clause", "having", "qualify", "sample")
    return (
        len(select["select_list"]) == 1
        and select["from_table"]["type"] == "EMPTY"
        and not select["modifiers"]
        and not select["group_expressions"]
        and not select["cte_map"]["map"]
        and all(select[clause] is None for clause in clauses)
    )


def in_brackets(expression: str) -> str:
    """Put the condition in brackets on its own lines, so that a comment cannot hide the bracket."""
    return f"(\n{expression}\n)"


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all expressions and types in a syntax tree."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "class" in node:
                yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _check_node(node: dict[str, Any]) -> None:
    kind = node["class"]
    if kind not in _KINDS or (kind == "OPERATOR" and node["type"] not in _OPERATORS):
        raise UsageError(
            f"`where`: {node['type'].lower().replace('_', ' ')} is not allowed in a condition",
            "columns, constants, comparisons, AND, OR, NOT, IN (...), BETWEEN, LIKE, CASE and CAST",
        )
    if kind == "FUNCTION":
        name = node["function_name"].lower()
        # A qualified name could bypass the list of functions, or name a column in a second way.
        plain = len(node.get("qualified_name", {}).get("path", [name])) == 1
        bare = not (node["distinct"] or node["filter"] or node["order_bys"]["orders"])
        if name not in FUNCTIONS | _SYMBOLS or not plain or not bare or node["schema"]:
            raise UsageError(
                f"`where`: the function {name!r} is not allowed in a condition",
                f"allowed functions: {', '.join(sorted(FUNCTIONS))}",
            )


def _resolve(parts: Sequence[str], columns: Sequence[str]) -> str:
    """Return the column for a name: SQL ignores case, but an exact match comes first."""
    name = parts[-1]
    if len(parts) == 1 or (len(parts) == 2 and parts[0].lower() == TABLE):
        if name in columns:
            return name
        matches = [column for column in columns if column.lower() == name.lower()]
        if len(matches) == 1:
            return matches[0]
    dotted = ".".join(parts)
    by_lower = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    guess = f"; did you mean {by_lower[near[0]]}?" if near else " (write text in 'single quotes')"
    raise UsageError(
        f"`where`: there is no column {dotted!r}{guess}", f"columns: {', '.join(columns)}"
    )


def one_line(text: str) -> str:
    """Return a DuckDB message as one line of limited length."""
    return " ".join(text.split())[:300]
