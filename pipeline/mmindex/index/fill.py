"""Fill a trained index with several workers: each adds a range of ids, then the parts are merged.

Workers are processes of this machine, or tasks on the nodes of a cluster. They read the vectors
from the store and write their part into a scratch folder in its staging folder. The parts are
merged in the order of their ids (:mod:`mmindex.index.merge`), so the
index is byte-identical to one that a single process filled.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, Self

import faiss
import numpy as np
from pebble import ProcessExpired, ProcessPool

from mmindex.cluster.join import Joined, cpu_need
from mmindex.cluster.tasks import Need, nodes
from mmindex.core.errors import DataError, InternalError, os_errors
from mmindex.core.modality import Modality
from mmindex.core.progress import counter
from mmindex.core.system import calm_openmp, die_with_parent
from mmindex.core.workers import WORKERS
from mmindex.index.exact import block_rows, faiss_settings, widen
from mmindex.index.faissio import ivf_part, why_not_changeable
from mmindex.index.merge import merge
from mmindex.store import publish
from mmindex.store.layout import Layout
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.publish import StagedFile
from mmindex.store.staging import HeldLayout
from mmindex.store.vectors import Vectors

# Each merge visits all lists once: about 0.4 s for 65,536 lists.
_MOST_PARTS: Final = 256
# A worker that finishes early takes another part.
_PARTS_A_WORKER: Final = 2


@dataclass(frozen=True, slots=True)
class Job:
    """The settings that all workers share.

    Attributes:
        root: the store's folder.
        scratch: the folder of the trained index and of the parts.
        trained: sha256 of the trained, empty index.
        refs: the objects with the vectors, and their digests.
        modality: ``image`` or ``text``.
        dim: dimensions of the vectors.
        threads: for faiss, in each worker.
        block: the number of vectors that are added at once.
    """

    root: Path
    scratch: Path
    trained: str
    refs: tuple[ObjectRef, ...]
    modality: Modality
    dim: int
    threads: int
    block: int


@dataclass(frozen=True, slots=True)
class Span:
    """A range of ids, and its position among the ranges."""

    number: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Part:
    """A filled part: a file in the scratch folder, named by its sha256."""

    number: int
    sha256: str


class Filler(Protocol):
    """Fills parts of an index."""

    @property
    def workers(self) -> int:
        """The number of parts that are filled at the same time."""

    def parts(self, job: Job, spans: Sequence[Span]) -> Iterator[Part]:
        """Fill all parts, in any order; raises MmindexError."""


@dataclass(frozen=True, slots=True)
class ProcessFiller:
    """Fills parts in processes of this machine.

    Attributes:
        workers: the number of processes, which share the threads of the job.
    """

    workers: int

    def parts(self, job: Job, spans: Sequence[Span]) -> Iterator[Part]:
        """Fill all parts in order of completion.

        Raises:
            InternalError: a process died.
            MmindexError: a process failed.
        """
        job = replace(job, threads=max(1, job.threads // self.workers))
        # A stopped run ends its workers at once, which the pool of the standard library does not.
        pool = ProcessPool(max_workers=self.workers, initializer=_start, context=WORKERS)
        try:
            waiting = [pool.schedule(fill_part, args=(job, span)) for span in spans]
            for done in as_completed(waiting):
                yield done.result()
        except ProcessExpired as error:
            raise InternalError(
                "a process that fills the index died",
                "is the machine short of memory? Lower `fill_processes`",
            ) from error
        finally:
            pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            pool.join()


@dataclass(frozen=True, slots=True)
class ClusterFiller:
    """Fills parts in tasks on the nodes of a cluster; faiss adds vectors on the CPU.

    Attributes:
        joined: the cluster.
        need: the resources of a task.
        workers: the number of tasks that fit on the nodes.
    """

    joined: Joined
    need: Need
    workers: int

    @classmethod
    def on(cls, joined: Joined, cores: int | None) -> Self:
        """Return a filler for a cluster.

        Args:
            joined: the cluster.
            cores: the number of cores that a task uses; None for a default.

        Raises:
            NetworkError: no node can run a task.
        """
        need = cpu_need(cores, there := nodes())
        return cls(joined, need, sum(node.takes(need) for node in there))

    def parts(self, job: Job, spans: Sequence[Span]) -> Iterator[Part]:
        """Fill all parts in order of completion; raises as :meth:`Tasks.run`."""
        work = partial(fill_part, replace(job, threads=self.need.cpus))
        for done in self.joined.tasks(work, self.need, _label).run(spans):
            yield done.result


def can_be_merged(index: Any) -> bool:
    """Return whether parts of this index can be merged; others are filled by one process."""
    return ivf_part(index) is not None and not why_not_changeable(index)


def spans_of(n: int, step: int, workers: int) -> list[Span]:
    """Divide ids 0 to n - 1 into ranges of whole blocks of ``step``, a few for each worker."""
    blocks = -(-n // step)
    parts = min(blocks, max(1, min(_PARTS_A_WORKER * workers, _MOST_PARTS)))
    size = -(-blocks // parts) * step
    return [
        Span(number, first, min(first + size, n)) for number, first in enumerate(range(0, n, size))
    ]


def fill(index: Any, objects: Objects, job: Job, spans: Sequence[Span], filler: Filler) -> None:
    """Add the vectors of all spans to a trained, empty index.

    Args:
        index: a CPU index, see :func:`can_be_merged`.
        objects: the store's objects; the writer lock must be held.
        job: from :func:`job_of`.
        spans: from :func:`spans_of`.
        filler: fills the parts.

    Raises:
        MmindexError: a worker failed, or a part is damaged.
    """
    scratch = HeldLayout(objects.layout.root, job.scratch)
    publish.make_directory(job.scratch)
    try:
        job = replace(job, trained=_write(scratch, index))
        with counter(total=spans[-1].stop, label="fill", unit="vector") as progress:
            for part in _in_order(filler.parts(job, spans)):
                merge(index, _read(job.scratch, part.sha256))
                (job.scratch / part.sha256).unlink(missing_ok=True)
                progress.update(spans[part.number].stop - spans[part.number].first)
    finally:
        shutil.rmtree(job.scratch, ignore_errors=True)


def job_of(
    objects: Objects, refs: Iterable[ObjectRef], modality: Modality, dim: int, threads: int
) -> Job:
    """Return a job with a new scratch folder."""
    scratch = objects.layout.staging_dir / f"fill-{uuid.uuid4().hex}"
    root = objects.layout.root
    return Job(root, scratch, "", tuple(refs), modality, dim, threads, block_rows(dim))


def fill_part(job: Job, span: Span) -> Part:
    """Fill one part in this worker.

    Raises:
        DataError: the trained index or a vector is damaged.
        StorageError: the part cannot be written.
    """
    index = _read(job.scratch, job.trained)
    objects = Objects(Layout(job.root))
    vectors = Vectors(objects, job.refs, job.modality, job.dim)
    step = job.block
    with faiss_settings(job.threads, job.dim):
        for first in range(span.first, span.stop, step):
            ids = np.arange(first, min(first + step, span.stop), dtype=np.int64)
            index.add_with_ids(widen(vectors.take(ids)), ids)
            vectors.let_go()
    return Part(span.number, _write(HeldLayout(job.root, job.scratch), index))


def _start() -> None:
    calm_openmp()
    die_with_parent()


def _in_order(parts: Iterator[Part]) -> Iterator[Part]:
    """Yield parts in the order of their numbers; early ones wait on disk."""
    early: dict[int, Part] = {}
    due = 0
    with closing(parts):  # type: ignore[type-var]  # generators, which end their workers then
        for part in parts:
            early[part.number] = part
            while due in early:
                yield early.pop(due)
                due += 1


def _write(scratch: HeldLayout, index: Any) -> str:
    with StagedFile(scratch) as staged:
        faiss.write_index(index, faiss.PyCallbackIOWriter(staged.write))
        digest = staged.sha256
        staged.publish(scratch.staging_dir / digest)
    return digest


def _read(folder: Path, sha256: str) -> Any:
    path = folder / sha256
    with os_errors(path), path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise DataError(f"{path}: damaged (sha256 differs)", "run the command again")
        file.seek(0)
        return faiss.read_index(faiss.PyCallbackIOReader(file.read))


def _label(span: Span) -> str:
    return f"part {span.number} of the index (ids {span.first} to {span.stop - 1})"
