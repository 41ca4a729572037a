"""Images per second: mmindex, the upper bound of this machine, and clip-retrieval.

    bench_encode.py [--photos DIR] [--images 256] [--models ViT-B-32 photos]

The bound is 1 / (1 / model + 1 / (cores x decode)). It combines the rates of the model alone and of
decoding alone, measured in the same run on the same cores. Both programs get the same seeded
weights and the same files. ``--photos`` names a folder of JPEGs, each of which is used several
times with different bytes appended. Without it, scenes are drawn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchkit.process import MMINDEX, again, peer, run
from benchkit.report import Report, in_turn, options_of

EMBEDDED = ("embedded", "photos")


def write_images(folder: Path, photos: Path | None, count: int) -> str:
    """Write ``count`` JPEGs with different bytes, and return a description of them."""
    folder.mkdir()
    if photos is not None:
        files = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))[:count]]
        if not files:
            raise SystemExit(f"{photos}: contains no .jpg")
        what = f"{len(files)} photos"
    else:
        from mmindex.scenes import draw, encode, make_scene

        files = [encode(draw(make_scene(7, number))) for number in range(min(count, 512))]
        what = "drawn scenes"
    for number in range(count):
        data = files[number % len(files)] + number.to_bytes(4, "big")
        (folder / f"{number:06d}.jpg").write_bytes(data)
    return what


def model_rate(name: str, weights: Path | None, precision: str, size: int, batch: int) -> float:
    """Return images per second of the model alone, on all cores."""
    import numpy as np

    from benchkit.models import load
    from mmindex.core.system import reuse_freed_memory

    encoder = load(name, weights, precision)
    reuse_freed_memory(1 << 30)  # as the encode stage does
    side = encoder.preprocess.height
    pixels = np.random.default_rng(0).integers(0, 255, (batch, side, side, 3), dtype=np.uint8)
    encoder.encode_images(pixels)
    seconds = []
    for _ in range(size):
        begun = time.perf_counter()
        encoder.encode_images(pixels)
        seconds.append(time.perf_counter() - begun)
    return batch / statistics.median(seconds)


def decode_rate(name: str, weights: Path | None, folder: Path) -> float:
    """Return images per second of one core that reads, checks, decodes and resizes."""
    from mmindex.core.config import LimitsConfig
    from mmindex.encode.decoding import Decoder, DecodeTask
    from mmindex.media.images import ImageLimits
    from mmindex.models.files import locate
    from mmindex.models.resolve import resolve_model

    request = resolve_model(name, None if weights is None else str(weights))
    decode = Decoder(locate(request).preprocess, ImageLimits.of(LimitsConfig()))
    paths = sorted(folder.iterdir())[:256]
    keys = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    tasks = [DecodeTask(key, str(path)) for key, path in zip(keys, paths, strict=True)]
    begun = time.perf_counter()
    for task in tasks:
        decode(task)
    return len(tasks) / (time.perf_counter() - begun)


def whole_run(
    model: list[str], precision: str, images: Path, store: Path, prepare: bool
) -> dict[str, Any]:
    """Time ``mmindex encode`` as a process; ``mmindex crawl`` is not timed."""
    if prepare:
        run([*MMINDEX, "crawl", "--store", store, "--source", f"folder:{images}"])
    ran = run([*MMINDEX, "encode", "--store", store, *model, "--precision", precision])
    reports = sorted((store / "runs").glob("*.json"))
    stage = json.loads(reports[-1].read_text())["reports"]["encode"]
    return {"wall_s": ran.wall_s, "rate": stage["images_per_second"], "report": stage}


def peer_run(name: str, weights: Path, images: Path, target: Path) -> float:
    """Return the wall time of ``clip-retrieval inference`` over the folder, in seconds."""
    python = peer("clip-retrieval")
    if python is None:
        return float("nan")
    begun = time.perf_counter()
    run(
        [
            *(python.parent / "clip-retrieval", "inference"),
            *("--input_dataset", images, "--output_folder", target, "--enable_text", "False"),
            *("--batch_size", "32", "--num_prepro_workers", len(os.sched_getaffinity(0))),
            *("--clip_model", f"open_clip:{name}/{weights}"),
        ]
    )
    return time.perf_counter() - begun


def measure(options: argparse.Namespace, folder: Path, report: Report) -> None:
    """Measure the parts and whole runs of each model in turn, so that models can be compared."""
    from benchkit.models import seeded_weights

    images = folder / "images"
    what = write_images(images, options.photos, options.images)
    weights = {
        name: None if name in EMBEDDED else seeded_weights(name, folder) for name in options.models
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.models}
    count = iter(range(1_000))

    def whole(name: str) -> float:
        store = folder / f"store{next(count)}"
        model = ["--model", name, *(["--pretrained", str(weights[name])] if weights[name] else [])]
        runs[name].append(whole_run(model, "fp32", images, store, prepare=True))
        shutil.rmtree(store)
        return float(runs[name][-1]["rate"])

    def alone(part: str, name: str) -> float:
        measured = again(__file__, "--part", part, name, str(weights[name] or ""), images)
        return float(measured.json())

    actions: dict[str, Callable[[], float]] = {}
    for name in options.models:
        actions[f"{name}: model alone"] = partial(alone, "model", name)
        actions[f"{name}: decode, one core"] = partial(alone, "decode", name)
        actions[f"{name}: mmindex"] = partial(whole, name)
    rates = in_turn(actions, options.runs)
    for name in options.models:
        rows = table_of(name, rates, runs[name])
        model_weights = weights[name]
        if model_weights is not None and peer("clip-retrieval"):
            walls = [
                peer_run(name, model_weights, images, folder / f"peer-{name}{turn}")
                for turn in range(options.runs)
            ]
            rows.append({"what": "clip-retrieval", "process s": statistics.median(walls)})
        report.table(f"{name} float32, {options.images} {what}", rows)
        report.keep(name, runs[name][-1]["report"])
    if len(options.models) > 1:
        compare(options.models, rates, report)


def table_of(
    name: str, rates: dict[str, list[float]], runs: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rates of one model, and the share of its bound that mmindex reaches."""
    cores = len(os.sched_getaffinity(0))
    model_alone, decoding, own = (
        statistics.median(rates[f"{name}: {part}"])
        for part in ("model alone", "decode, one core", "mmindex")
    )
    bound = 1 / (1 / model_alone + 1 / (cores * decoding))
    return [
        {"what": "model alone", "images/s": model_alone},
        {"what": "decode, one core", "images/s": decoding},
        {"what": f"bound on {cores} cores", "images/s": bound, "of the bound": 1.0},
        {"what": "mmindex", "images/s": own, "of the bound": own / bound,
         "process s": statistics.median(ran["wall_s"] for ran in runs)},
    ]  # fmt: skip


