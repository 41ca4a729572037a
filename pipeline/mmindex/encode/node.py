"""The code that runs on the nodes of a cluster: a check of the node, and units.

A worker checks its node before its first unit: in addition to what every node of a cluster must
have (:mod:`mmindex.cluster.join`), it must see the same corpus and have the same model. The model
and the decoders stay loaded between units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmindex.cluster.join import Site
from mmindex.core.config import Config
from mmindex.core.errors import MmindexError, ModelMismatchError, NoInputError
from mmindex.core.modality import Modality
from mmindex.core.records import ItemError
from mmindex.encode.mapping import MappedPart
from mmindex.encode.units import Unit, UnitResult
from mmindex.encode.work import EncoderSource, Worker
from mmindex.media.images import ImageLimits
from mmindex.media.uris import read_indexed, split_uri
from mmindex.media.video import split_frame
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo
from mmindex.store.objects import Objects
from mmindex.store.staging import hold_staging

MakeSource = Callable[[Config, EncoderInfo | None], EncoderSource]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that every node must be able to read."""

    key: str
    uri: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What every worker needs in addition to its units.

    Attributes:
        site: what every node must have.
        config: the run's settings, for one unit.
        known: the published version's encoder.
        make_source: makes the encoder that the configuration names.
        samples: images that the driver could read.
        info: the encoder that all nodes agreed on; None: not yet known.
    """

    site: Site
    config: Config
    known: EncoderInfo | None
    make_source: MakeSource
    samples: tuple[Sample, ...] = ()
    info: EncoderInfo | None = None


def require_same(one: str, info: EncoderInfo, two: str, other: EncoderInfo) -> None:
    """Check that two nodes would compute comparable vectors and equal shards.

    Args:
        one, two: names of the nodes.
        info, other: the encoder that each would use.

    Raises:
        ModelMismatchError: naming both.
    """
    if info.precision != other.precision:
        raise ModelMismatchError(
            f"{two} computes in {other.precision}, {one} in {info.precision}",
            f"set the same precision on all nodes, for example `precision={info.precision}`",
        )
    if info.fingerprint != other.fingerprint:
        raise ModelMismatchError(
            f"{two} has other files of the model {info.model} "
            f"({other.fingerprint[:12]}) than {one} ({info.fingerprint[:12]})",
            "put the same files on every node, or into a folder that all share (local-dir:PATH)",
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """What a check of a node found: the encoder that it would use, or what is wrong."""

    info: EncoderInfo | None
    wrong: str = ""


def inspect(setup: Setup) -> Looked:
    """Check this node as :func:`look`, but return what is wrong."""
    try:
        return Looked(look(setup))
    except MmindexError as error:
        return Looked(None, f"{error.message}: {error.hint}" if error.hint else error.message)


def look(setup: Setup) -> EncoderInfo:
    """Check this node; return the encoder that it would use.

    Raises:
        MmindexError: it does not match the other nodes.
    """
    return _look_around(setup).info


def _look_around(setup: Setup) -> EncoderSource:
    setup.site.require()
    source = setup.make_source(setup.config, setup.known)
    if setup.info is not None:
        require_same("the other nodes", setup.info, "this node", source.info)
    limits = ImageLimits.of(setup.config.limits)
    for sample in setup.samples:
        if why := why_unreadable(sample, limits):
            raise NoInputError(
                f"{sample.uri}: {why}", "mount the corpus at the same place on every node"
            )
    return source


def why_unreadable(sample: Sample, limits: ImageLimits) -> str:
    """Return why an image cannot be read here; empty if it can. It is not decoded: it may crash."""
    video, time_s = split_frame(sample.uri)
    if time_s is not None:  # a frame's key requires decoding a video
        return "" if Path(split_uri(video)[0]).is_file() else "no such file"
    try:
        read_indexed(sample.uri, sample.key, limits)
    except ItemError as error:
        return f"{error.reason}: {error.detail}"
    return ""


_kept: tuple[Setup, Worker] | None = None  # one per process, so that a model is loaded once


def encode_unit(setup: Setup, unit: Unit) -> UnitResult:
    """Encode a unit in this worker."""
    worker = _worker(setup)
    with hold_staging(Layout(setup.site.root)) as staged:
        [result] = worker.encode(Objects(staged), unit.side, [unit], unit.size)
    return result


def map_unit(setup: Setup, side: Modality, part: MappedPart) -> UnitResult:
    """Compute vectors of an adapted model in this worker."""
    worker = _worker(setup)
    with hold_staging(Layout(setup.site.root)) as staged:
        [(_, result)] = worker.map(Objects(staged), side, [part])
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
