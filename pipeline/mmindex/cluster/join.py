"""A cluster that a run has joined: connected, and with a store that every node sees.

Every node must see the same store and have the same packages. Nodes are checked when a run joins,
and each worker checks its node before its first task, so nodes that join later are checked too.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self, TypeVar

import mmindex
from mmindex.cluster.connect import connected
from mmindex.cluster.tasks import Need, Node, Tasks, nodes, on_each
from mmindex.core.config import Config
from mmindex.core.errors import (
    MmindexError,
    ModelMismatchError,
    NetworkError,
    NoInputError,
    StorageError,
)
from mmindex.core.progress import get_logger
from mmindex.core.system import calm_openmp
from mmindex.media.services import use_endpoint
from mmindex.store.layout import Layout
from mmindex.store.place import require_writable
from mmindex.store.staging import HeldLayout, clear_staging, hold_staging, is_held

T = TypeVar("T")
R = TypeVar("R")

# More threads hardly speed up a batch; several tasks at once use a large node better.
_MOST_CORES = 4
# The packages that affect pixels, vectors, the bytes of a shard, or those of an index.
_PACKAGES = (
    "torch", "open_clip_torch", "timm", "numpy", "pillow", "pyarrow", "faiss-gpu", "faiss-cpu",
)  # fmt: skip
_SWEEPS, _SWEEP_S = 10, 0.2


@dataclass(frozen=True, slots=True)
class Site:
    """What every node must have, as the driver has it.

    Attributes:
        root: the store's folder.
        held: a folder below ``staging/`` that the driver holds.
        versions: the driver's package versions.
        endpoint, specs: the address of the S3 service of these sources, see
            :func:`mmindex.media.services.use_endpoint`.
    """

    root: Path
    held: Path
    versions: dict[str, str]
    endpoint: str | None
    specs: tuple[str, ...]

    def require(self) -> None:
        """Check this node.

        Raises:
            ModelMismatchError: it has other versions of a package.
            NoInputError: it does not see the store.
            StorageError: locks of other nodes are not visible here.
        """
        calm_openmp()  # before torch is imported
        use_endpoint(self.endpoint, self.specs)
        for name, has in package_versions().items():
            if has != self.versions[name]:
                raise ModelMismatchError(
                    f"{name} is {has} here and {self.versions[name]} where the command runs",
                    "install the same versions on every node",
                )
        if not self.held.is_dir():
            raise NoInputError(
                f"{self.root}: not the store that the command writes to",
                "mount the store's file system at the same place on every node",
            )
        require_writable(self.root)
        if not is_held(self.held):
            raise StorageError(
                f"{self.root}: a lock that another node holds is not visible here",
                "the file system must support flock between nodes: NFS 4, or Lustre mounted with "
                "flock",
            )


def package_versions() -> dict[str, str]:
    """Return the versions that must be the same on every node."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    own = {"mmindex": mmindex.__version__, "Python": platform.python_version()}
    return own | {name: of(name) for name in _PACKAGES}


def site_of(held: HeldLayout, config: Config) -> Site:
    """Return the site of a store of which the driver holds a staging folder."""
    specs = tuple(source.spec for source in config.source)
    return Site(held.root, held.staging_dir, package_versions(), config.fetch.s3_endpoint, specs)


@dataclass(slots=True)
class Joined:
    """A cluster that a run has joined.

    Attributes:
        site: what every node must have.
    """

    site: Site
    _stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def join(cls, address: str, layout: Layout, config: Config) -> Self:
        """Connect to a cluster and check every node.

        Args:
            address: address of the cluster, see :func:`mmindex.cluster.connect.connected`.
            layout: the store; its writer lock must be held.
            config: the run's settings.

        Raises:
            MissingPackageError: ray is not installed.
            NetworkError: there is no cluster, or no node has a core.
            MmindexError: a node is not suitable; the message names it.
        """
        with ExitStack() as stack:
            stack.callback(_sweep, layout)
            stack.enter_context(connected(address))
            held = stack.enter_context(hold_staging(layout))
            joined = cls(site_of(held, config))
            one = Need()
            require_room(one, there := nodes())
            found = on_each(Site.require, joined.site, [n for n in there if n.takes(one)], one)
            if not found:
                raise NetworkError(f"the cluster at {address} has lost all its nodes")
            get_logger("cluster").info("joined a cluster", nodes=len(found))
            joined._stack = stack.pop_all()
        return joined

    def tasks(self, work: Callable[[T], R], need: Need, label: Callable[[T], str]) -> Tasks[T, R]:
        """Return tasks whose workers check their node first; see :class:`Tasks`."""
        return Tasks(partial(_checked, self.site, work), need, label)

    def close(self) -> None:
        """Disconnect from the cluster; its workers of this run end."""
        self._stack.close()


def cpu_need(cores: int | None, there: Sequence[Node]) -> Need:
    """Return the resources of a task on CPUs: ``cores``, or a few of the largest node.

    Raises:
        NetworkError: no node can run a task.
    """
    largest = max((node.cpus for node in there), default=0)
    need = Need(cores or min(largest, _MOST_CORES) or 1)
    require_room(need, there)
    return need


def require_room(need: Need, there: Sequence[Node]) -> None:
    """Check that a node can run a task.

    Raises:
        NetworkError: none can.
    """
    if not any(node.takes(need) for node in there):
        has = ", ".join(f"{one.name}: {one.cpus} CPUs, {one.gpus} GPUs" for one in there[:5])
        raise NetworkError(
            f"no node of the cluster has {need.cpus} CPUs and {need.gpus} GPUs for a unit ({has})",
            "start larger nodes, or lower `cores`",
        )


_site: Site | None = None  # the one that this worker has checked


def _checked(site: Site, work: Callable[[T], R], argument: T) -> R:
    """Run a task in this worker; the first one of a run checks the node."""
    global _site  # noqa: PLW0603 # a task has no other way to leave something for the next one
    if _site != site:
        site.require()
        _site = site
    return work(argument)


def _sweep(layout: Layout) -> None:
    """Remove what dead workers staged; workers of a stopped run need a moment to end."""
    try:
        for _ in range(_SWEEPS):
            clear_staging(layout)
            if not any(layout.staging_dir.iterdir()):
                return
            time.sleep(_SWEEP_S)
    except MmindexError as error:  # the error that ended the run matters more
        get_logger("cluster").warning("staged files of workers remain", why=error.message)
