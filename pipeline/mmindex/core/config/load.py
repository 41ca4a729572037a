"""Load settings from a TOML file, from a store, and from arguments."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pydantic

from mmindex.core.config.mistakes import explain
from mmindex.core.config.tree import Config
from mmindex.core.errors import DataError, UsageError, os_errors

_LOCAL_MODEL: Final = "local-dir:"


def _as_it_is(spec: str, folder: Path) -> str:  # noqa: ARG001
    return spec


def load_config(
    path: Path | None,
    overrides: dict[str, Any],
    base: dict[str, Any] | None = None,
    absolute_spec: Callable[[str, Path], str] = _as_it_is,
) -> Config:
    """Read a TOML file and override it with values from the command line.

    Paths (of sources, models, corpora) become absolute, so that they work in any directory. Paths
    in the file are relative to the file, and those on the command line to the working directory.

    Args:
        path: the file, or None.
        overrides: values by dotted name (``encode.batch_size``); None means "not given".
        base: the settings to use if there is no file; missing ones have their defaults.
        absolute_spec: makes a source spec absolute, given the folder that it is relative to.

    Raises:
        NoInputError: the file does not exist.
        DataError: it is not TOML.
        UsageError: a key is unknown or a value is out of range; the message names the valid ones.
    """
    tree: dict[str, Any] = copy.deepcopy(base or {})
    if path is not None:
        with os_errors(path):
            text = path.read_bytes()
        try:
            tree = tomllib.loads(text.decode("utf-8-sig"))  # editors may put a BOM
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a TOML file: {error}") from error
        tree = _resolve_paths(tree, path.absolute().parent, absolute_spec)
    given: dict[str, Any] = {}
    for dotted, value in overrides.items():
        if value is not None:
            _put(given, dotted, value)
    for section, values in _resolve_paths(given, Path.cwd(), absolute_spec).items():
        if isinstance(values, dict) and section in tree:
            if isinstance(tree[section], dict):  # otherwise validation reports the error
                tree[section] = {**tree[section], **values}
        else:
            tree[section] = values
    try:
        return Config.model_validate(tree)
    except pydantic.ValidationError as error:
        raise UsageError(f"{path or 'options'}: {explain(error)}") from error


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, key = dotted.rpartition(".")
    target = tree.setdefault(section, {}) if section else tree
    target[key] = value


def _resolve_paths(
    tree: dict[str, Any], folder: Path, absolute_spec: Callable[[str, Path], str]
) -> dict[str, Any]:
    """Return the settings with paths relative to ``folder`` made absolute."""
    resolved = dict(tree)
    sources, fetch = tree.get("source"), tree.get("fetch")
    if isinstance(sources, list):
        resolved["source"] = [
            {**source, "spec": absolute_spec(source["spec"], folder)}
            if isinstance(source, dict) and isinstance(source.get("spec"), str)
            else source  # validation reports the error
            for source in sources
        ]
    if isinstance(fetch, dict) and isinstance(fetch.get("corpora"), str):
        resolved["fetch"] = {**fetch, "corpora": _joined(folder, fetch["corpora"])}
    if isinstance(tree.get("model"), dict):
        resolved["model"] = _resolve_model(tree["model"], folder)
    run = tree.get("run")
    if isinstance(run, dict):
        paths = {name: run[name] for name in ("metrics_file", "scratch") if name in run}
        joined = {name: _joined(folder, p) for name, p in paths.items() if isinstance(p, str)}
        resolved["run"] = {**run, **joined}
    return resolved


def _resolve_model(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    resolved = dict(model)
    name, weights = model.get("name"), model.get("pretrained")
    if isinstance(name, str) and name.startswith(_LOCAL_MODEL):
        where = name.removeprefix(_LOCAL_MODEL)
        resolved["name"] = f"{_LOCAL_MODEL}{_joined(folder, where)}" if where else name
    if isinstance(weights, str) and weights and ("/" in weights or (folder / weights).is_file()):
        resolved["pretrained"] = _joined(folder, weights)  # otherwise it is a tag
    return resolved


def _joined(folder: Path, path: str) -> str:
    return path if path.startswith("~") else os.path.join(folder, path)  # noqa: PTH118  # Path drops a trailing slash
