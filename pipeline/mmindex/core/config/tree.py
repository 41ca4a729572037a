"""The whole tree of settings, what a store remembers of it, and its settings by name."""

from __future__ import annotations

from typing import Any, Final

import pydantic

from mmindex.core.config.corpus import CrawlConfig, LimitsConfig, SourceConfig
from mmindex.core.config.fetching import FetchConfig
from mmindex.core.config.values import Section, Text
from mmindex.core.config.vectors import EncodeConfig, EvaluateConfig, IndexConfig, ModelConfig
from mmindex.core.errors import did_you_mean

DEFAULT_SCENES: Final = "scenes:2000"  # what a new store gets that is told no source


class RunConfig(Section):
    """What belongs to one machine."""

    metrics_file: Text | None = None
    """A `.prom` file for the text-file collector of Prometheus's node exporter.

    Set it to watch unattended builds."""


class Config(Section):
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
