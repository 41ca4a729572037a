"""Encode on the nodes of a cluster: each unit is a task, and each shard is written to the store.

The driver plans, adopts and publishes as it does without a cluster. Workers only write objects, see
:mod:`mmindex.encode.node`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

from mmindex.cluster.join import Joined, Site, cpu_need, require_room
from mmindex.cluster.tasks import Need, Node, Tasks, nodes, on_each
from mmindex.core.config import Config
from mmindex.core.errors import InternalError, NetworkError
from mmindex.core.modality import Modality
from mmindex.core.progress import counter, get_logger
from mmindex.encode.mapping import MappedPart
from mmindex.encode.node import (
    MakeSource,
    Sample,
    Setup,
    encode_unit,
    look,
    map_unit,
    require_same,
    why_unreadable,
)
from mmindex.encode.units import Unit, UnitResult
from mmindex.encode.work import EncoderSource
from mmindex.media.images import ImageLimits
from mmindex.store.manifest import EncoderInfo
from mmindex.store.objects import Objects

_TOLD_EVERY_S = 30.0
_NODES_TOLD = 16  # with more nodes, log only the slowest and the fastest


@dataclass(slots=True)
class NodeFigures:
    """The work of one node.

    Attributes:
        images, texts: number of vectors.
        units: number of units, including those without a shard.
        images_per_second: from its first unit to its last.
    """

    images: int = 0
    texts: int = 0
    units: int = 0
    images_per_second: float = 0.0


@dataclass(slots=True)
class ClusterWorker:
    """Encodes units on the nodes of a cluster, in place of :class:`mmindex.encode.work.Worker`.

    Attributes:
        setup: the workers' setup.
        need: resources that a unit needs.
        nodes: figures of each node.
        retries: number of times that a unit was restarted because its worker or node died.
    """

    setup: Setup
    need: Need
    nodes: dict[str, NodeFigures] = field(default_factory=dict)
    retries: int = 0
    _began: dict[str, float] = field(default_factory=dict)
    _told: float = 0.0

    @classmethod
    def on(
        cls, joined: Joined, config: Config, known: EncoderInfo | None, make_source: MakeSource
    ) -> ClusterWorker:
        """Check the model of every node of a cluster.

        Args:
            joined: the cluster.
            config: the run's settings.
            known: the published version's encoder.
            make_source: makes an encoder on a node; a function at module level.

        Raises:
            NetworkError: no node can run a unit.
            MmindexError: a node is not suitable; the message names it.
        """
        need, device = what_a_unit_needs(config, nodes())
        worker = cls(setup_of(joined.site, config, known, make_source, (need, device)), need)
        infos = worker.look()
        if not infos:
            raise NetworkError("the cluster has lost all its nodes")
        worker.setup = replace(worker.setup, info=_agreed(infos))
        get_logger("encode").info(
            "encoding on a cluster", nodes=len(infos), cores_per_unit=need.cpus, device=device
        )
        return worker

    @property
    def source(self) -> EncoderSource:
        """The encoder that all nodes agreed on; it cannot be loaded here."""
        if self.setup.info is None:
            raise InternalError("no node has been checked")
        return EncoderSource(self.setup.info, _not_here, _not_here)

    def look(self) -> list[tuple[Node, EncoderInfo]]:
        """Check every node that can run a unit; return the encoder that each would use."""
        where = [node for node in nodes() if node.takes(self.need)]
        return on_each(look, self.setup, where, self.need)

    def prove(self, samples: Sequence[Sample]) -> None:
        """Check that every node can read these images if this machine can.

        Raises:
            NoInputError: a node cannot; the message names the node and the image.
        """
        limits = ImageLimits.of(self.setup.config.limits)
        readable = tuple(one for one in samples if not why_unreadable(one, limits))
        self.setup = replace(self.setup, samples=readable)
        self.look()

    def encode(
        self, _objects: Objects, side: Modality, units: Iterable[Unit], total: int
    ) -> Iterator[UnitResult]:
        """Encode units of one side; results are in order of completion.

        Args:
            _objects: the driver's objects; workers open the store themselves.
            side: images or texts.
            units: units, read as nodes become free.
            total: number of items in all units.

        Raises:
            InternalError: a unit killed its worker three times.
            MmindexError: a node fails; the message names it.
        """
        tasks = Tasks(partial(encode_unit, self.setup), self.need, _label)
        with counter(total=total, label=f"{side}s", unit=str(side)) as progress:
            for done in tasks.run(units):
                self.retries += tasks.deaths
                tasks.deaths = 0
                self._count(side, done.node, done.result, done.seconds)
                progress.update(done.argument.size)
                progress.set_postfix(nodes=len(self.nodes), retries=self.retries, refresh=False)
                self._tell(side)
                yield done.result

    def map(
        self, _objects: Objects, side: Modality, parts: Iterable[MappedPart]
    ) -> Iterator[tuple[int, UnitResult]]:
        """Compute vectors of an adapted model on the nodes, as :meth:`Worker.map`.

        Results are in order of completion.
        """
        tasks = Tasks(partial(map_unit, self.setup, side), self.need, _label_of_part)
        for done in tasks.run(parts):
            yield done.argument.first, done.result
        self.retries += tasks.deaths

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
        """Log the progress at intervals, for long runs without a terminal."""
        if time.monotonic() - self._told < _TOLD_EVERY_S:
            return
        self._told = time.monotonic()
        by_speed = sorted(self.nodes, key=lambda name: self.nodes[name].images_per_second)
        ends = by_speed if len(by_speed) <= _NODES_TOLD else [by_speed[0], by_speed[-1]]
        speeds = {name: f"{self.nodes[name].images_per_second:g}/s" for name in ends}
        get_logger("encode").info(
            f"encoding {side}s on a cluster",
            images=sum(one.images for one in self.nodes.values()),
            texts=sum(one.texts for one in self.nodes.values()),
            retries=self.retries,
            nodes=len(self.nodes),
            **speeds,
        )


def setup_of(
    site: Site,
    config: Config,
    known: EncoderInfo | None,
    make_source: MakeSource,
    unit: tuple[Need, str],
) -> Setup:
    """Return the setup of workers.

    Args:
        site: what every node must have.
        config: the run's settings.
        known: the published version's encoder.
        make_source: makes an encoder on a node.
        unit: from :func:`what_a_unit_needs`.
    """
    need, device = unit
    encode = config.encode.model_copy(update={"cores": need.cpus, "device": device})
    return Setup(
        site=site,
        config=config.model_copy(update={"encode": encode}),
        known=known,
        make_source=make_source,
    )


def what_a_unit_needs(config: Config, there: Sequence[Node]) -> tuple[Need, str]:
    """Return the resources of a unit and the worker's device: one GPU, or some cores.

    Raises:
        NetworkError: no node can run a unit.
    """
    device, wanted = config.encode.device, config.encode.cores
    with_gpus = [node for node in there if node.gpus]
    if device.startswith("cuda") or (device == "auto" and with_gpus):
        share = min((node.cpus // node.gpus for node in with_gpus), default=0)
        need, device = Need(wanted or share or 1, gpus=1), "cuda"  # decoding uses most of them
        require_room(need, there)
    else:
        need, device = cpu_need(wanted, there), "cpu"
    return need, device


def _agreed(found: Sequence[tuple[Node, EncoderInfo]]) -> EncoderInfo:
    """Return the encoder of the first node; check that all other nodes have the same one.

    Raises:
        ModelMismatchError: a node would use another one.
    """
    first, info = found[0]
    for node, other in found[1:]:
        require_same(f"node {first.name}", info, f"node {node.name}", other)
    return info


def _label(unit: Unit) -> str:
    key, content = unit.rows[0]
    what = content.decode("utf-8", "replace") if unit.side is Modality.IMAGE else key
    return f"unit {unit.number} of {unit.side}s ({unit.size} items from {what})"


def _label_of_part(part: MappedPart) -> str:
    return f"the vectors of {part.ref.name}"


def _not_here() -> NoReturn:
    raise InternalError("the model of a cluster is loaded on its nodes only")
