"""Seconds to crawl a folder of many small files, compared with reading and with listing them.

    bench_crawl.py [--files 20000] [--folder DIR]

The first crawl is compared with a program that only lists, reads and hashes the files, one after
the other. The second crawl, in which nothing has changed, is compared with
``find -printf '%s %T@ %i'``. For a third one, a file is added. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchkit.process import MMINDEX, again, run
from benchkit.report import Report, options_of

_IN_FOLDER = 1_000
# A file that was just written could still change; the crawl does not trust it.
_SETTLED_S = 3.0


def write_files(folder: Path, count: int) -> int:
    """Write small JPEGs with different bytes; return the size of one."""
    import numpy as np
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for _ in range(16):
        image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        files.append(buffer.getvalue())
    for number in range(count):
        into = folder / f"{number // _IN_FOLDER:04d}"
        if number % _IN_FOLDER == 0:
            into.mkdir(parents=True)
        data = files[number % 16] + number.to_bytes(4, "big")
        (into / f"{number:07d}.jpg").write_bytes(data)
    return len(files[0])


def read_and_hash(folder: Path) -> float:
    """Return the seconds to list, read and hash all files."""
    begun = time.perf_counter()
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                    continue
                hashlib.sha256(Path(entry.path).read_bytes()).digest()
    return time.perf_counter() - begun


def find(folder: Path) -> float:
    """Return the seconds of ``find`` over all files."""
    return run(["find", folder, "-type", "f", "-printf", "%s %T@ %i\n"]).wall_s


def crawl(store: Path, folder: Path) -> dict[str, float]:
    """Return the seconds of the crawl stage and of the whole command, and its peak memory."""
    ran = run([*MMINDEX, "crawl", "--store", store, "--source", f"folder:{folder}"])
    newest = max((store / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    seconds = json.loads(newest.read_text())["seconds"]["crawl"]
    return {"stage": seconds, "command": ran.wall_s, "peak": ran.peak_mb}


def rounds(folder: Path, work: Path, runs: int) -> dict[str, list[Any]]:
    """Measure everything in turn, several times."""
    found: dict[str, list[Any]] = {}

    def keep(name: str, action: Callable[[], Any]) -> None:
        found.setdefault(name, []).append(action())

    for number in range(runs):
        store, extra = work / "store", folder / "0000" / f"extra{number}.jpg"
        keep("read", lambda: float(again(__file__, "--part", folder).json()))
        keep("first", lambda store=store: crawl(store, folder))
        keep("find", lambda: find(folder))
        keep("second", lambda store=store: crawl(store, folder))
        shutil.copyfile(folder / "0000" / "0000000.jpg", extra)
        time.sleep(_SETTLED_S)
        keep("one new", lambda store=store: crawl(store, folder))
        extra.unlink()
        shutil.rmtree(store)
    return found


def measure(options: argparse.Namespace, work: Path) -> None:
    report = Report("crawl", options)
    folder = work / "files"
    size = write_files(folder, options.files)
    time.sleep(_SETTLED_S)
    found = rounds(folder, work, options.runs)
    reading, listing = (statistics.median(found[name]) for name in ("read", "find"))

    def row(what: str, name: str, bound: float) -> dict[str, Any]:
        stage, command, peak = (
            statistics.median(one[key] for one in found[name])
            for key in ("stage", "command", "peak")
        )
        return {"what": what, "seconds": stage, "times the bound": stage / bound,
                "files/s": options.files / stage, "whole command s": command,
                "peak MB": peak}  # fmt: skip

    report.table(
        f"{options.files:,} files of {size} bytes",
        [
            {"what": "list, read and hash", "seconds": reading, "files/s": options.files / reading},
            row("first crawl", "first", reading),
            {"what": "find -printf", "seconds": listing, "files/s": options.files / listing},
            row("nothing changed", "second", listing),
            row("one file added", "one new", listing),
        ],
    )


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--files", type=int, help="default: 20,000; with --full 200,000")
    parser.add_argument("--folder", type=Path, help="where to work; default: the temporary folder")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(read_and_hash(options.part)))
        return
    options.files = options.files or (200_000 if options.full else 20_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(options, Path(name))


if __name__ == "__main__":
    main()
