"""Encoding on the nodes of a cluster: each unit is a task, and each shard goes into the store.

The driver plans, adopts and publishes as it does alone. Workers write objects and nothing else. A
worker keeps its model and its decoders between units, and looks at its node before the first one:
all nodes must see the same store and corpus and have the same packages and model.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import mmindex
from mmindex.cluster.connect import connected
from mmindex.cluster.tasks import Need, Node, Tasks, nodes, on_each
from mmindex.core.config import Config
from mmindex.core.errors import (
    InternalError,
    MmindexError,
    ModelMismatchError,
    NetworkError,
    NoInputError,
    StorageError,
)
from mmindex.core.modality import Modality
from mmindex.core.progress import counter, get_logger
from mmindex.core.records import ItemError
from mmindex.core.system import calm_openmp
from mmindex.encode.units import Unit, UnitResult
from mmindex.encode.work import EncoderSource, Worker
from mmindex.media.images import ImageLimits
from mmindex.media.uris import read_indexed, split_uri
from mmindex.media.video import split_frame
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo
from mmindex.store.objects import Objects
from mmindex.store.place import require_writable
from mmindex.store.staging import clear_staging, hold_staging, is_held

MakeSource = Callable[[Config, EncoderInfo | None], EncoderSource]
# More threads than this gain little for one batch; several units at once fill a large node better.
_MOST_CORES = 4
_TOLD_EVERY_S = 30.0
_SWEEPS, _SWEEP_S = 10, 0.2
# What decides about pixels, vectors or the bytes of a shard.
_PACKAGES = ("torch", "open_clip_torch", "timm", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture that every node must be able to read."""

    key: str
    uri: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What every worker needs to know, beside its units.

    Attributes:
        root: the store.
        held: a folder below ``staging/`` that the driver holds.
        config: the run's settings, for one unit.
        known: the published version's encoder.
        make_source: makes the encoder that the configuration asks for.
        versions: the packages that the driver has.
        samples: pictures that the driver could read.
        info: the encoder that all agreed on; None: not yet known.
    """

    root: Path
    held: Path
    config: Config
    known: EncoderInfo | None
    make_source: MakeSource
    versions: dict[str, str]
    samples: tuple[Sample, ...] = ()
    info: EncoderInfo | None = None


@dataclass(slots=True)
class NodeFigures:
    """What one node has done.

    Attributes:
        images, texts: vectors.
        units: shards, empty ones too.
        images_per_second: from its first unit to its last.
    """

    images: int = 0
    texts: int = 0
    units: int = 0
    images_per_second: float = 0.0


@dataclass(slots=True)
class ClusterWorker:
    """Encodes units on the nodes of a cluster; stands in for :class:`mmindex.encode.work.Worker`.

    Attributes:
        setup: what workers get to know.
        need: what a unit takes of a node.
        nodes: what each node has done.
        retries: how often a unit was started again because its worker or node died.
    """

    setup: Setup
    need: Need
    nodes: dict[str, NodeFigures] = field(default_factory=dict)
    retries: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _began: dict[str, float] = field(default_factory=dict)
    _told: float = 0.0

    @classmethod
    def join(
        cls,
        address: str,
        layout: Layout,
        config: Config,
        known: EncoderInfo | None,
        make_source: MakeSource,
    ) -> ClusterWorker:
        """Connect, and look at every node.

        Args:
            address: of the cluster, see :func:`mmindex.cluster.connect.connected`.
            layout: the store; its writer lock must be held.
            config: the run's settings.
            known: the published version's encoder.
            make_source: makes an encoder on a node; a function of a module.

        Raises:
            MissingPackageError: ray is not installed.
            NetworkError: there is no cluster, or none of its nodes can take a unit.
            MmindexError: a node does not fit; the message names it.
        """
        with ExitStack() as stack:
            stack.callback(_sweep, layout)
            stack.enter_context(connected(address))
            held = stack.enter_context(hold_staging(layout)).staging_dir
            need, device = _what_a_unit_needs(config, nodes())
            encode = config.encode.model_copy(update={"cores": need.cpus, "device": device})
            setup = Setup(
                root=layout.root,
                held=held,
                config=config.model_copy(update={"encode": encode}),
                known=known,
                make_source=make_source,
                versions=_versions(),
            )
            worker = cls(setup, need)
            infos = worker.look()
            if not infos:
                raise NetworkError(f"the cluster at {address} has lost all its nodes")
            worker.setup = replace(setup, info=_agreed(infos))
            get_logger("encode").info(
                "joined a cluster", nodes=len(infos), cores_per_unit=need.cpus, device=device
            )
            worker._stack = stack.pop_all()
        return worker

    @property
    def source(self) -> EncoderSource:
        """The encoder that all nodes agreed on; it cannot be loaded here."""
        if self.setup.info is None:
            raise InternalError("no node has been looked at")
        return EncoderSource(self.setup.info, _not_here, _not_here)

    def look(self) -> list[tuple[Node, EncoderInfo]]:
        """Look at every node that can take a unit; returns the encoder that each would use."""
        where = [node for node in nodes() if node.takes(self.need)]
        return on_each(_look, self.setup, where, self.need)

    def prove(self, samples: Sequence[Sample]) -> None:
        """See that every node can read these pictures, as far as this machine can.

        Raises:
            NoInputError: a node cannot; the message names it and the picture.
        """
        limits = ImageLimits.of(self.setup.config.limits)
        readable = tuple(one for one in samples if not _why_unreadable(one, limits))
        self.setup = replace(self.setup, samples=readable)
        self.look()

    def encode(
        self, _objects: Objects, side: Modality, units: Iterable[Unit], total: int
    ) -> Iterator[UnitResult]:
        """Encode units of one side; results come as they are done.

        Args:
            _objects: the driver's; workers find the store themselves.
            side: images or texts.
            units: taken as nodes get free.
            total: how many items they have.

        Raises:
            InternalError: a unit killed its worker three times.
            MmindexError: a node fails; the message names it.
        """
        tasks = Tasks(partial(_encode, self.setup), self.need, _label)
        with counter(total=total, label=f"{side}s", unit=str(side)) as progress:
            for done in tasks.run(units):
                self.retries += tasks.deaths
                tasks.deaths = 0
                self._count(side, done.node, done.result, done.seconds)
                progress.update(len(done.argument.rows))
                progress.set_postfix(nodes=len(self.nodes), retries=self.retries, refresh=False)
                self._tell(side)
                yield done.result

    def close(self) -> None:
        """Leave the cluster; its workers of this run end."""
        self._stack.close()

    def _count(self, side: Modality, node: str, result: UnitResult, seconds: float) -> None:
        figures, now = self.nodes.setdefault(node, NodeFigures()), time.monotonic()
        figures.units += 1
        if side is Modality.TEXT:
            figures.texts += result.encoded
            return
        figures.images += result.encoded
        elapsed = now - self._began.setdefault(node, now - seconds)
        figures.images_per_second = round(figures.images / elapsed, 2) if elapsed else 0.0

    def _tell(self, side: Modality) -> None:
        """Log how it goes, now and then: a run without a terminal takes hours too."""
        if time.monotonic() - self._told < _TOLD_EVERY_S:
            return
        self._told = time.monotonic()
        speeds = {name: f"{one.images_per_second:g}/s" for name, one in self.nodes.items()}
        get_logger("encode").info(
            f"encoding {side}s on a cluster",
            images=sum(one.images for one in self.nodes.values()),
            texts=sum(one.texts for one in self.nodes.values()),
            retries=self.retries,
            nodes=len(speeds),
            **speeds,
        )


def _sweep(layout: Layout) -> None:
    """Remove what dead workers staged; those of a run that was stopped need a moment to end."""
    try:
        for _ in range(_SWEEPS):
            clear_staging(layout)
            if not any(layout.staging_dir.iterdir()):
                return
            time.sleep(_SWEEP_S)
    except MmindexError as error:  # it must not hide why the run ended, and the next one sweeps too
        get_logger("encode").warning("what workers staged could not be removed", why=error.message)


def _what_a_unit_needs(config: Config, there: Sequence[Node]) -> tuple[Need, str]:
    """Cores and GPUs for a unit, and the device in the worker: one GPU, or some cores.

    Raises:
        NetworkError: no node can take a unit.
    """
    device, wanted = config.encode.device, config.encode.cores
    with_gpus = [node for node in there if node.gpus]
    if device.startswith("cuda") or (device == "auto" and with_gpus):
        share = min((node.cpus // node.gpus for node in with_gpus), default=0)
        need, device = Need(wanted or share or 1, gpus=1), "cuda"  # decoding takes most of them
    else:
        largest = max((node.cpus for node in there), default=0)
        need, device = Need(wanted or min(largest, _MOST_CORES) or 1), "cpu"
    if not any(node.takes(need) for node in there):
        has = ", ".join(f"{one.name}: {one.cpus} CPUs, {one.gpus} GPUs" for one in there[:5])
        raise NetworkError(
            f"no node of the cluster has {need.cpus} CPUs and {need.gpus} GPUs for a unit ({has})",
            "start larger nodes, or set `cores` lower",
        )
    return need, device


def _agreed(found: Sequence[tuple[Node, EncoderInfo]]) -> EncoderInfo:
    """The encoder of the first node, if it is that of all others.

    Raises:
        ModelMismatchError: a node would use another one.
    """
    first, info = found[0]
    for node, other in found[1:]:
        _require_same(info, other, first.name, node.name)
    return info


def _require_same(info: EncoderInfo, other: EncoderInfo, first: str, node: str) -> None:
    if info.precision != other.precision:
        raise ModelMismatchError(
            f"node {node} computes in {other.precision}, {first} in {info.precision}",
            f"give the same to all, for example `precision={info.precision}`",
        )
    if info.fingerprint != other.fingerprint:
        raise ModelMismatchError(
            f"node {node} has other files of the model {info.model} "
            f"({other.fingerprint[:12]}) than {first} ({info.fingerprint[:12]})",
            "put the same files on every node, or into a folder that all share (local-dir:PATH)",
        )


def _label(unit: Unit) -> str:
    key, content = unit.rows[0]
    what = content.decode("utf-8", "replace") if unit.side is Modality.IMAGE else key
    return f"unit {unit.number} of {unit.side}s ({len(unit.rows)} items from {what})"


def _not_here() -> NoReturn:
    raise InternalError("the model of a cluster is loaded on its nodes only")


def _versions() -> dict[str, str]:
    """What must be the same on every node."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    own = {"mmindex": mmindex.__version__, "Python": platform.python_version()}
    return own | {name: of(name) for name in _PACKAGES}


