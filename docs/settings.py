"""Write ``docs/settings.md`` from ``mmindex.core.config``. Run it with ``make docs``."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmindex.core import config

PAGE = Path(__file__).with_suffix(".md")
_INTRO = """\
# Settings

<!-- Generated from pipeline/mmindex/core/config/ by `make docs`: edit the text there. -->

`mmindex build --config FILE` reads settings from a TOML file. This one indexes a folder of photos
and keeps the index small:

```toml
[[source]]
spec = "folder:photos"

[index]
refine = "sq8"

[limits]
max_quarantine = 0.05
```

Relative paths in the file are relative to the folder of the file. Options on the command line
override the file. An unknown setting is an error that lists the known ones.

A store remembers the settings marked "remembered by the store", so a later `mmindex build` without
options uses them again. The other settings apply to one machine or one run.
"""
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list of texts",
}
_UNITS = {
    "_bytes_per_s": "bytes per second",
    "_bytes": "bytes",
    "_days": "days",
    "_s": "seconds",
    "_seconds": "seconds",
}


def page() -> str:
    """The whole page, as Markdown.

    Raises:
        ValueError: a setting has no text, or lacks the paragraph on when to change it.
    """
    # These settings are recorded only if they differ from their defaults.
    changed = config.Config(
        crawl=config.CrawlConfig(
            metadata="no-location", captions_from="metadata", video_interval=1.0
        ),
        fetch=config.FetchConfig(s3_endpoint="https://minio.example.org:9000"),
        index=config.IndexConfig(keywords=False),
    )
    remembered = {
        f"{section}.{name}"
        for section, values in changed.recorded().items()
        if isinstance(values, dict)
        for name in values
    } | {f"source.{name}" for name in config.SourceConfig.model_fields}
    parts = [_INTRO]
    for section, kind in _sections():
        title = "[[source]]" if section == "source" else f"[{section}]"
        parts.append(f"## {title}\n\n{inspect.getdoc(kind)}\n")
        texts = _texts(kind)
        properties = kind.model_json_schema()["properties"]
        for name in kind.model_fields:
            dotted = f"{section}.{name}"
            what, _, when = texts.get(name, "").partition("\n\n")
            if not when:
                raise ValueError(f"{dotted}: say what it does, then when to change it")
            facts = [_type(name, properties[name]), _default(kind, name)]
            if dotted in remembered:
                facts.append("remembered by the store")
            line = "; ".join(facts)
            parts.append(f"### {dotted}\n\n{line[0].upper()}{line[1:]}.\n\n{what}\n\n{when}\n")
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, Any]]:
    yield "source", config.SourceConfig
    for name, field in config.Config.model_fields.items():
        if name != "source":
            yield name, type(field.default)


def _texts(kind: type) -> dict[str, str]:
    """The string under each setting of a section, by the setting's name."""
    (section,) = ast.parse(inspect.getsource(kind)).body
    found = {}
    for line, after in pairwise(ast.iter_child_nodes(section)):
        match line, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found


def _type(name: str, schema: dict[str, Any]) -> str:
    """A setting's type and range in words, from its name's unit and its JSON schema."""
    choices = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    (schema,) = choices
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    words = words or _TYPES[schema["type"]]
    if least is not None and most is not None:
        return f"{words} from {least:,} to {most:,}"
    if above is not None and below is not None:
        return f"{words} between {above:,} and {below:,}"
    if least is not None:
        return f"{words}, at least {least:,}"
    return words if above is None else f"{words} above {above:,}"


def _default(kind: Any, name: str) -> str:
    field = kind.model_fields[name]
    if field.is_required():
        return "required"
    if field.default is None:
        return "not set by default"
    size = f" ({_size(field.default)})" if name.endswith("_bytes") else ""
    return f"default `{json.dumps(field.default)}`{size}"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:g} {unit}"
        count /= 1024
    raise AssertionError


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
