"""The settings of a run: given values override those of the last run over the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmindex.core.config import DEFAULT_SCENES, Config, SourceConfig, load_config
from mmindex.core.errors import UsageError
from mmindex.sources import registry
from mmindex.sources.kinds import kind_of
from mmindex.sources.spec import absolute_spec
from mmindex.store.intent import remembered
from mmindex.store.layout import Layout

_GLOBS = ("exclude", "include")
_OPTIONS = ("all_files", *_GLOBS)


def settings(
    root: Path, path: Path | None, values: Mapping[str, Any], *, fresh: bool = False
) -> Config:
    """Return the settings of a run.

    Given values change only the settings that they name; the others are those of the last run over
    this store. A configuration file replaces all of these, and so does ``fresh``.

    Args:
        root: the store's folder; it need not exist.
        path: the configuration file, or None.
        values: given values by dotted name; None means "not given". ``source`` is a list of specs.
            ``source.all_files``, ``source.exclude`` and ``source.include`` apply to every source
            of the run; a source that the store knows keeps its own where they are not given.
        fresh: start from the defaults, not from the remembered settings.

    Raises:
        MmindexError: the settings are invalid, or the remembered ones cannot be read.
    """
    base = None if fresh or path is not None else remembered(Layout(root.absolute()))
    if base is not None and values.get("model.name") and not values.get("model.pretrained"):
        # Weights belong to a model: they do not apply to another model name.
        base = {**base, "model": {**base.get("model", {}), "pretrained": None}}
    config = load_config(path, _with_sources(values, base or {}), base, absolute_spec)
    if config.source:
        return config
    return config.model_copy(update={"source": (SourceConfig(spec=DEFAULT_SCENES),)})


def _with_sources(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with ``source`` in the form of the settings: one table per source."""
    given = {name: value for name, value in values.items() if value is not None}
    options = {key: given.pop(name) for key in _OPTIONS if (name := f"source.{key}") in given}
    options = {  # an empty glob removes the remembered one
        key: [glob for glob in value if glob] if key in _GLOBS else value
        for key, value in options.items()
    }
    specs, known = given.pop("source", None), base.get("source", ())
    if specs is not None:
        given["source"] = [_table(spec, known, options) for spec in specs]
    elif options:
        given["source"] = _changed(known, options)
    return given


def _table(spec: str, known: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Any:
    """Return the table of a requested source, with the options that the store remembers for it."""
    there = absolute_spec(spec, Path.cwd()) if isinstance(spec, str) else spec
    before = next((table for table in known if table["spec"] == there), {})
    return {**before, "spec": spec, **options}


def _changed(
    known: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return the store's sources with changed options, for sources that choose files by name."""
    chosen = [registry.find(kind_of(table["spec"])).globs for table in known]
    if not any(chosen):
        names = ", ".join(f"`{name}`" for name in options)
        raise UsageError(
            f"{names}: the store has no folder: source for these globs",
            "pass the source too; in a settings file, use the [[source]] table",
        )
    return [
        {**table, **options} if globs else table for table, globs in zip(known, chosen, strict=True)
    ]
