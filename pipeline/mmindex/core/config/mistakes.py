"""Describe invalid settings in plain words instead of pydantic's."""

from __future__ import annotations

from typing import Any, Final

import pydantic

from mmindex.core.config.corpus import SourceConfig
from mmindex.core.config.tree import Config
from mmindex.core.errors import did_you_mean

# The subject of each of pydantic's error types.
_KINDS_OF_VALUE: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}


def explain(error: pydantic.ValidationError) -> str:
    """Describe the first error in one line; for an unknown key, with the known ones."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where}: {_rule(first['type'], first['msg'], first.get('ctx', {}))}"
    valid = sorted(_fields_at(first["loc"][:-1]))
    guess = did_you_mean(str(first["loc"][-1]), valid)
    return f"unknown key {where!r}{guess} (valid: {', '.join(valid)})"


def _rule(kind: str, text: str, limits: dict[str, Any]) -> str:
    """Describe the valid values in plain words instead of pydantic's."""
    match kind:
        case "greater_than":
            return f"must be greater than {limits['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}"
        case "less_than":
            return f"must be less than {limits['lt']:g}"
        case "less_than_equal":
            return f"must be at most {limits['le']:g}"
        case "literal_error":
            return f"must be {limits['expected']}"
        case "finite_number":
            return "must be a finite number"
        case "value_error":
            return text.removeprefix("Value error, ")
    for prefix, what in _KINDS_OF_VALUE.items():
        if kind.startswith(prefix):
            return f"must be {what}"
    return text.removeprefix("Input ").lower()


def _fields_at(location: tuple[int | str, ...]) -> set[str]:
    if not location:
        return set(Config.model_fields)
    if location[0] == "source":
        return set(SourceConfig.model_fields)
    section = Config.model_fields[str(location[0])].default
    return set(type(section).model_fields)
