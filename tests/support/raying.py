"""Ray clusters of simulated nodes on loopback, and fake models for their workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from mmindex.core.config import Config
from mmindex.core.records import Reason
from mmindex.crawl import spread
from mmindex.crawl.reading import Reading, ReadRules
from mmindex.crawl.spread import ReadUnit
from mmindex.encode.work import EncoderSource
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import Pixels
from mmindex.store.manifest import EncoderInfo
from support.models import FakeEncoder

# A file in this folder determines what happens in workers; the environment names it.
TRICKS = "MMINDEX_TEST_TRICKS"


@contextmanager
def cluster(tricks: Path, nodes: int = 1) -> Iterator[Any]:
    """A cluster of nodes with one core each; the test's modules can be imported there."""
    tests = str(Path(__file__).parent.parent)
    before = dict(os.environ)
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([tests, *sys.path]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        TRICKS: str(tricks),
    }
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=_node())
    try:
        for _ in range(nodes - 1):
            add_node(made)
        yield made
    finally:
        made.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _node() -> dict[str, Any]:
    return {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}


def add_node(made: Any) -> Any:
    """Add a node with one core."""
    return made.add_node(num_cpus=1, object_store_memory=80 << 20)


def kill_node(made: Any, node: Any) -> None:
    """End a node as a power loss does: the daemon and all workers at once."""
    [daemon] = node.all_processes["raylet"]
    raylet = psutil.Process(daemon.process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    made.remove_node(node, allow_graceful=False)


class TrickyEncoder(FakeEncoder):
    """An encoder that does what the tricks say: it dies, or waits."""

    def encode_images(self, pixels: Pixels) -> Float32:
        self._obey()
        return FakeEncoder.encode_images(self, pixels)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        self._obey()
        return FakeEncoder.encode_texts(self, texts)

    def _obey(self) -> None:
        tricks = Path(os.environ[TRICKS])
        if (tricks / "slow").exists():
            time.sleep(float((tricks / "slow").read_text()))
        for name in ("die once", "die always"):
            trick = tricks / name
            if trick.exists():
                if name == "die once":
                    trick.unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGKILL)


def tricky_source(_config: Config, _known: EncoderInfo | None) -> EncoderSource:
    """Replaces :func:`mmindex.encode.stage.encoder_source` on a node."""
    encoder = TrickyEncoder()
    return EncoderSource(encoder.info, lambda: encoder.preprocess, lambda: encoder)


def tricky_read(rules: ReadRules, threads: int, unit: ReadUnit) -> tuple[Reading, ...]:
    """Read a unit of a crawl on a node, but do as the tricks say: die, or see nothing there."""
    tricks = Path(os.environ[TRICKS])
    if (tricks / "die once").exists():
        (tricks / "die once").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if (tricks / "blind").exists():
        return tuple(Reading("", failure=(Reason.MISSING, "not here")) for _ in unit.items)
    return spread._read_here(rules, threads, unit)


class NanEncoder(FakeEncoder):
    """A model that is broken."""

    def encode_images(self, pixels: Pixels) -> Float32:
        return FakeEncoder.encode_images(self, pixels) * np.float32(np.nan)


def nan_source(_config: Config, _known: EncoderInfo | None) -> EncoderSource:
    encoder = NanEncoder()
    return EncoderSource(encoder.info, lambda: encoder.preprocess, lambda: encoder)


def other_source(_config: Config, _known: EncoderInfo | None) -> EncoderSource:
    encoder = FakeEncoder(seed=1)
    return EncoderSource(encoder.info, lambda: encoder.preprocess, lambda: encoder)


def drive(address: str, root: Path, tables: str) -> None:
    """Run as a driver; see ``test_a_killed_driver_can_be_run_again``."""
    from mmindex.cluster.join import Joined
    from mmindex.encode.cluster import ClusterWorker
    from mmindex.encode.stage import encode
    from mmindex.store.lock import writer_lock
    from mmindex.store.manifest import ObjectRef
    from mmindex.store.objects import Objects
    from mmindex.store.snapshot import Snapshot
    from mmindex.store.versions import open_layout
    from support.encoding import settings
    from support.manifests import manifest

    layout = open_layout(root)
    images, captions = (
        ObjectRef(
            name=name,
            sha256=sha256,
            bytes=layout.object(sha256).stat().st_size,
            rows=pq.read_metadata(layout.object(sha256)).num_rows,
        )
        for name, sha256 in zip(("images", "captions"), tables.split(","), strict=True)
    )
    config = settings(shard_rows=3, workers=1, cores=1)
    with writer_lock(layout):
        joined = Joined.join(address, layout, config)
        worker = ClusterWorker.on(joined, config, None, tricky_source)
        draft = Snapshot(Objects(layout), manifest())
        encode(worker.source, draft, (images, captions), config, cluster=worker)
