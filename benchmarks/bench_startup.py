"""Startup time of commands, compared with minimal programs that do the same.

    bench_startup.py [--store DIR]

``import mmindex`` is compared with the start of Python, ``--help`` and ``status`` with an empty
Typer app with as many commands, and a cold ``query`` with a script that imports torch and
open_clip, loads the same model, encodes and searches. Without --store, the script first builds a
small store of drawn scenes. The last table compares cold queries with three models, one of them
ViT-B-32 with seeded weights, with ``import torch``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchkit import models
from benchkit.process import MMINDEX, run
from benchkit.report import Report, in_turn, options_of

_EMPTY_APP = """
import typer
from typing import Annotated, Optional
app = typer.Typer(name="empty", help="Nothing.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False, rich_markup_mode=None)
def make(name):
    def command(store: Annotated[Optional[str], typer.Option(help="The store.")] = None) -> None:
        typer.echo("nothing")
    command.__name__, command.__doc__ = name, f"Do {name}."
    return command
for number in range(COUNT):
    app.command()(make(f"command{number}"))
app()
"""

# A minimal script for vectors in one file and a model in a folder.
_BY_HAND = """
import json, sys
import faiss, numpy as np, open_clip, torch
folder, vectors, text = sys.argv[1:]
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
model.eval()
context = json.load(open(f"{folder}/open_clip_config.json"))["model_cfg"]["text_cfg"]
tokenizer = open_clip.SimpleTokenizer(
    bpe_path=f"{folder}/{context['tokenizer_kwargs']['bpe_path']}",
    context_length=context["context_length"],
)
with torch.inference_mode():
    query = torch.nn.functional.normalize(model.encode_text(tokenizer([text])), dim=-1).numpy()
rows = np.load(vectors)
index = faiss.IndexFlatIP(rows.shape[1])
index.add(rows)
print(index.search(query, 10))
"""


def command_count() -> int:
    """Return the number of commands in mmindex's help."""
    lines = run([*MMINDEX, "--help"]).stdout.partition("Commands:")[2].splitlines()
    return sum(line.startswith("  ") and not line.startswith("   ") for line in lines)


def stored_vectors(store: Path, target: Path) -> None:
    """Return the image vectors of a store as one float32 file."""
    import numpy as np

    from mmindex.store.snapshot import open_snapshot

    published = open_snapshot(store)
    vectors = published.vectors("image")
    np.save(target, np.concatenate([block for _, block in vectors.blocks(65_536)]).astype("f4"))


def in_turns(programs: dict[str, Sequence[object]], runs: int) -> dict[str, dict[str, Any]]:
    """Run programs in turn; return a row with the times of each."""
    for program in programs.values():
        run(program)  # fills the page cache and writes the .pyc files
    processor: dict[str, list[float]] = {name: [] for name in programs}

    def once(name: str) -> float:
        ran = run(programs[name])
        processor[name].append(ran.cpu_s)
        return ran.wall_s

    walls = in_turn({name: lambda name=name: once(name) for name in programs}, runs)
    return {
        name: {
            "program": name,
            "wall ms": statistics.median(walls[name]) * 1e3,
            "best ms": min(walls[name]) * 1e3,
            "processor ms": statistics.median(processor[name]) * 1e3,
        }
        for name in programs
    }


def cold_queries(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Compare queries with several models with ``import torch``."""
    weights = models.seeded_weights("ViT-B-32", folder)
    chosen = {
        "embedded": ["--model", "embedded"],
        "photos": ["--model", "photos"],
        "ViT-B-32": ["--model", "ViT-B-32", "--pretrained", weights],
    }
    programs: dict[str, Sequence[object]] = {
        "import torch": [sys.executable, "-c", "import torch"],
        "import open_clip": [sys.executable, "-c", "import open_clip"],
    }
    for name, options in chosen.items():
        store = folder / name
        run([*MMINDEX, "build", "--store", store, "--source", "scenes:40@7", *options])
        programs[f"mmindex query, {name}"] = [*MMINDEX, "query", "a red boat", "--store", store]
    rows = in_turns(programs, runs)
    torch_ms = rows["import torch"]["wall ms"]
    return [{**row, "times import torch": row["wall ms"] / torch_ms} for row in rows.values()]


def embedded_model() -> Path:
    from mmindex.core import resources
    from mmindex.core.model_names import EMBEDDED
    from mmindex.models.resolve import BUILT_IN

    return resources.data_dir() / "models" / BUILT_IN[EMBEDDED]


def measure(store: Path, folder: Path, options: argparse.Namespace) -> None:
    report = Report("startup", options)
    (folder / "empty.py").write_text(_EMPTY_APP.replace("COUNT", str(command_count())))
    (folder / "hand.py").write_text(_BY_HAND)
    stored_vectors(store, folder / "vectors.npy")
    python, text = sys.executable, "a red boat on the sea"
    programs = {
        "python -c pass": [python, "-c", "pass"],
        "import mmindex": [python, "-c", "import mmindex"],
        "empty Typer app --help": [python, folder / "empty.py", "--help"],
        "mmindex --help": [*MMINDEX, "--help"],
        "empty Typer app, a command": [python, folder / "empty.py", "command0"],
        "mmindex status": [*MMINDEX, "status", "--store", store],
        "mmindex --version": [*MMINDEX, "--version"],
        "by hand: import, load, encode, search": [
            *(python, folder / "hand.py", embedded_model(), folder / "vectors.npy", text)
        ],
        "mmindex query": [*MMINDEX, "query", text, "--store", store],
    }
    runs = options.runs * (7 if options.full else 3)
    rows = in_turns(programs, runs)
    report.table("start-up", list(rows.values()))
    added = rows["import mmindex"]["wall ms"] - rows["python -c pass"]["wall ms"]
    report.table("import", [{"import mmindex adds, ms": added, "at most": 60}])
    pairs = (
        ("mmindex --help", "empty Typer app --help", 1.3),
        ("mmindex status", "empty Typer app, a command", 1.3),
        ("mmindex query", "by hand: import, load, encode, search", 1.0),
    )
    report.table(
        "ratios",
        [
            {
                "program": one,
                "beside": other,
                "wall": rows[one]["wall ms"] / rows[other]["wall ms"],
                "processor": rows[one]["processor ms"] / rows[other]["processor ms"],
                "at most": most,
            }
            for one, other, most in pairs
        ],
    )
    report.table("cold queries", cold_queries(folder, runs))


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--store", type=Path, help="default: a small store, built first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = options.store
        if store is None:
            store = folder / "store"
            run([*MMINDEX, "build", "--store", store, "--source", "scenes:500@7"])
        measure(store, folder, options)


if __name__ == "__main__":
    main()