def compare(models: list[str], rates: dict[str, list[float]], report: Report) -> None:
    """Return the time of each model's whole run, relative to the first model in the same round."""
    first = rates[f"{models[0]}: mmindex"]
    rows = []
    for name in models:
        own = rates[f"{name}: mmindex"]
        ratios = [rate / base for rate, base in zip(own, first, strict=True)]
        rows.append(
            {
                "model": name,
                "images/s": statistics.median(own),
                f"times {models[0]}": statistics.median(ratios),
                "from": min(ratios),
                "to": max(ratios),
            }
        )
    report.table("Models, decoding included", rows)


def precisions(name: str, folder: Path, options: argparse.Namespace, report: Report) -> None:
    """Measure the model alone with each precision, and the change of its vectors."""
    rates = in_turn(
        {
            one: lambda one=one: float(
                again(__file__, "--part", "model", name, folder / f"{name}.safetensors", one).json()
            )
            for one in ("fp32", "bf16", "int8")
        },
        options.runs,
    )
    median = {one: statistics.median(found) for one, found in rates.items()}
    report.table(
        f"{name}, the model alone",
        [
            {"precision": one, "images/s": rate, "times fp32": rate / median["fp32"]}
            for one, rate in median.items()
        ],
    )


def part(values: list[str]) -> None:
    what, name, weights, third = values
    path = Path(weights) if weights else None
    if what == "decode":
        found = decode_rate(name, path, Path(third))
    else:
        precision = third if third in ("fp32", "bf16", "int8") else "fp32"
        found = model_rate(name, path, precision, 5, 64)
    print(json.dumps(found))


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument(
        "--photos", type=Path, default=os.environ.get("MMINDEX_BENCH_PHOTOS") or None
    )
    parser.add_argument("--images", type=int, help="default: 256; 1024 with --full")
    parser.add_argument("--models", nargs="*", default=["ViT-B-32", *EMBEDDED])
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part)
        return
    options.images = options.images or (1_024 if options.full else 256)
    report = Report("encode", options)
    with tempfile.TemporaryDirectory() as name:
        measure(options, Path(name), report)
        for model in options.models:
            if model not in EMBEDDED:
                precisions(model, Path(name), options, report)


if __name__ == "__main__":
    main()
