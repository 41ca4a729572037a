"""All settings, the ones that a store remembers, and access to settings by name."""

from __future__ import annotations

from typing import Any, Final

import pydantic

from mmindex.core.config.corpus import CrawlConfig, LimitsConfig, SourceConfig
from mmindex.core.config.fetching import FetchConfig
from mmindex.core.config.values import Section, Text
from mmindex.core.config.vectors import EncodeConfig, EvaluateConfig, IndexConfig, ModelConfig
from mmindex.core.errors import did_you_mean

DEFAULT_SCENES: Final = "scenes:2000"  # for a new store without sources


class RunConfig(Section):
    """Settings of one machine."""

    metrics_file: Text | None = None
    """A `.prom` file for the textfile collector of Prometheus node exporter.

    Set it to monitor unattended builds."""

    cluster: Text | None = None
    """The Ray cluster that reads images, encodes them and fills indexes: `auto` (the cluster that
    this machine belongs to), or `HOST:PORT` of its head node.

    Set it if a build takes too long on one machine. It requires `mmindex[ray]` on every node."""

    scratch: Text | None = None
    """The folder of the temporary database in which a crawl collects its rows; by default, the
    `staging` folder of the store.

    Set it to a folder on a local disk if the store is on a network file system. It needs about 1 KB
    for each image."""


class Config(Section):
    """All settings of a build."""

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
        """Return the settings that a store remembers, so that later builds need no arguments.

        It leaves out settings of one machine or one run (devices, workers, the metrics file), and
        permissions that must be confirmed every time: the share of the corpus that can be missing,
        private addresses, and proxies.
        """
        crawl = self.crawl.model_dump(exclude={"rehash"}, exclude_defaults=True)
        index = self.index.model_dump(exclude={"threads", "gpu", "fill_processes"})
        if self.index.keywords:
            del index["keywords"]  # as in older versions
        return {
            "source": [source.recorded() for source in self.source],
            **({"crawl": crawl} if crawl else {}),  # as in older versions
            "fetch": self.fetch.recorded(),
            "model": self.model.model_dump(),
            "encode": {"precision": self.encode.precision},
            "index": index,
            "evaluate": self.evaluate.model_dump(),
            "limits": self.limits.model_dump(exclude={"max_removed"}),
        }


def setting_names() -> dict[str, str]:
    """Return all settings with a unique name: name without section to dotted name.

    ``index``, ``model`` and ``sources`` have their own short form. ``seed`` has none, because two
    sections have a setting with this name.
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
    """Check that a value from Python has the type of a setting. The range is checked later.

    Raises:
        TypeError: the type is wrong, or there is no such setting.
    """
    section, _, key = dotted.partition(".")
    field = Config.model_fields.get(section)
    part = SourceConfig if section == "source" else type(field.default) if field else Section
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
