"""``build`` and the single stages ``crawl``, ``encode``, ``index``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmindex_cli.common import run_id, store_path
from mmindex_cli.options import (
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
    StoreOption,
    TextFormat,
    takes_settings,
)

if TYPE_CHECKING:
    from mmindex_cli.output import Form

Values = dict[str, Any]


@takes_settings(*SOURCES, *MODEL, *ENCODE, *INDEX, *LIMITS, *FETCH)
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

    A store remembers its sources and settings: an option changes what it names and nothing else. A
    new store without --source gets drawn scenes.

    Example: mmindex build --source coco:~/coco#val2017 --index auto
    """
    job = _Job(store_path(store), config, fresh_settings, values, metrics_file, output_format)
    if dry_run:
        job.foresee()
    else:
        job.run("crawl", "encode", "index", "evaluate")


@takes_settings(*SOURCES, *LIMITS, *FETCH)
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
    _Job(store_path(store), config, fresh_settings, values, metrics_file, output_format).run(
        "crawl"
    )


@takes_settings(*MODEL, *ENCODE, LIMITS[0])
def encode(
    values: Values,
    store: StoreOption = None,
    config: ConfigOption = None,
    fresh_settings: FreshOption = False,
    metrics_file: MetricsOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Turn the crawled images and captions into vectors. Existing vectors are reused.

    Example: mmindex encode --model ViT-B-32 --pretrained laion2b_s34b_b79k
    """
    _Job(store_path(store), config, fresh_settings, values, metrics_file, output_format).run(
        "encode"
    )


@takes_settings(*INDEX)
def index(
    values: Values,
    store: StoreOption = None,
    config: ConfigOption = None,
    fresh_settings: FreshOption = False,
    metrics_file: MetricsOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Build the image index and the caption index over the vectors.

    Example: mmindex index --index ivfpq --recall-target 0.98
    """
    _Job(store_path(store), config, fresh_settings, values, metrics_file, output_format).run(
        "index"
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """What to run, and how to print it."""

    root: Path
    config: Path | None
    fresh: bool
    values: Values
    metrics_file: Path | None
    output_format: Form

    def run(self, *stages: str) -> None:
        """Run stages and print what became of the store."""
        from mmindex.store.place import require_writable
        from mmindex.upkeep.metrics import MetricsFile

        with MetricsFile(self.metrics_file, self.root, run_id()) as metrics:
            require_writable(self.root)  # before the imports below: they take most of a second
            from mmindex.runs.run import run
            from mmindex.runs.settings import settings
            from mmindex_cli.summary import print_run

            config = settings(self.root, self.config, self.values, fresh=self.fresh)
            if config.run.metrics_file is not None and self.metrics_file is None:
                metrics.path = Path(config.run.metrics_file).expanduser()
            print_run(self.root, run(self.root, config, run_id(), stages), self.output_format)

    def foresee(self) -> None:
        """Print what a build would do; the exit code is the one that it would give."""
        from mmindex.store.place import require_writable

        require_writable(self.root)
        from mmindex.runs.dry_run import dry_run
        from mmindex.runs.settings import settings
        from mmindex_cli.summary import print_forecast

        config = settings(self.root, self.config, self.values, fresh=self.fresh)
        forecast = dry_run(self.root, config, run_id())
        print_forecast(forecast, self.output_format)
        if forecast.exit_code:
            raise typer.Exit(forecast.exit_code)
