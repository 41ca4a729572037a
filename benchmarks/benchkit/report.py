"""Options, tables and JSON output of all benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.machine import machine

_RESULTS = Path(__file__).resolve().parents[1] / "results"
Row = Mapping[str, Any]


def options_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options; ``BENCH=full`` is the same as ``--full``."""
    lines = (description or "").strip().splitlines()
    parser = argparse.ArgumentParser(description=lines[0] if lines else None)
    parser.add_argument(
        "--full",
        action="store_true",
        default=os.environ.get("BENCH") == "full",
        help="the large case: takes from minutes to hours [$BENCH = full]",
    )
    parser.add_argument("--runs", type=int, default=3, help="the median of so many counts")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder for the JSON")
    return parser


class Report:
    """Collects tables, prints each when it is added, and writes all of them to one JSON file."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self._path = options.results / f"{name}.json"
        self._content: dict[str, Any] = {
            "benchmark": name,
            "settings": {
                key: str(value) if isinstance(value, Path) else value
                for key, value in vars(options).items()
                if key != "results"
            },
            "machine": machine(),
            "tables": {},
        }
        about = self._content["machine"]
        print(
            f"{name}: {about['processor']}, {about['cores']} cores, {about['memory_gb']} GB,"
            f" load {about['load']}"
        )

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of all tables so far."""
        found: dict[str, list[dict[str, Any]]] = self._content["tables"]
        return found

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Print and keep rows with the same columns, and write the file again."""
        self._content["tables"][title] = [dict(row) for row in rows]
        print(f"\n{title}")
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row))
            cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
            widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
            for line in cells:
                text = "  ".join(
                    cell.ljust(width) if column == 0 else cell.rjust(width)
                    for column, (cell, width) in enumerate(zip(line, widths, strict=True))
                )
                print(f"  {text.rstrip()}", flush=True)
        self._write()

    def keep(self, title: str, details: Any) -> None:
        """Keep results that are too large for a table."""
        self._content.setdefault("details", {})[title] = details
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._content, indent=1) + "\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def timed(action: Callable[[], object]) -> float:
    """Return the wall time of an action in seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def median_time(action: Callable[[], object], runs: int) -> float:
    """Return the median time of several runs, after one warm-up run."""
    action()
    return statistics.median(timed(action) for _ in range(runs))


def in_turn(actions: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Run all actions in turn, several times, so that other load affects all of them equally."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            found[name].append(action())
    return found
