"""The forecast of a build: the plans of its stages in figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import msgspec

from mmindex.encode.plan import EncodePlan
from mmindex.index.decide import UpdatePlan
from mmindex.runs.keyword_stage import KeywordAction
from mmindex.runs.report import newest_first
from mmindex.store.layout import Layout


class Unread(msgspec.Struct, frozen=True):
    """A source that must first be downloaded or drawn."""

    source: str
    why: str


class Stop(msgspec.Struct, frozen=True):
    """What would stop the build, and the resulting exit code."""

    exit_code: int
    message: str
    hint: str = ""


class EncodeForecast(msgspec.Struct, frozen=True):
    """Vectors of one side: to be made, existing, and known to fail.

    ``mapped`` counts those to be computed from the vectors of an adapted model's parent, ``given``
    those to be taken from files of vectors.
    """

    encode: int
    reuse: int
    failed: int = 0
    mapped: int = 0
    given: int = 0

    @classmethod
    def of(cls, plan: EncodePlan) -> Self:
        """Return the figures of a plan."""
        given = plan.given.vectors if plan.given is not None else 0
        rest = plan.rest
        return cls(rest.missing, rest.reused, len(plan.failed), plan.mapped, given)


class IndexForecast(msgspec.Struct, frozen=True):
    """What would be done to one side's index: ``kept``, ``extended`` or ``trained``."""

    action: str
    why: str
    added: int
    removed: int
    vectors: int

    @classmethod
    def of(cls, plan: UpdatePlan) -> Self:
        """Return the figures of a plan."""
        return cls(plan.action, plan.why, plan.added, plan.removed, plan.vectors)


class Forecast(msgspec.Struct, frozen=True):
    """The forecast of a build.

    Attributes:
        store: the store's folder.
        version: the published version; 0 if there is none.
        would: ``publish``, ``nothing`` (nothing changed), ``stop``, or ``fetch``: it depends on
            unread sources.
        exit_code: the expected exit code of the build.
        unread: sources that were left out.
        changes: changes in the sources that were read.
        not_read: files whose extension is not an image's, by extension.
        not_read_remedy: the extras to install for them; empty if none would help.
        settings: those that differ from the published version's, as (before, after) by dotted name.
        model: the encoder's name; empty if its files must first be downloaded.
        encode: by side.
        index: by side.
        keywords: what would be done to the keyword index; empty if it depends on unread sources.
        stops: everything that would stop it, in order.
        needed_bytes, free_bytes: disk space; the former is a lower limit.
        seconds: by stage, from the rates of earlier runs; stages without a rate are left out.
    """

    store: str
    version: int
    would: str = "stop"
    exit_code: int = 0
    unread: tuple[Unread, ...] = ()
    changes: dict[str, dict[str, int]] | None = None
    not_read: dict[str, int] = {}
    not_read_remedy: str = ""
    settings: dict[str, tuple[Any, Any]] = {}
    model: str = ""
    encode: dict[str, EncodeForecast] = {}
    index: dict[str, IndexForecast] = {}
    keywords: KeywordAction | Literal[""] = ""
    stops: tuple[Stop, ...] = ()
    needed_bytes: int = 0
    free_bytes: int = 0
    seconds: dict[str, float] = {}


def foresee_seconds(
    layout: Layout,
    seen: int,
    encode: Mapping[str, EncodeForecast],
    index: Mapping[str, IndexForecast],
) -> dict[str, float]:
    """Estimate seconds by stage at the rate of the newest run with it; others are left out."""
    reports = list(newest_first(layout)) if layout.runs_dir.is_dir() else []
    rates = {
        name: value
        for report in reversed(reports)
        for stage in report.rates.values()
        for name, value in stage.items()
        if value
    }
    built = sum(plan.vectors for plan in index.values() if plan.action == "trained")
    built += sum(plan.added for plan in index.values() if plan.action == "extended")
    work = {
        "crawl": {"items_per_second": seen},
        "encode": {
            f"{side}s_per_second": plan.encode for side, plan in encode.items() if plan.encode
        },
        "index": {"vectors_per_second": built} if built else {},
    }
    return {
        stage: round(sum(count / rates[name] for name, count in parts.items()), 3)
        for stage, parts in work.items()
        if all(name in rates for name in parts)
    }
