"""Check the machine: packages, GPU, disk, model hub."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmindex.core.errors import MmindexError, NetworkError, UnsupportedSystemError, reason_of
from mmindex.core.resources import data_dir
from mmindex.core.system import require_stores
from mmindex.media.kinds import EXTRAS
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.upkeep.doctor_cluster import check_cluster
from mmindex.upkeep.doctor_disk import check_disk
from mmindex.upkeep.finding import Finding, State

__all__ = ["Finding", "State", "examine", "verdict"]

_HUB_TIMEOUT_S = 5.0  # short, because the user is waiting
_PLANNED_ROWS, _PLANNED_DIM = 10_000_000, 512
_LOW_DISK_BYTES = 5 * 10**9  # for weights, shards and index of a corpus of 100,000 images
_MODEL = "model"
_PACKAGES = ("torch", "torchvision", "open-clip-torch", "pyarrow", "pillow", "numpy")


def examine(
    store: Path,
    model: str | None = None,
    pretrained: str | None = None,
    cluster: str | None = None,
) -> Iterator[Finding]:
    """Check everything that a build needs and yield the findings; imports torch and faiss.

    Args:
        store: the store of the build.
        model, pretrained: the model of the build; None for the model of the store, or the default
            for photos.
        cluster: also check the nodes of this cluster; see
            :func:`mmindex.cluster.connect.connected`.
    """
    yield Finding("python", State.OK, f"{platform.python_version()} ({sys.executable})")
    yield _system()
    for package in _PACKAGES:
        yield _package(package)
    yield _formats()
    yield _faiss()
    yield _gpu()
    yield _index_plan()
    yield _embedded()
    disk = _disk(store)
    yield disk
    if disk.state is not State.BROKEN:
        yield from check_disk(_existing(store))
    hub = _hub(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    yield hub
    yield _model(store, model, pretrained, hub)
    if cluster is not None:
        yield from check_cluster(cluster, store, model, pretrained)


def verdict(findings: Iterable[Finding]) -> tuple[str, int]:
    """Return a summary and the exit code."""
    broken = [finding.what for finding in findings if finding.state is State.BROKEN]
    if broken == [_MODEL]:
        return "not ready for this model; --model photos works without a download", 69
    if broken:
        return f"not ready: fix {', '.join(broken)}", 69
    return "ready: `mmindex build` can run on this machine", 0


def _system() -> Finding:
    try:
        require_stores()
    except UnsupportedSystemError as error:
        return Finding("system", State.BROKEN, f"{error.message}: {error.hint}")
    return Finding("system", State.OK, platform.platform())


def _package(name: str) -> Finding:
    try:
        return Finding(name, State.OK, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, State.BROKEN, f"not installed: pip install {name}")


def _formats() -> Finding:
    """Return the available image formats, and the extras for other formats."""
    missing = [one for one in EXTRAS if not one.installed]
    there = ", ".join(
        ["JPEG, PNG, HEIC, AVIF and others", *(one.what for one in EXTRAS if one.installed)]
    )
    if not missing:
        return Finding("formats", State.OK, there)
    more = ", ".join(f"mmindex[{one.name}] reads {one.what}" for one in missing)
    return Finding("formats", State.OK, f"{there}; {more}")


def _faiss() -> Finding:
    try:
        import faiss
    except ImportError as error:
        return Finding("faiss", State.BROKEN, f"{error}: pip install faiss-gpu (or faiss-cpu)")
    options = re.sub(r"\s+", " ", faiss.get_compile_options()).strip()
    return Finding("faiss", State.OK, f"{faiss.__version__} ({options})")


def _gpu() -> Finding:
    try:
        import faiss
        import torch
    except ImportError as error:
        return Finding("gpu", State.NOTE, f"not checked: {error}")
    seen_by_torch = torch.cuda.device_count() if torch.cuda.is_available() else 0
    seen_by_faiss = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    cuda = f"torch CUDA {torch.version.cuda or 'none'}, faiss CUDA {_faiss_cuda()}"
    if not seen_by_torch and not seen_by_faiss:
        return Finding("gpu", State.NOTE, f"none: both run on the CPU ({cuda})")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(seen_by_torch)) or "none"
    if seen_by_torch != seen_by_faiss:
        return Finding(
            "gpu",
            State.NOTE,
            f"torch sees {seen_by_torch} ({names}), faiss sees {seen_by_faiss} ({cuda}): "
            "the driver is too old for one of them, or faiss-cpu is installed",
        )
    return Finding("gpu", State.OK, f"{names}; both see it ({cuda})")


def _faiss_cuda() -> str:
    """Return the CUDA version of the faiss wheel, from the runtime that it depends on."""
    try:
        needs = importlib.metadata.requires("faiss-gpu") or []
    except importlib.metadata.PackageNotFoundError:
        return "none"
    majors = {
        found[1] for need in needs if (found := re.match(r"nvidia-cuda-runtime-cu(\d+)", need))
    }
    return ", ".join(sorted(majors)) or "unknown"


def _index_plan() -> Finding:
    """Return the plan of an index with ten million CLIP vectors on this machine."""
    try:
        from mmindex.index.gpu import detect
        from mmindex.index.plan import candidates

        plan = candidates(_PLANNED_ROWS, _PLANNED_DIM, "auto", None, detect("auto", memory=True))[0]
    except ImportError as error:
        return Finding("index plan", State.NOTE, f"not checked: {error}")
    except MmindexError as error:
        return Finding("index plan", State.NOTE, f"10,000,000 x 512: {error.message}")
    return Finding("index plan", State.OK, f"10,000,000 x 512: {plan.factory} ({plan.reason})")


def _embedded() -> Finding:
    try:
        folder = data_dir() / "models"
    except MmindexError as error:
        return Finding("embedded model", State.BROKEN, error.message)
    weights = sorted(folder.glob("*/open_clip_model.safetensors"))
    if not weights:
        return Finding("embedded model", State.BROKEN, f"no weights below {folder}")
    return Finding("embedded model", State.OK, str(weights[0].parent))


def _existing(store: Path) -> Path:
    """Return the folder of the store, or the closest one above it that exists."""
    folder = store.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _disk(store: Path) -> Finding:
    folder = _existing(store)
    if not os.access(folder, os.W_OK):
        return Finding("disk", State.BROKEN, f"{folder} is not writable: choose another --store")
    free = shutil.disk_usage(folder).free
    state = State.NOTE if free < _LOW_DISK_BYTES else State.OK
    return Finding("disk", state, f"{free / 1e9:.1f} GB free for {store}")


def _model(store: Path, name: str | None, pretrained: str | None, hub: Finding) -> Finding:
    """Check whether the files of the model exist or can be downloaded."""
    from mmindex.models.files import locate
    from mmindex.models.hub import WouldFetchError, without_network
    from mmindex.models.resolve import resolve_model

    if name is None and pretrained is None:
        name, pretrained = _model_of(store)
    shown = "the default model"
    try:
        request = resolve_model(name, pretrained)
        shown = f"{request.name} {request.pretrained}".strip()
        with without_network():
            locate(request)
    except WouldFetchError:
        if hub.state is State.OK:
            return Finding(_MODEL, State.OK, f"{shown}: will be downloaded from the model hub")
    except NetworkError:
        pass
    except ImportError as error:
        return Finding(_MODEL, State.NOTE, f"not checked: {error}")
    except MmindexError as error:
        return Finding(_MODEL, State.BROKEN, f"{error.message}: {error.hint}")
    else:
        return Finding(_MODEL, State.OK, f"{shown}: available on this machine")
    return Finding(
        _MODEL,
        State.BROKEN,
        f"{shown}: not on this machine, and the model hub cannot be reached; "
        "--model photos needs no download; --pretrained PATH uses local weights",
    )


def _model_of(store: Path) -> tuple[str | None, str | None]:
    """Return the model of a store; None if there is no such store yet."""
    layout = Layout(store)
    manifest = versions.read_current(layout) if layout.current_file.exists() else None
    if manifest is None or manifest.encoder is None:
        return None, None
    return manifest.encoder.model, manifest.encoder.pretrained or None


def _hub(endpoint: str) -> Finding:
    if os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "TRUE", "yes", "on"}:
        return Finding(
            "model hub", State.NOTE, "HF_HUB_OFFLINE is set: only cached models are available"
        )
    request = urllib.request.Request(f"{endpoint}/api/models?limit=1", method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S) as answer:  # noqa: S310
            return Finding("model hub", State.OK, f"{endpoint} responds with {answer.status}")
    except urllib.error.HTTPError as answer:  # the hub responds; the status does not matter
        return Finding("model hub", State.OK, f"{endpoint} responds with {answer.code}")
    except (OSError, ValueError) as error:  # URLError is an OSError; ValueError: not a URL
        return Finding(
            "model hub",
            State.NOTE,
            f"{endpoint} cannot be reached: {reason_of(error)}",
        )
