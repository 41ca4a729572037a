"""Run the installed command in a separate process, as people and cron do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.corpora import coco_content, jpeg, write_files

MMINDEX = Path(sys.executable).parent / "mmindex"


def mmindex(*args: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``mmindex ARGS...`` without a terminal and check its exit code."""
    environment = {
        **os.environ,
        "MMINDEX_STORE": "",
        "HF_HUB_OFFLINE": "1",
        **options.pop("env", {}),
    }
    done = subprocess.run(
        [str(options.pop("program", MMINDEX)), *map(str, args)],
        capture_output=True,
        encoding="utf-8",
        stdin=options.pop("stdin", subprocess.DEVNULL),
        env=environment,
        timeout=250,
        **options,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def mmindex_json(*args: object, **options: Any) -> list[dict[str, Any]]:
    """Run a command that prints JSON lines."""
    done = mmindex(*args, "--format", "json", **options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_coco(folder: Path, count: int, first: int = 1) -> Path:
    """Write a corpus in the layout of COCO: ``count`` drawn images with two captions each."""
    captions = {
        number: [f"picture number {number}", f"a drawing with a square, {number}"]
        for number in range(first, first + count)
    }
    files: dict[str, bytes | str] = {
        f"val2017/{number:012d}.jpg": jpeg(number) for number in captions
    }
    files["annotations/captions_val2017.json"] = json.dumps(coco_content(captions))
    return write_files(folder, files)
