"""Checks of encoding on a device: vectors, rates, several workers, and memory."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchkit.checks import Check, at_least, lowest_cosine
from benchkit.process import MMINDEX, run
from benchkit.report import Row, timed

COSINE = 0.999
# Vectors of the same model in the same precision, in batches of other sizes.
_SAME = 0.9999
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """What to encode, and where.

    Attributes:
        device: ``cpu`` or a CUDA device, for example ``cuda:0``.
        images: number of images for comparisons.
        batch: images in a batch for rates.
        turns: number of measurements; the median counts.
    """

    device: str
    images: int
    batch: int
    turns: int

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def precisions(self, name: str) -> tuple[str, ...]:
        """Return the precisions of a model to compare with float32."""
        if name == "photos":  # bf16 is too coarse for it, and not its default
            return ("fp16",)
        return ("bf16", "fp16") if self.on_gpu else ("bf16",)

    def usual(self, name: str) -> str:
        """Return the precision that is the default for a model on the device."""
        from mmindex.models.devices import place

        return place(self.device, model=name).precision

    def wait(self) -> None:
        """Wait until the device has finished everything."""
        if self.on_gpu:
            import torch

            torch.cuda.synchronize(self.device)


def load(name: str, precision: str, devices: tuple[str, ...]) -> Any:
    """Load a model; architectures of open_clip get seeded random weights."""
    from mmindex.models.devices import Placement
    from mmindex.models.openclip import load_encoder
    from mmindex.models.resolve import resolve_model

    request = resolve_model(name, None if name in ("embedded", "photos") else "none")
    return load_encoder(request, Placement(devices, precision))


def pixels_for(encoder: Any, count: int) -> Pixels:
    """Return the input pixels of drawn scenes."""
    from mmindex.models.preprocess import to_pixels
    from mmindex.scenes import draw, make_scene

    scenes = [draw(make_scene(7, number)).convert("RGB") for number in range(min(count, 64))]
    distinct = np.stack([to_pixels(scene, encoder.preprocess) for scene in scenes])
    return distinct[np.arange(count) % len(distinct)]


def texts_for(count: int) -> list[str]:
    from benchkit.models import captions

    return captions(None, count)[1]


def vectors(name: str, case: Case) -> Iterator[Check]:
    """Compare the vectors of the device with float32 on the CPU."""
    exact = load(name, "fp32", ("cpu",))
    pixels, texts = pixels_for(exact, case.images), texts_for(case.images)
    images, sentences = exact.encode_images(pixels), exact.encode_texts(texts)
    del exact
    for precision in case.precisions(name):
        encoder = load(name, precision, (case.device,))
        found = encoder.encode_images(pixels), encoder.encode_texts(texts)
        what = f"{name} {precision} like float32 on the CPU"
        yield at_least(f"{what}: images", lowest_cosine(found[0], images), COSINE)
        yield at_least(f"{what}: texts", lowest_cosine(found[1], sentences), COSINE)


def group(name: str, case: Case) -> Iterator[Check]:
    """Compare two workers on the device with a single encoder."""
    single = load(name, case.usual(name), (case.device,))
    pixels, texts = pixels_for(single, case.images + 1), texts_for(case.images + 1)
    pair = load(name, case.usual(name), (case.device, case.device))
    try:
        # The second batch is started before the first is collected, as in a build.
        waits = [pair.start_images(pixels), pair.start_images(pixels[::-1])]
        first, second = (wait() for wait in waits)
        sentences = pair.encode_texts(texts)
    finally:
        pair.close()
    images = single.encode_images(pixels)
    what = "two workers on one device"
    yield at_least(f"{what}: images", lowest_cosine(first, images), _SAME)
    yield at_least(f"{what}: the next batch", lowest_cosine(second, images[::-1]), _SAME)
    yield at_least(f"{what}: texts", lowest_cosine(sentences, single.encode_texts(texts)), _SAME)


def exhaustion(name: str, case: Case) -> Iterator[Check]:
    """Encode a batch that does not fit in the memory of the device."""
    encoder = load(name, case.usual(name), (case.device,))
    rows = 16 * case.images
    pixels = pixels_for(encoder, rows)
    expected = np.concatenate([encoder.encode_images(part) for part in np.array_split(pixels, 16)])
    with scarce(encoder, pixels, case):
        found = encoder.encode_images(pixels)
    limit = encoder._image_limit
    halved = Check("out of memory: smaller batches", limit < rows, f"{limit}", f"below {rows}")
    yield halved
    yield at_least("out of memory: the same vectors", lowest_cosine(found, expected), _SAME)


@contextmanager
def scarce(encoder: Any, pixels: Pixels, case: Case) -> Iterator[None]:
    """Let the device have memory for about a third of a batch; a CPU behaves as if it had."""
    import torch

    if not case.on_gpu:
        original, most = encoder.model.encode_image, len(pixels) // 3

        def limited(images: Any) -> Any:
            if len(images) > most:
                raise torch.OutOfMemoryError("out of memory, as in a check")
            return original(images)

        encoder.model.encode_image = limited
        try:
            yield
        finally:
            encoder.model.encode_image = original
        return
    torch.cuda.reset_peak_memory_stats(case.device)
    before = torch.cuda.memory_allocated(case.device)
    encoder.encode_images(pixels[: len(pixels) // 3])
    needed = torch.cuda.max_memory_allocated(case.device) - before
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(case.device).total_memory
    share = (torch.cuda.memory_reserved(case.device) + 1.2 * needed) / total
    torch.cuda.set_per_process_memory_fraction(share, case.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, case.device)


class Resident:
    """Pixels that are on the device already, and vectors that stay there."""

    def __init__(self, there: Any) -> None:
        self.there = there

    def send(self, tensor: Any) -> Any:
        return self.there[: len(tensor)]

    def fetch(self, tensor: Any) -> Callable[[], Any]:
        return lambda: tensor


def model_rate(name: str, case: Case) -> tuple[float, float]:
    """Return images per second of the model alone, with pixels on the device, and from memory."""
    import torch

    encoder = load(name, case.usual(name), (case.device,))
    pixels = pixels_for(encoder, case.batch)

    def from_memory() -> None:
        before = None
        for _ in range(_BATCHES):
            started = encoder.start_images(pixels)
            if before is not None:
                before()
            before = started
        if before is not None:
            before()

    def on_device() -> None:
        for _ in range(_BATCHES):
            encoder.start_images(pixels)
        case.wait()

    usual = encoder._transfer
    resident = Resident(usual.send(torch.from_numpy(pixels)))
    seconds: dict[str, list[float]] = {"device": [], "memory": []}
    for _ in range(case.turns + 1):
        encoder._transfer = resident
        seconds["device"].append(timed(on_device))
        encoder._transfer = usual
        seconds["memory"].append(timed(from_memory))
    images = _BATCHES * case.batch
    alone, memory = (images / statistics.median(found[1:]) for found in seconds.values())
    return alone, memory


_BATCHES = 4


def build_rate(name: str, case: Case, store: Path, images: Path) -> float:
    """Return images per second of ``mmindex encode``, without loading the model."""
    run([*MMINDEX, "crawl", "--store", store, "--source", f"folder:{images}"])
    random = [] if name in ("embedded", "photos") else ["--pretrained", "none"]
    device = ["--device", case.device, "--precision", case.usual(name)]
    size = ["--batch-size", str(case.batch)]
    run([*MMINDEX, "encode", "--store", store, "--model", name, *random, *device, *size])
    report = json.loads(sorted((store / "runs").glob("*.json"))[-1].read_text())
    return float(report["reports"]["encode"]["images_per_second"])


def rates(name: str, case: Case, decoding: float, whole: float) -> Row:
    """Return the rates of one model, with the bound of model and decoding.

    Args:
        name: the model.
        case: the device.
        decoding: images per second that one core decodes.
        whole: images per second of a build.
    """
    alone, memory = model_rate(name, case)
    cores = len(os.sched_getaffinity(0))
    decoded = cores * decoding
    # A GPU leaves the cores to decoding; a CPU does both.
    bound = min(alone, decoded) if case.on_gpu else 1 / (1 / alone + 1 / decoded)
    return {
        "model": f"{name} {case.usual(name)}",
        "pixels on the device": alone,
        "from memory": memory,
        f"decode, {cores} cores": decoded,
        "bound": bound,
        "from JPEGs": whole,
        "of the bound": whole / bound,
    }


def device_decoding(case: Case, images: Path) -> Row:
    """Measure torchvision's JPEG decoder on the device, and how far its pixels change vectors."""
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    from mmindex.models.preprocess import to_pixels

    paths = sorted(images.iterdir())[: case.batch]
    files = [torch.from_numpy(np.fromfile(path, dtype=np.uint8)) for path in paths]
    mode = ImageReadMode.RGB
    decoded = decode_jpeg(files, mode=mode, device=case.device)
    case.wait()
    begun = time.perf_counter()
    decoded = decode_jpeg(files, mode=mode, device=case.device)
    case.wait()
    rate = len(files) / (time.perf_counter() - begun)
    encoder = load("photos", "fp32", (case.device,))

    def encoded(pictures: list[Image.Image]) -> NDArray[np.float32]:
        pixels = [to_pixels(picture, encoder.preprocess) for picture in pictures]
        found: NDArray[np.float32] = encoder.encode_images(np.stack(pixels))
        return found

    there = [Image.fromarray(one.permute(1, 2, 0).cpu().numpy()) for one in decoded]
    here = [Image.open(path).convert("RGB") for path in paths]
    return {
        "decoder": f"torchvision on {case.device}",
        "images/s": rate,
        "lowest cosine to Pillow": lowest_cosine(encoded(there), encoded(here)),
    }
