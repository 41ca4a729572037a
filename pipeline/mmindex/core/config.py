"""The one tree of settings, with every default; an unknown key is an error."""

from __future__ import annotations

import copy
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mmindex.core.errors import DataError, UsageError, did_you_mean, os_errors
from mmindex.core.fetch_config import FetchConfig

DEFAULT_MODEL = "ViT-B-32"
DEFAULT_PRETRAINED = "laion2b_s34b_b79k"
EMBEDDED = "embedded"
DEFAULT_SCENES = "scenes:2000"

# Kinds of source whose WHERE is always a path; that of the others may name a release as well.
_PATH_KINDS = frozenset({"folder", "urls", "webdataset", "parquet"})
_PLACELESS_KINDS = frozenset({"scenes"})
_LOCAL_MODEL = "local-dir:"
# What pydantic's error types are about.
_KINDS_OF_VALUE = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}


def _as_utf8(text: str) -> str:
    """A store records its settings as text: bytes that are no UTF-8 cannot be written there."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("not valid UTF-8; rename the file or folder, or link to it") from error
    return text


_Text = Annotated[str, pydantic.AfterValidator(_as_utf8)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class SourceConfig(_Section):
    """One ``[[source]]`` table: a source spec with its options."""

    spec: _Text
    all_files: bool = False


class CrawlConfig(_Section):
    """How the sources are read."""

    # Read every file again, also those that look the same as when they were read last.
    rehash: bool = False


class ModelConfig(_Section):
    """Which model encodes. ``name = "embedded"`` is the model that mmindex carries."""

    name: _Text | None = None
    pretrained: _Text | None = None
    allow_pickle_weights: bool = False


class EncodeConfig(_Section):
    """How images and texts become vectors."""

    device: str = "auto"
    # 64 keeps two cores busy and an 8-GB card far from full for ViT-B-32.
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    # None: one for each core, at most 16.
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    # The unit of resume: a kill costs at most one shard of work.
    shard_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 8_192


class IndexConfig(_Section):
    """Which index, how good, and how large it may be."""

    kind: str = "auto"
    recall_target: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: int = 0
    # None: one for each core.
    threads: Annotated[int, Field(ge=1)] | None = None
    # Bytes that the index itself may take in memory when it is searched; None: no limit.
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    gpu: Literal["auto", "never", "always"] = "auto"
    # Vectors added and removed since training, as a share of those trained on, beyond which an
    # index is built anew instead of extended.
    retrain_at: Annotated[float, Field(gt=0)] = 0.2
    # What quantised indexes are re-ranked with: float16, or 8 bits a number for half the bytes.
    refine: Literal["fp16", "sq8"] = "fp16"


class EvaluateConfig(_Section):
    """How recall is measured."""

    # COCO's 25,010 captions fit whole; larger corpora are sampled, and the report says so.
    max_queries: Annotated[int, Field(ge=1)] = 50_000
    seed: int = 0


class LimitsConfig(_Section):
    """What one item, and what one run, may cost or lose."""

    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    max_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * 1024
    # Longest side over shortest: beyond this, resizing to a square leaves nothing to see.
    max_aspect: Annotated[float, Field(ge=1)] = 200.0
    decode_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    max_quarantine: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_removed: Annotated[float, Field(ge=0, le=1)] = 0.2


class RunConfig(_Section):
    """What belongs to running unattended on one machine."""

    # Metrics for node exporter's textfile collector: a path that ends in .prom.
    metrics_file: _Text | None = None


class Config(_Section):
    """Everything that a build can be told."""

    source: tuple[SourceConfig, ...] = ()
    fetch: FetchConfig = FetchConfig()
    crawl: CrawlConfig = CrawlConfig()
    model: ModelConfig = ModelConfig()
    encode: EncodeConfig = EncodeConfig()
    index: IndexConfig = IndexConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    limits: LimitsConfig = LimitsConfig()
    run: RunConfig = RunConfig()

    def recorded(self) -> dict[str, Any]:
        """What a store remembers, so that a later build needs no arguments to go on.

        Left out is what belongs to one machine or one run: devices, workers, the metrics' file, and
        what must not be agreed to for ever by agreeing to it once: how much of the corpus may
        vanish, addresses inside the network, proxies.
        """
        return {
            "source": [source.model_dump() for source in self.source],
            "fetch": self.fetch.model_dump(exclude={"allow_private", "use_env_proxy"}),
            "model": self.model.model_dump(),
            "encode": {"precision": self.encode.precision},
            "index": self.index.model_dump(exclude={"threads", "gpu"}),
            "evaluate": self.evaluate.model_dump(),
            "limits": self.limits.model_dump(exclude={"max_removed"}),
        }


def load_config(
    path: Path | None, overrides: dict[str, Any], base: dict[str, Any] | None = None
) -> Config:
    """Read a TOML file and lay the command line's values over it.

    Paths (of sources, models, corpora) become absolute: those in a file are relative to the file,
    those of the command line to the working folder, so that they hold wherever cron stands.

    Args:
        path: the file, or None.
        overrides: values by dotted name (``encode.batch_size``); None means "not given".
        base: what to start from when there is no file; the defaults where it is silent.

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
        tree = _resolve_paths(tree, path.absolute().parent)
    given: dict[str, Any] = {}
    for dotted, value in overrides.items():
        if value is not None:
            _put(given, dotted, value)
    for section, values in _resolve_paths(given, Path.cwd()).items():
        if isinstance(values, dict) and section in tree:
            if isinstance(tree[section], dict):  # otherwise validation will say what is wrong
                tree[section] = {**tree[section], **values}
        else:
            tree[section] = values
    try:
        return Config.model_validate(tree)
    except pydantic.ValidationError as error:
        raise UsageError(f"{path or 'options'}: {_explain(error)}") from error


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, key = dotted.rpartition(".")
    target = tree.setdefault(section, {}) if section else tree
    target[key] = value


