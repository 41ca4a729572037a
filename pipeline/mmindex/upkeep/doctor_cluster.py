"""Check the nodes of a cluster as a run does, and report the resources that a run would use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from mmindex.cluster.connect import connected
from mmindex.cluster.join import site_of
from mmindex.cluster.tasks import Need, Node, nodes, on_each
from mmindex.core.config import Config
from mmindex.core.errors import MmindexError
from mmindex.encode.cluster import setup_of, what_a_unit_needs
from mmindex.encode.node import Looked, Sample, Setup, inspect, require_same, why_unreadable
from mmindex.encode.stage import encoder_source
from mmindex.media.images import ImageLimits
from mmindex.runs.settings import settings
from mmindex.store.holds import hold_current
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.staging import hold_staging
from mmindex.upkeep.finding import Finding, State

_WHAT: Final = "cluster"
_SAMPLES: Final = 8


def check_cluster(
    address: str, store: Path, model: str | None, pretrained: str | None
) -> Iterator[Finding]:
    """Check every node that a run would use: the store, the corpus, packages, model and precision.

    Args:
        address: see :func:`mmindex.cluster.connect.connected`.
        store: the store of the run.
        model, pretrained: the model; None for the model of the store, or the default.
    """
    try:
        given = {"model.name": model, "model.pretrained": pretrained}
        config = settings(store, None, given)
        with connected(address):
            there = nodes()
            need, device = what_a_unit_needs(config, there)
            yield _offer(there, need, device)
            yield from _nodes(Layout(store.absolute()), config, there, need, device)
    except MmindexError as error:
        yield Finding(_WHAT, State.BROKEN, _text(error))


def _offer(there: Sequence[Node], need: Need, device: str) -> Finding:
    """Return the nodes, cores and GPUs that a run would use."""
    working = [node for node in there if node.takes(need)]
    units = sum(node.takes(need) for node in working)
    idle = len(there) - len(working)
    detail = (
        f"{len(working)} nodes, {sum(node.cpus for node in working)} cores, "
        f"{sum(node.gpus for node in working)} GPUs; {units} units at once, with "
        f"{need.cpus} cores{' and a GPU' if need.gpus else ''} each ({device})"
    )
    if idle:
        return Finding(_WHAT, State.NOTE, f"{detail}; {idle} nodes are too small and stay idle")
    return Finding(_WHAT, State.OK, detail)


def _nodes(
    layout: Layout, config: Config, there: Sequence[Node], need: Need, device: str
) -> Iterator[Finding]:
    if not layout.format_file.exists():
        detail = f"not checked: there is no store at {layout.root} yet; run `mmindex crawl` first"
        yield Finding("nodes", State.NOTE, detail)
        return
    with hold_current(layout) as published, hold_staging(layout) as staged:
        known = published.encoder if published is not None else None
        setup = setup_of(site_of(staged, config), config, known, encoder_source, (need, device))
        samples = _samples(Objects(layout), published, config)
        setup = replace(setup, samples=samples)
        yield _corpus(samples)
        working = [node for node in there if node.takes(need)]
        yield from _compared(on_each(inspect, setup, working, need), setup)


def _corpus(samples: Sequence[Sample]) -> Finding:
    if not samples:
        detail = "no image of the store can be read on this machine, so none is tried on the nodes"
        return Finding("corpus", State.NOTE, detail)
    return Finding("corpus", State.OK, f"{len(samples)} of its images are tried on every node")


def _compared(found: Sequence[tuple[Node, Looked]], setup: Setup) -> Iterator[Finding]:
    """Yield a finding for each node; encoders are compared with that of the first usable node."""
    first: tuple[Node, Looked] | None = None
    for node, looked in found:
        name = f"node {node.name}"
        if looked.info is None:
            yield Finding(name, State.BROKEN, looked.wrong)
            continue
        detail = (
            f"{node.cpus} cores, {node.gpus} GPUs; sees {setup.site.root}; "
            f"{looked.info.model} in {looked.info.precision}"
        )
        first = first or (node, looked)
        try:
            if first[1].info is not None:
                require_same(f"node {first[0].name}", first[1].info, name, looked.info)
        except MmindexError as error:
            yield Finding(name, State.BROKEN, _text(error))
        else:
            yield Finding(name, State.OK, detail)


def _samples(objects: Objects, published: Manifest | None, config: Config) -> tuple[Sample, ...]:
    """Return images of the store that this machine can read."""
    ref = published.find("crawl/images") if published is not None else None
    if ref is None or not ref.rows:
        return ()
    batch = next(objects.iter_batches(ref, ["key", "uri"], _SAMPLES))
    limits = ImageLimits.of(config.limits)
    found = (Sample(row["key"], row["uri"]) for row in batch.slice(0, _SAMPLES).to_pylist())
    return tuple(one for one in found if not why_unreadable(one, limits))


def _text(error: MmindexError) -> str:
    return f"{error.message}: {error.hint}" if error.hint else error.message
