"""``build`` and the single stages ``crawl``, ``encode``, ``index``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from mmindex.api.building import Job
from mmindex.core.errors import UsageError
from mmindex_cli.common import run_id, store_path
from mmindex_cli.options import (
    CLUSTER,
    ENCODE,
    FETCH,
    INDEX,
    LIMITS,
    MODEL,
    SOURCES,
    ConfigOption,
    DryRunOption,
    FreshOption,
    MetricsOption,
    PartOption,
    StoreOption,
    TextFormat,
    takes_settings,
)

if TYPE_CHECKING:
    from mmindex_cli.output import Form

Values = dict[str, Any]


@takes_settings(*SOURCES, *MODEL, *ENCODE, *CLUSTER, *INDEX, *LIMITS, *FETCH)
def build(
    values: Values,
    store: StoreOption = None,
    config: ConfigOption = None,
    fresh_settings: FreshOption = False,
    dry_run: DryRunOption = False,
    metrics_file: MetricsOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Crawl, encode, index, evaluate and publish.

    A store remembers its sources and settings; an option changes only its own setting. A new store
    without --source indexes drawn scenes.

    Example: mmindex build --source coco:~/coco#val2017 --index auto
    """
    job = Job(store_path(store), values, config, fresh_settings, run_id(), metrics_file)
    if dry_run:
        _foresee(job, output_format)
    else:
        _run(job, output_format)


@takes_settings(*SOURCES, *CLUSTER, *LIMITS, *FETCH)
def crawl(
    values: Values,
    store: StoreOption = None,
    config: ConfigOption = None,
    fresh_settings: FreshOption = False,
    metrics_file: MetricsOption = None,
    output_format: TextFormat = "text",
) -> None:
    """List and hash the images and captions of the sources.

    Example: mmindex crawl --source folder:~/Pictures
    """
    job = Job(store_path(store), values, config, fresh_settings, run_id(), metrics_file)
    _run(job, output_format, "crawl")


@takes_settings(*MODEL, *ENCODE, *CLUSTER, LIMITS[0])
def encode(
    values: Values,
    store: StoreOption = None,
    config: ConfigOption = None,
    fresh_settings: FreshOption = False,
    part: PartOption = None,
    metrics_file: MetricsOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Encode the crawled images and captions as vectors. Existing vectors are reused.

    Example: mmindex encode --model ViT-B-32 --pretrained laion2b_s34b_b79k
    """
    job = Job(store_path(store), values, config, fresh_settings, run_id(), metrics_file)
    if part is None:
        _run(job, output_format, "encode")
    else:
        _encode_part(job, part, output_format)


@takes_settings(*CLUSTER, *INDEX)
def index(
    values: Values,
    store: StoreOption = None,
    config: ConfigOption = None,
    fresh_settings: FreshOption = False,
    metrics_file: MetricsOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Build the image index and the caption index from the vectors.

    Example: mmindex index --index ivfpq --recall-target 0.98
    """
    job = Job(store_path(store), values, config, fresh_settings, run_id(), metrics_file)
    _run(job, output_format, "index")


def _run(job: Job, output_format: Form, *stages: str) -> None:
    """Run stages and print the result."""
    summary = job.run(stages)
    from mmindex_cli.summary import print_run

    print_run(job.store, summary, output_format)


def _encode_part(job: Job, part: str, output_format: Form) -> None:
    """Encode one part and print what was done; nothing is published."""
    if job.metrics_file is not None:
        raise UsageError("a part writes no metrics", "leave out --metrics-file or --part")
    from mmindex.encode.part import parse_part

    report = job.encode_part(parse_part(part))
    from mmindex_cli.summary import print_part

    print_part(job.store, report, output_format)


def _foresee(job: Job, output_format: Form) -> None:
    """Print what a build would do, and exit with the code that it would return."""
    forecast = job.plan()
    from mmindex_cli.summary import print_forecast

    print_forecast(forecast, output_format)
    if forecast.exit_code:
        raise typer.Exit(forecast.exit_code)