def _resolve_paths(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with the paths that are relative to ``folder`` made absolute."""
    resolved = dict(tree)
    sources, fetch = tree.get("source"), tree.get("fetch")
    if isinstance(sources, list):
        resolved["source"] = [_resolve_source(source, folder) for source in sources]
    if isinstance(fetch, dict) and isinstance(fetch.get("corpora"), str):
        resolved["fetch"] = {**fetch, "corpora": _joined(folder, fetch["corpora"])}
    if isinstance(tree.get("model"), dict):
        resolved["model"] = _resolve_model(tree["model"], folder)
    run = tree.get("run")
    if isinstance(run, dict) and isinstance(run.get("metrics_file"), str):
        resolved["run"] = {**run, "metrics_file": _joined(folder, run["metrics_file"])}
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


def _resolve_source(source: Any, folder: Path) -> Any:
    if not (isinstance(source, dict) and isinstance(source.get("spec"), str)):
        return source  # validation will say what is wrong with it
    kind, colon, where = source["spec"].partition(":")
    if not where or kind in _PLACELESS_KINDS:
        return source
    names = (where, where.rpartition("#")[0])
    there = any(name and (folder / name).exists() for name in names)
    if kind not in _PATH_KINDS and "/" not in where and not there:
        return source  # a release's name
    return {**source, "spec": f"{kind}{colon}{_joined(folder, where)}"}


def _joined(folder: Path, path: str) -> str:
    return path if path.startswith("~") else os.path.join(folder, path)  # noqa: PTH118  # Path drops a trailing slash


def _explain(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where}: {_rule(first['type'], first['msg'], first.get('ctx', {}))}"
    valid = sorted(_fields_at(first["loc"][:-1]))
    guess = did_you_mean(str(first["loc"][-1]), valid)
    return f"unknown key {where!r}{guess} (valid: {', '.join(valid)})"


def _rule(kind: str, text: str, limits: dict[str, Any]) -> str:
    """What a value must be, in plain words instead of pydantic's."""
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
