"""Check that encoding and indexing on a GPU are right, and measure how fast they are.

    gpu_check.py [--device cuda:0] [--small]
    gpu_check.py --device cpu --small: the same code without a GPU, in two minutes

It needs one CUDA device, no network and 8 minutes. Models of open_clip have seeded random weights;
the embedded models have their own. It prints tables, and as its last line a JSON object with all
checks and figures. Its exit code is 0 if all checks hold, 1 if not, and 2 without the device.

The checks:

- vectors in bf16 and fp16 have a cosine of at least 0.999 to those of float32 on the CPU (the model
  for photographs: fp16, its default);
- two workers on one device, and batches that do not fit in memory, give the same vectors;
- every form of index that a plan can choose for a GPU has the same recall as on the CPU;
- the table of settings that the kernels of FAISS support is right;
- searches with a filter return the same results as on the CPU.

Without a GPU, the CPU takes its place: the comparisons run, but say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_encode import decode_rate, write_images
from benchkit import gpu_models as models
from benchkit.checks import Check, guarded
from benchkit.machine import machine
from benchkit.report import Report, Row, options_of

_PARTS = ("models", "rates", "index")


def check_models(names: Sequence[str], case: models.Case, report: Report) -> list[Check]:
    """Check the vectors of each model, several workers, and memory."""
    checks = []
    for name in names:
        checks += guarded(f"{name}: vectors", lambda name=name: models.vectors(name, case))
    checks += guarded("two workers on one device", lambda: models.group(names[0], case))
    checks += guarded("out of memory", lambda: models.exhaustion(names[0], case))
    report.table("encoding", [asdict(check) for check in checks])
    return checks


def measure_rates(
    names: Sequence[str], case: models.Case, files: int, folder: Path, report: Report
) -> list[Check]:
    """Measure images per second of each model, alone and from JPEGs."""
    images, rows = folder / "images", []
    what = write_images(images, None, files)

    def each() -> Iterator[Check]:
        decoding = decode_rate("photos", None, images)
        for number, name in enumerate(names):
            whole = models.build_rate(name, case, folder / f"store{number}", images)
            rows.append(models.rates(name, case, decoding, whole))
        yield Check("rates", True, f"{len(rows)} models", "measured")

    checks = guarded("rates", each)
    report.table(f"images per second, {files} {what}", rows)
    decoder: list[Row] = []
    checks += guarded("JPEGs decoded on the device", lambda: decode_there(case, images, decoder))
    report.table("JPEGs decoded on the device (not used by builds)", decoder)
    return checks


def decode_there(case: models.Case, images: Path, rows: list[Row]) -> Iterator[Check]:
    rows.append(models.device_decoding(case, images))
    yield Check("JPEGs decoded on the device", True, "see the table", "measured")


def check_index(
    device: str, n: int, dims: tuple[int, ...], folder: Path, report: Report
) -> list[Check]:
    """Check every form of index, the limits of the kernels, and filters."""
    from benchkit import gpu_index as index

    kernels, checks, rows = index.kernels_of(device), [], []
    samples = {dim: index.make_sample(folder / f"sample{dim}", n, dim, 512) for dim in dims}

    def one(plan: Any) -> list[Check]:
        found, row = index.form(plan, samples[plan.dim], kernels)
        rows.append(row)
        return found

    for plan in index.plans_for(n, dims):
        checks += guarded(f"{plan.dim}: {plan.factory}", lambda plan=plan: one(plan))
    checks += guarded("limits of the kernels", lambda: index.limits(kernels))
    sample = samples[dims[0]]
    checks += guarded("filters", lambda: index.filters(folder / "filters", sample, kernels))
    report.table(f"index: {n:,} vectors", rows)
    report.table("index", [asdict(check) for check in checks])
    return checks


def about(device: str) -> dict[str, Any]:
    """Return the machine, the device and the versions that matter for it."""
    import faiss
    import torch

    found = {**machine(), "device": device, "faiss": faiss.get_compile_options().strip()}
    if device != "cpu":
        found["device"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def why_not(device: str) -> str:
    """Return why the device cannot be checked; empty if it can."""
    import faiss
    import torch

    if device == "cpu":
        return ""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    return "" if faiss.get_num_gpus() else "faiss sees no GPU"


def run_parts(options: argparse.Namespace, folder: Path, report: Report) -> list[Check]:
    """Run the chosen parts."""
    small = options.small
    names = ["embedded", "photos"] if small else ["ViT-B-32", "ViT-L-14", "embedded", "photos"]
    case = models.Case(
        options.device, images=8 if small else 64, batch=16 if small else 256, turns=options.runs
    )
    checks: list[Check] = []
    if "models" in options.only:
        checks += check_models(names, case, report)
    if "rates" in options.only:
        checks += measure_rates(names, case, 64 if small else 20_000, folder, report)
    if "index" in options.only:
        n, dims = (2_000, (64,)) if small else (50_000, (512, 768))
        checks += check_index(options.device, n, dims, folder, report)
    return checks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--device", default="cuda:0", help="a CUDA device, or cpu")
    parser.add_argument("--small", action="store_true", help="fewer models, images and vectors")
    parser.add_argument("--only", nargs="*", choices=_PARTS, default=_PARTS, help="default: all")
    options = parser.parse_args(arguments)
    if why := why_not(options.device):
        print(f"error: {options.device}: {why}", file=sys.stderr)
        return 2
    report = Report("gpu_check", options)
    with tempfile.TemporaryDirectory() as name:
        checks = run_parts(options, Path(name), report)
    failed = [check for check in checks if not check.holds]
    report.table("checks that do not hold", [asdict(check) for check in failed])
    found = {"about": about(options.device), "checks": [asdict(check) for check in checks]}
    print(json.dumps({**found, "tables": report.tables}))
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
