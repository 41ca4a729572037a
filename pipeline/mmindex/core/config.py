"""The one tree of settings, with every default; an unknown key is an error.

The text under each setting is its documentation: ``docs/settings.md`` is generated from it
(``make docs``). The first paragraph says what the setting does, the next when to change it.
"""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import Field

from mmindex.core.errors import DataError, UsageError, did_you_mean, os_errors

DEFAULT_SCENES = "scenes:2000"

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

_MIB: Final = 1 << 20
# What may stand in a header between parentheses; a line break there would forge a header.
_CONTACT: Final = re.compile(r"[!-'*-\[\]-~]+(?: [!-'*-\[\]-~]+)*")


def _as_utf8(text: str) -> str:
    """A store records its settings as text, so they must be valid UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("not valid UTF-8; rename the file or folder, or link to it") from error
    return text


def _as_it_is(spec: str, folder: Path) -> str:  # noqa: ARG001
    return spec


_Text = Annotated[str, pydantic.AfterValidator(_as_utf8)]
_Seconds = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class SourceConfig(_Section):
    """What to index. Each source is a table of its own."""

    spec: _Text
    """The source, as `--source` takes it: `[NAME=]KIND:PLACE[#SPLIT]`.

    Required in each `[[source]]` table."""

    all_files: bool = False
    """Try every file in a `folder:` source by its content, whatever its extension.

    Set it when pictures have no extension or the wrong one. The crawl takes longer."""

    exclude: tuple[_Text, ...] = ()
    """Globs of files and folders below a `folder:` source that are left out.

    Set it to skip parts of a folder: names at any depth (`["*.png", "drafts"]`) or paths from the
    folder's root (`["2019/**"]`)."""

    include: tuple[_Text, ...] = ()
    """Globs of the only files below a `folder:` source that are read; all of them by default.

    Set it to index a part of a folder, such as `["2023/**"]`."""

    def recorded(self) -> dict[str, Any]:
        """What a store remembers; globs only where there are any, as older versions wrote it."""
        globs = {"exclude": list(self.exclude), "include": list(self.include)}
        given = {name: values for name, values in globs.items() if values}
        return {"spec": self.spec, "all_files": self.all_files, **given}


