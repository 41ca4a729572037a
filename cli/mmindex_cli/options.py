"""Options of several commands.

Options that set a value of :mod:`mmindex.core.config` are rows of a table; their types and
defaults come from there. :func:`takes_settings` gives a command the rows it needs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

import typer

from mmindex.core.errors import UsageError
from mmindex_cli.common import signed

if TYPE_CHECKING:
    from mmindex_cli.output import Form

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        readable=False,  # the store itself reports this, with an exit code that scripts know
        help="Folder of the store. [default: $MMINDEX_STORE, or data/store in a checkout, "
        "or the user data folder]",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings. Options override it.")
]
MetricsOption = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file",
        metavar="FILE.prom",
        help="Write metrics of this run for the Prometheus node exporter (textfile collector).",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show what would happen, without changing or downloading anything."
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Encode only part I of N, without publishing. When all parts are done, run `build` or "
        "`encode` without this option.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(help="Device to run the model on: auto, cpu, cuda or cuda:N.")
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Use only images that match an SQL condition on their columns: "
        "\"width >= 640 and split = 'val'\".",
    ),
]
ImageOption = Annotated[
    str,
    typer.Option("--image", metavar="IMAGE", help="A file, or the uri or id of an indexed image."),
]
PageOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write the result as an HTML page."),
]
TextFormat = Annotated[
    Literal["text", "json"], typer.Option("--format", help="text for people, json for programs.")
]
TableFormat = Annotated[
    Literal["table", "json", "tsv"],
    typer.Option("--format", help="table for people, JSON lines or TSV for programs."),
]
PathsFormat = Annotated[
    Literal["table", "json", "tsv", "paths"],
    typer.Option(
        "--format",
        help="table for people, JSON lines or TSV for programs, or only the paths of the images.",
    ),
]
NullOption = Annotated[
    bool,
    typer.Option(
        "-0", "--null", help="Print only paths, each followed by a NUL byte, for `xargs -0`."
    ),
]


def paths_form(form: Form, null: bool) -> tuple[Form, str]:
    """Return the output format for ``--format`` and ``-0``, and the terminator of paths.

    Raises:
        UsageError: ``-0`` with another format.
    """
    if null and form not in {"table", "paths"}:
        raise UsageError(f"-0 cannot be combined with --format {form}", "use only one of them")
    return ("paths", "\0") if null else (form, "\n")


class Setting(NamedTuple):
    """An option that sets one value.

    Attributes:
        key: dotted name in :mod:`mmindex.core.config`, or ``train.`` and a field of
            :class:`mmindex.train.settings.TrainSettings`.
        help: the help text; the default is appended.
        flag: the option, if it is not the last part of the key.
        metavar: the name of the value in the help text, if not derived from the type.
        kind: the type, if it differs from the type of the setting.
    """

    key: str
    help: str
    flag: str = ""
    metavar: str | None = None
    kind: Any = None


FreshOption = Annotated[
    bool,
    typer.Option(
        "--fresh-settings",
        help="Use the default settings instead of the settings that the store remembers.",
    ),
]
SOURCES = (
    Setting("source", "What to index, for example folder:~/Pictures or coco:val2017. Kinds: "
            "{kinds}. Repeat it to index several sources.",
            metavar="KIND:PLACE[#SPLIT]", kind=list[str]),
    Setting("source.all_files", "In folder: sources, try every file, whatever its extension.",
            kind=bool),
    Setting("source.exclude", "In folder: sources, skip files that match: a name ('*.png') or path "
            "('2019/**'). You can repeat this option. The store remembers it; '' removes it.",
            metavar="GLOB", kind=list[str]),
    Setting("source.include", "In folder: sources, read only files that match. You can repeat this "
            "option. The store remembers it; '' removes it.", metavar="GLOB", kind=list[str]),
    Setting("crawl.metadata", "Metadata of photographs to store: all, no-location or none."),
    Setting("crawl.captions_from", "With metadata, titles, descriptions and keywords in "
            "photographs also become captions."),
    Setting("crawl.video_interval", "Seconds between the frames of a video that become images.",
            metavar="SECONDS"),
)  # fmt: skip
LIMITS = (
    Setting("limits.max_quarantine", "Largest share of items that can be unusable."),
    Setting(
        "limits.max_removed", "Largest share of the images of the last version that can be missing."
    ),
)
NETWORK = (
    Setting("fetch.allow_private", "Also download from loopback and private addresses."),
    Setting("fetch.use_env_proxy", "Use the proxies in http_proxy and https_proxy."),
)
FETCH = (
    Setting("fetch.base_url", "Download corpora from this mirror.", metavar="URL"),
    Setting("fetch.corpora", "Description of your own corpus, in the format of data/corpora.",
            metavar="FILE", kind=Path),
    Setting("fetch.require_checksum", "Reject downloads without a known checksum."),
    Setting("fetch.per_host_concurrency", "Concurrent requests to one host."),
    Setting("fetch.contact", "Email address or web page for the User-Agent header."),
    *NETWORK,
    Setting("crawl.rehash", "Read every file again, even if it appears unchanged."),
)  # fmt: skip
MODEL = (
        Setting("model.name", "`photos`, `embedded`, an open_clip model name, local-dir:PATH or "
            "hf-hub:ORG/REPO.", "--model"),
    Setting("model.pretrained", "Weights: a tag, a file, or `none` for an untrained model."),
    Setting("model.allow_pickle_weights", "Also accept .pt and .bin files, loaded with PyTorch's "
            "weights-only loader."),
)  # fmt: skip
MACHINE = (
    Setting("encode.device", "Device: auto, cpu, cuda (all GPUs), cuda:N or cuda:N,M."),
    Setting("encode.cores", "Number of cores for the model and for decoding. "
            "[default: all of them]"),
    Setting("encode.workers", "Number of processes that decode images; 0 decodes in the main "
            "process. [default: one per core]"),
)  # fmt: skip
ENCODE = (
    *MACHINE,
    Setting("encode.batch_size", "Images per batch."),
    Setting("encode.precision", "Precision of the model; int8 runs on CPUs only."),
)
CLUSTER = (
    Setting(
        "run.cluster",
        "Divide the work between the nodes of this Ray cluster.",
        metavar="auto|HOST:PORT",
    ),
)
INDEX = (
    Setting("index.kind", "auto, exact, ivfpq, ivfflat, sq8 or a FAISS factory string.", "--index"),
    Setting(
        "search.hubness",
        "With auto, text queries rank images lower if they are similar to many "
        "texts; used only if it improves their results.",
    ),
    Setting("index.recall_target", "Share of the ten best exact answers that the index must find."),
    Setting(
        "index.refine", "Precision of the vectors for re-ranking; sq8 takes half the space of fp16."
    ),
)


def takes_settings(*settings: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the parameter ``values`` of a command with one option for each setting.

    The command receives the settings that the user passed as a dict by dotted name.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        names = {_name(setting): setting for setting in settings}

        @functools.wraps(function)
        def wrapper(**given: Any) -> None:
            values = {s.key: _given(given.pop(name)) for name, s in names.items()}
            function(**given, values={k: v for k, v in values.items() if v is not None})

        parameters = []
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            options = map(_parameter, settings) if parameter.name == "values" else [parameter]
            parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in options]
        return signed(wrapper, parameters)

    return decorate


def _name(setting: Setting) -> str:
    flag = setting.flag or setting.key.rpartition(".")[2]
    return flag.removeprefix("--").replace("-", "_")


def _given(value: Any) -> Any:
    """Return the value, or None if the option was not passed; flags can only be turned on."""
    if isinstance(value, Path):
        return str(value)
    return None if value is False or value == [] else value


def _parameter(setting: Setting) -> inspect.Parameter:
    kind, default = _known(setting)
    said = default in (None, False, "", ()) or "[default: " in setting.help
    text = setting.help if said else f"{setting.help} [default: {default}]"
    if "{kinds}" in text:
        from mmindex.sources.kinds import built_in

        text = text.replace("{kinds}", ", ".join(built_in()))
    flag = f"--{_name(setting).replace('_', '-')}"
    option = typer.Option(flag, help=text, metavar=setting.metavar, show_default=False)
    return inspect.Parameter(
        _name(setting),
        inspect.Parameter.KEYWORD_ONLY,
        default=False if kind is bool else None,
        annotation=Annotated[kind if kind is bool else kind | None, option],
    )


def _known(setting: Setting) -> tuple[Any, Any]:
    """Return the type and the default of the setting."""
    section, _, key = setting.key.rpartition(".")
    if not section:
        return setting.kind, None
    if section == "train":
        from mmindex.train.settings import TrainSettings

        return get_type_hints(TrainSettings)[key], TrainSettings.__dataclass_fields__[key].default
    from mmindex.core.config import Config, SourceConfig

    model = SourceConfig if section == "source" else type(Config.model_fields[section].default)
    return setting.kind or get_type_hints(model)[key], model.model_fields[key].default
