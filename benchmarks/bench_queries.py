"""The time per query for encoding and for everything else: files of queries, and single queries.

    bench_queries.py [--lines 2000] [--images 20000]

The embedded model queries a store of synthetic vectors with the same dimensions, each with a name.
Encoding is timed inside the process; the rest is searching, looking up names and printing. A file
is answered as by ``query --queries FILE``; single queries (``api``) by ``Index.search``, whose hits
are not printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchkit import models
from benchkit.process import again
from benchkit.report import Report, options_of


class _Timed:
    """An encoder that measures the time of its text side."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_texts(self, texts: list[str]) -> Any:
        begun = time.perf_counter()
        vectors = self._encoder.encode_texts(texts)
        self.seconds += time.perf_counter() - begun
        return vectors


def ask(store: Path, lines: list[bytes], form: str) -> dict[str, float]:
    """Answer each line as the command does; return seconds by part."""
    import mmindex
    from mmindex_cli.answers import print_answers

    with mmindex.open(store, device="cpu") as index:
        vectorizer = index.vectorizer
        encoder = _Timed(vectorizer.encoder)
        vectorizer._encoder = vectorizer._texts = encoder  # type: ignore[assignment]
        if form == "api":
            return _alone(index, encoder, [line.decode() for line in lines])
        with _nowhere():
            # Opens the index, and warms up.
            print_answers(index.search_many(lines[:300], errors="keep"), form)
            encoder.seconds = 0.0
            begun = time.perf_counter()
            print_answers(index.search_many(lines, errors="keep"), form)
            whole = time.perf_counter() - begun
    rest = (whole - encoder.seconds) / len(lines)
    return _figures(whole, encoder.seconds, rest, len(lines))


def _alone(index: Any, encoder: _Timed, texts: list[str]) -> dict[str, float]:
    """Answer one query after the other; the rest is the median of a query."""
    for text in texts[:10]:
        index.search(text)
    encoder.seconds, rest = 0.0, []
    begun = time.perf_counter()
    for text in texts:
        before, start = encoder.seconds, time.perf_counter()
        index.search(text)
        rest.append(time.perf_counter() - start - (encoder.seconds - before))
    whole = time.perf_counter() - begun
    return _figures(whole, encoder.seconds, statistics.median(rest), len(texts))


def _figures(whole: float, encode: float, rest: float, count: int) -> dict[str, float]:
    return {
        "whole_s": whole,
        "encode_s": encode,
        "rest_ms": rest * 1e3,
        "queries_per_s": count / whole,
    }


@contextlib.contextmanager
def _nowhere() -> Iterator[None]:
    with Path(os.devnull).open("wb") as file, io.TextIOWrapper(file) as text:
        keep, sys.stdout = sys.stdout, text
        try:
            yield
        finally:
            sys.stdout = keep


def make(store: Path, images: int) -> None:
    from benchkit.stores import published_store

    published_store(store, images, models.load("embedded", None).info)


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--lines", type=int, help="default: 2,000; 10,000 with --full")
    parser.add_argument("--images", type=int, nargs="*", help="default: 20,000; 1M too with --full")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.lines = options.lines or (10_000 if options.full else 2_000)
    options.images = options.images or ([100_000, 1_000_000] if options.full else [20_000])
    if options.part:
        what, store, number, form = options.part
        if what == "make":
            make(Path(store), int(number))
        else:
            _, texts = models.captions(None, int(number))
            print(json.dumps(ask(Path(store), [text.encode() for text in texts], form)))
        return
    report = Report("queries", options)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for images in options.images:
            store = Path(folder) / str(images)
            again(__file__, "--part", "make", store, images, "")
            for form in ("json", "tsv", "table", "api"):
                runs = [
                    again(__file__, "--part", "ask", store, options.lines, form).json()
                    for _ in range(options.runs)
                ]
                middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                rows.append(
                    {
                        "images": images,
                        "format": form,
                        "queries/s": middle["queries_per_s"],
                        "encode ms/query": middle["encode_s"] / options.lines * 1e3,
                        "rest ms/query": middle["rest_ms"],
                    }
                )
    report.table(f"{options.lines} lines, 10 hits each", rows)


if __name__ == "__main__":
    sys.exit(main())