class FetchConfig(_Section):
    """How mmindex behaves on the network."""

    contact: str = ""
    """An email address or web page, sent in the User-Agent header.

    Set it before you fetch a URL list, so that site owners can reach you."""

    base_url: str | None = None
    """Fetch a release's files from this address instead of their publisher's server.

    Set it when you have a mirror, or a copy on a server of your own."""

    allow_private: bool = False
    """Also fetch from loopback, private and link-local addresses.

    Set it only when the pictures are on your own network and you trust the list of addresses."""

    use_env_proxy: bool = False
    """Use `http_proxy`, `https_proxy` and `no_proxy` from the environment.

    Set it when the network needs a proxy. The proxy then resolves host names, so mmindex cannot
    check the addresses behind them."""

    corpora: str | None = None
    """A TOML file that describes a corpus of your own, in the form of `data/corpora/*.toml`.

    Set it to fetch a release that mmindex does not know, or to replace a description."""

    require_checksum: bool = False
    """Refuse a release's files that have no known checksum, instead of trusting the first download.

    Set it when the network between you and the publisher is not to be trusted."""

    # Browsers open 6; image servers of this field's lists bear 16.
    per_host_concurrency: Annotated[int, Field(ge=1, le=1_024)] = 16
    """Requests to one host at the same time.

    Lower it when a host answers with 429 or 503; raise it only for a host of your own."""

    concurrency: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Requests to all hosts at the same time.

    Raise it for lists of many hosts on a fast line; lower it when the line or router suffers."""

    per_host_rate: _Seconds | None = None
    """Requests per second to one host; no limit by default.

    Set it when a host asks for a slower pace than its robots.txt says."""

    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """Further attempts after a time-out, a lost connection, or a 429 or 5xx answer.

    Raise it on an unreliable line."""

    backoff_s: _Seconds = 0.5
    """Pause before the first retry. Each further pause is twice as long, with jitter.

    Raise it when hosts recover slowly."""

    backoff_max_s: _Seconds = 30.0
    """Longest pause between two retries.

    Raise it together with `backoff_s` and `retries`."""

    retry_after_budget_s: Annotated[float, Field(ge=0)] = 120.0
    """How long a host may make a run wait in all with `Retry-After`.

    Beyond this, the rest of its images are left for a later run. Raise it for unattended runs
    that have all night."""

    max_crawl_delay_s: Annotated[float, Field(ge=0)] = 60.0
    """Longest `Crawl-delay` in a robots.txt that is followed.

    A host that asks for more is left out. Raise it for a short list on a slow host."""

    host_failures: Annotated[int, Field(ge=1)] = 20
    """Lost connections in a row after which a host is left for a later run.

    Raise it when the line, not the host, is unreliable."""

    connect_timeout_s: _Seconds = 15.0
    """Time limit for opening a connection.

    Raise it behind a slow proxy."""

    # With min_bytes_per_s, the window over which a download's pace is measured.
    read_timeout_s: _Seconds = 30.0
    """Time limit between two bytes of an answer.

    Raise it for servers that prepare files before they send them."""

    image_timeout_s: _Seconds = 60.0
    """Time limit for one image of a URL list, from the request to the last byte.

    Raise it for large images on a slow line."""

    max_image_bytes: Annotated[int, Field(ge=1)] = 64 * _MIB
    """Largest image that is fetched from a URL list.

    Lower it to save traffic. `limits.max_bytes` applies as well."""

    parallel_downloads: Annotated[int, Field(ge=1, le=16)] = 3
    """Files of a release that are downloaded at the same time.

    Lower it when the publisher limits connections."""

    min_bytes_per_s: Annotated[int, Field(ge=0)] = 1_024
    """Pace below which a release's download counts as stuck and is resumed on a new connection.

    Lower it on a very slow line; 0 turns the check off."""

    # COCO's train2017 has 19 GB.
    max_download_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * _MIB
    """Largest file of a release whose publisher states no size.

    Raise it for a larger archive of your own; lower it to protect a small disk."""

    retry_permanent_days: Annotated[float, Field(ge=0)] = 30.0
    """Days until an image that failed for good (404, opt-out) is requested again.

    Lower it when a host was repaired; 0 asks again in every run."""

    shard_bytes: Annotated[int, Field(ge=_MIB)] = 128 * _MIB
    """Size at which a shard of fetched images is closed.

    Raise it for millions of images, to have fewer files."""

    shard_seconds: _Seconds = 30.0
    """Age at which a shard of fetched images is closed; it grows with the length of the run.

    Lower it to lose less when a short run is killed."""

    @pydantic.field_validator("contact")
    @classmethod
    def _check_contact(cls, value: str) -> str:
        if value and not _CONTACT.fullmatch(value):
            raise ValueError("plain ASCII without parentheses, such as ops@example.org")
        return value


class CrawlConfig(_Section):
    """How sources are read."""

    rehash: bool = False
    """Read every file again, also those whose size, time and inode have not changed.

    Set it for one run when files may have changed without a new time stamp."""

    metadata: Literal["all", "no-location", "none"] = "all"
    """What to store of the metadata in photographs (EXIF, XMP, IPTC, file names and times).

    Set `no-location` to leave out where a photograph was taken, or `none`. The next build applies
    the change without encoding anything; versions from before keep what they have until `mmindex
    gc` removes them."""

    captions_from: Literal["source", "metadata"] = "source"
    """With `metadata`, the titles, descriptions and keywords in photographs are captions too.

    Set it for photographs that somebody has described. It needs `metadata` to be stored."""

    video_interval: Annotated[float, Field(ge=0.5, le=86_400)] = 10.0
    """One picture for each so many seconds of a video in a `folder:` source, 200 at most.

    Lower it to find short moments, raise it for long recordings. Needs `mmindex[video]`."""


class ModelConfig(_Section):
    """Which model encodes images and texts."""

    name: _Text | None = None
    """An open_clip model name, `embedded`, `local-dir:PATH` or `hf-hub:ORG/REPO`.

    By default `embedded` for drawn scenes, and `ViT-B-32` for everything else. Another model means
    that everything is encoded again."""

    pretrained: _Text | None = None
    """The weights: a tag, a path to a `.safetensors` file, or `none` for an untrained model.

    By default `laion2b_s34b_b79k` where the default model is used."""

    allow_pickle_weights: bool = False
    """Also load `.pt` and `.bin` weights, with PyTorch's weights-only loader.

    Set it for weights from a source you trust that have no `.safetensors` form."""


class EncodeConfig(_Section):
    """How images and texts become vectors."""

    device: str = "auto"
    """`auto` (all GPUs, else the CPU), `cpu`, `cuda` (all GPUs), `cuda:0` or `cuda:0,1`.

    Set it to share a machine with other work."""

    # 64 keeps two cores busy and an 8-GB card far from full for ViT-B-32.
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Images in one batch on each device.

    Raise it on a large GPU; lower it when the GPU runs out of memory."""

    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that decode images; by default one for each core, at most 16.

    Raise it when the build names decoding as its bottleneck; lower it to save memory. 0 decodes in
    the main process, where one broken image can end the run."""

    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Arithmetic of the model. `auto` is fp32 on a CPU, bf16 on a GPU (fp16 on older ones).

    `int8` is faster on some CPUs at a small loss in recall. Another precision means that everything
    is encoded again."""

    # The unit of resume.
    shard_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 8_192
    """Vectors in one shard. A kill costs at most one shard of work.

    Raise it for tens of millions of images, to have fewer files."""