# What runs on the nodes.


def _look(setup: Setup) -> EncoderInfo:
    """Look at this node; returns the encoder that it would use.

    Raises:
        MmindexError: it does not fit the others.
    """
    return _look_around(setup).info


def _look_around(setup: Setup) -> EncoderSource:
    calm_openmp()  # before torch comes
    for name, has in _versions().items():
        if has != setup.versions[name]:
            raise ModelMismatchError(
                f"{name} is {has} here and {setup.versions[name]} where the command runs",
                "install the same versions on every node",
            )
    _require_store(setup)
    source = setup.make_source(setup.config, setup.known)
    if setup.info is not None:
        _require_same(setup.info, source.info, "the others", "this one")
    limits = ImageLimits.of(setup.config.limits)
    for sample in setup.samples:
        if why := _why_unreadable(sample, limits):
            raise NoInputError(
                f"{sample.uri}: {why}", "mount the corpus at the same place on every node"
            )
    return source


def _require_store(setup: Setup) -> None:
    """See that the store is here, can be written, and that locks hold across nodes."""
    if not setup.held.is_dir():
        raise NoInputError(
            f"{setup.root}: not the store that the command writes to",
            "mount the store's file system at the same place on every node",
        )
    require_writable(setup.root)
    if not is_held(setup.held):
        raise StorageError(
            f"{setup.root}: a lock that another node holds does not show here",
            "the file system must pass flock on between nodes: NFS 4, or Lustre mounted with flock",
        )


def _why_unreadable(sample: Sample, limits: ImageLimits) -> str:
    """Why a picture cannot be read here; empty: it can. It is not decoded: it may crash."""
    video, time_s = split_frame(sample.uri)
    if time_s is not None:  # a frame's key costs the decoding of a video
        return "" if Path(split_uri(video)[0]).is_file() else "no such file"
    try:
        read_indexed(sample.uri, sample.key, limits)
    except ItemError as error:
        return f"{error.reason}: {error.detail}"
    return ""


_kept: tuple[Setup, Worker] | None = None  # of this process: a model is loaded once


def _encode(setup: Setup, unit: Unit) -> UnitResult:
    """Encode a unit in this worker."""
    worker = _worker(setup)
    with hold_staging(Layout(setup.root)) as staged:
        [result] = worker.encode(Objects(staged), unit.side, [unit], len(unit.rows))
    return result


def _worker(setup: Setup) -> Worker:
    global _kept  # noqa: PLW0603 # a task has no other way to leave something for the next one
    if _kept is not None and _kept[0] == setup:
        return _kept[1]
    if _kept is not None:
        _kept[1].close()
    worker = Worker(_look_around(setup), setup.config)
    _kept = (setup, worker)
    return worker