class IndexConfig(_Section):
    """Which index, how good, and how large it may be."""

    kind: str = "auto"
    """`auto`, `exact`, `ivfpq`, `ivfflat`, `sq8`, or a FAISS factory string.

    `auto` is exact search below 10,000 vectors and IVF-PQ from there on. Set it to force one."""

    recall_target: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the exact ten best answers that the index has to find.

    Raise it for better answers, lower it for faster ones."""

    seed: int = 0
    """Seed of the samples that train and tune the index.

    Change it to see how much the index depends on its sample."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads for FAISS; by default one for each core.

    Lower it to share a machine with other work."""

    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """Most memory that one index may take when it is searched; no limit by default.

    Set it when the index has to fit a small machine: codes get shorter, and re-ranking deeper."""

    gpu: Literal["auto", "never", "always"] = "auto"
    """Whether FAISS uses a GPU.

    `never` keeps the GPU free; `always` makes a missing GPU an error."""

    retrain_at: Annotated[float, Field(gt=0)] = 0.2
    """Share of the trained vectors that may be added or removed before an index is trained again.

    Raise it when training takes hours; recall is measured after each change in any case."""

    refine: Literal["fp16", "sq8"] = "fp16"
    """What a quantised index is re-ranked with: float16, or 8 bits per number.

    `sq8` takes half the disk space, at a small loss in recall."""


class EvaluateConfig(_Section):
    """How recall is measured."""

    # COCO's 25,010 captions fit whole.
    max_queries: Annotated[int, Field(ge=1)] = 50_000
    """Most queries in each direction. Larger corpora are sampled, and the report says so.

    Lower it for a faster evaluation with wider intervals."""

    seed: int = 0
    """Seed of the sample of queries.

    Change it to measure with other queries."""


class LimitsConfig(_Section):
    """What one image may cost, and what a run may lose."""

    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Largest image, in pixels; larger ones go to the quarantine before they are decoded.

    Raise it for scans and panoramas. Decode workers may then use more memory."""

    max_bytes: Annotated[int, Field(ge=1)] = 256 * _MIB
    """Largest image file.

    Raise it for uncompressed scans."""

    max_aspect: Annotated[float, Field(ge=1)] = 200.0
    """Longest side over shortest. Beyond this, nothing is left to see after resizing to a square.

    Lower it to keep out banners and rules."""

    decode_timeout_s: _Seconds = 60.0
    """Time limit for decoding one image.

    Raise it on a very slow disk or network share."""

    max_quarantine: _Share = 0.01
    """Share of the items that may be unusable before a run stops; ten items always may.

    Raise it for a corpus with many broken images that you want to index all the same."""

    max_removed: _Share = 0.2
    """Share of the last version's images that may be gone before a run stops.

    Set it to 1 for one run after you removed images on purpose."""


class RunConfig(_Section):
    """What belongs to one machine."""

    metrics_file: _Text | None = None
    """A `.prom` file for the text-file collector of Prometheus's node exporter.

    Set it to watch unattended builds."""


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
        """What a store remembers, so that a later build needs no arguments.

        Left out is what belongs to one machine or one run (devices, workers, the metrics file),
        and what must be confirmed every time: how much of the corpus may be gone, addresses inside
        the network, proxies.
        """
        crawl = self.crawl.model_dump(exclude={"rehash"}, exclude_defaults=True)
        return {
            "source": [source.recorded() for source in self.source],
            **({"crawl": crawl} if crawl else {}),  # as older versions wrote it
            "fetch": self.fetch.model_dump(exclude={"allow_private", "use_env_proxy"}),
            "model": self.model.model_dump(),
            "encode": {"precision": self.encode.precision},
            "index": self.index.model_dump(exclude={"threads", "gpu"}),
            "evaluate": self.evaluate.model_dump(),
            "limits": self.limits.model_dump(exclude={"max_removed"}),
        }


def load_config(
    path: Path | None,
    overrides: dict[str, Any],
    base: dict[str, Any] | None = None,
    absolute_spec: Callable[[str, Path], str] = _as_it_is,
) -> Config:
    """Read a TOML file and lay the command line's values over it.

    Paths (of sources, models, corpora) become absolute: those in a file are relative to the file,
    those of the command line to the working folder, so that they hold wherever cron stands.

    Args:
        path: the file, or None.
        overrides: values by dotted name (``encode.batch_size``); None means "not given".
        base: what to start from when there is no file; the defaults where it is silent.
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
            if isinstance(tree[section], dict):  # otherwise validation will say what is wrong
                tree[section] = {**tree[section], **values}
        else:
            tree[section] = values
    try:
        return Config.model_validate(tree)
    except pydantic.ValidationError as error:
        raise UsageError(f"{path or 'options'}: {_explain(error)}") from error


def setting_names() -> dict[str, str]:
    """Every setting by a name that is unambiguous without its section: name to dotted name.

    ``index``, ``model`` and ``sources`` have a short form of their own, ``seed`` has none (two
    sections have one).
    """
    found: dict[str, list[str]] = {}
    for section, field in Config.model_fields.items():
        part = SourceConfig if section == "source" else type(field.default)
        for key in part.model_fields:
            found.setdefault(key, []).append(f"{section}.{key}")
    names = {key: dotted[0] for key, dotted in found.items() if len(dotted) == 1}
    for taken in ("spec", "name", "kind"):
        names.pop(taken, None)
    return {**names, "index": "index.kind"}


def check_type(dotted: str, value: Any) -> None:
    """Check that a program's value has the type of a setting; its range is checked later.

    Raises:
        TypeError: it has not, or there is no such setting.
    """
    section, _, key = dotted.partition(".")
    field = Config.model_fields.get(section)
    part = SourceConfig if section == "source" else type(field.default) if field else _Section
    if key not in part.model_fields:
        guess = did_you_mean(key, part.model_fields)
        raise TypeError(f"there is no setting {dotted!r}{guess}")
    annotation: Any = part.model_fields[key].annotation
    try:
        pydantic.TypeAdapter(annotation).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        if any(one["type"].endswith("_type") for one in error.errors()):
            shown = f"{type(value).__name__} {repr(value)[:60]}"
            said = error.errors()[0]["msg"].removeprefix("Input s")
            raise TypeError(f"{dotted}: s{said}, not {shown}") from error


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, key = dotted.rpartition(".")
    target = tree.setdefault(section, {}) if section else tree
    target[key] = value


def _resolve_paths(
    tree: dict[str, Any], folder: Path, absolute_spec: Callable[[str, Path], str]
) -> dict[str, Any]:
    """The tree with the paths that are relative to ``folder`` made absolute."""
    resolved = dict(tree)
    sources, fetch = tree.get("source"), tree.get("fetch")
    if isinstance(sources, list):
        resolved["source"] = [
            {**source, "spec": absolute_spec(source["spec"], folder)}
            if isinstance(source, dict) and isinstance(source.get("spec"), str)
            else source  # validation will say what is wrong with it
            for source in sources
        ]
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
