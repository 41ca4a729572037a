"""Platform-specific code: cores, memory, locks, worker processes.

mmindex is written for Linux. Only this module uses features of Linux or Unix, so that you can
import mmindex on any system, and commands that need these features fail with a clear error.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mmindex.core.errors import UnsupportedSystemError

try:  # imported here, because the process may have dropped its permissions when it uses them
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None  # type: ignore[assignment]

if TYPE_CHECKING:  # `mmindex status` opens a store without these imports
    import ctypes

_PR_SET_PDEATHSIG = 1
# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_cores() -> int:
    """Return the number of cores for this process: its affinity, or less if a cgroup has a quota.

    taskset and cpusets limit the affinity. Containers usually have a quota instead (``docker run
    --cpus``, a limit in Kubernetes), which threads on all cores would exhaust.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return math.ceil(min(cores, _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))))


def _quota(membership: Path, mount: Path) -> float:
    """Return the CPU quota of this process in cores: the lowest of its cgroup and the parents.

    Args:
        membership: the file with the names of the process's cgroups; see cgroups(7).
        mount: the folder where cgroups are mounted.
    """
    least = math.inf
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return least
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount if not controllers else mount / controllers
        here = top / path.lstrip("/")
        # In a container, the path can be outside the mounted part.
        for folder in [top, *(one for one in (here, *here.parents) if one.is_relative_to(top))]:
            least = min(least, _granted(folder))
    return least


def _granted(folder: Path) -> float:
    """Return the quota of one cgroup (version 1 or 2) in cores; infinite without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return math.inf
    granted = int(quota) / int(period) if quota.isdecimal() and int(period) else 0
    return granted or math.inf


def calm_openmp() -> None:
    """Let waiting OpenMP threads sleep, unless the environment sets this.

    faiss and torch have an OpenMP runtime each; threads that spin while they wait slow down the
    other (measured on two busy cores: a k-means of 2.6 s took 28 s). Call it before either is
    imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def reuse_freed_memory(blocks_up_to: int = 32 << 20) -> None:
    """Let the C library keep freed blocks of up to this many bytes for later allocations.

    glibc returns larger blocks to the system at once (by default those of more than 32 MiB), and
    the system clears every page again when the next block is used. The inner images of a network,
    and decoded photos of 12 megapixels, are larger: on two cores of an Intel Xeon, the model for
    photographs encodes 48 images/s with reuse and 33 without, ViT-B-32 23 and 21, in the same
    memory, and one core decodes 5.4 such photos/s with reuse and 4.4 without. :func:`trim_heap`
    still returns freed memory. See mallopt(3); other C libraries have no such function.
    """
    import ctypes

    set_parameter = getattr(_c_library(), "mallopt", None)
    if set_parameter is not None:
        set_parameter.argtypes = [ctypes.c_int, ctypes.c_int]
        set_parameter(_M_MMAP_THRESHOLD, blocks_up_to)
        set_parameter(_M_TRIM_THRESHOLD, min(4 * blocks_up_to, (1 << 31) - 1))


def trim_heap() -> None:
    """Return freed memory of Arrow and the C library to the system; takes milliseconds.

    Batches of texts with different lengths fragment the heap of glibc: with the embedded model, it
    grew by 60 MB for every 100,000 texts, and does not grow if it is trimmed occasionally. See
    malloc_trim(3). Other C libraries have no such function and do not need it.
    """
    import ctypes

    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim.argtypes = [ctypes.c_size_t]
        trim(0)


def die_with_parent() -> None:
    """End this worker process when its parent process has ended for any reason.

    A worker that is stuck, or that waits on a queue whose other end it holds itself, would not
    detect this. Linux kills it (prctl(2)). On other systems, a thread waits for the end of the
    parent, which a decoder that is stuck in C code while holding the interpreter lock can delay.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    set_signal = getattr(_c_library(), "prctl", None)
    if set_signal is not None:
        set_signal(_PR_SET_PDEATHSIG, signal.SIGKILL)
    elif parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # the parent ended before the lines above


def _exit_after(sentinel: int) -> None:
    from multiprocessing.connection import wait

    wait([sentinel])
    os._exit(1)


def _c_library() -> ctypes.CDLL | None:
    """Return the C library of this process; None on Windows."""
    import ctypes

    return None if os.name == "nt" else ctypes.CDLL(None)


def process_exists(pid: int) -> bool:
    """Return whether a process with this id exists, for any user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def peak_memory_bytes(*, of_children: bool = False) -> int:
    """Return the peak resident memory of this process, or of its largest ended child.

    Raises:
        UnsupportedSystemError: the system has no such figure, for example Windows.
    """
    if resource is None:
        _refuse("resource")
    whose = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, else KiB
    return resource.getrusage(whose).ru_maxrss * unit


def limit_worker(memory_bytes: int) -> None:
    """Limit the address space of this worker, and turn off core files.

    Linux only: macOS rejects limits below the hundreds of GB that it maps at the start.
    """
    if sys.platform != "linux":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_open_files(count: int) -> None:
    """Raise the limit on open files of this process to ``count``, as far as allowed.

    Raises:
        UnsupportedSystemError: the system has no such limit, for example Windows.
    """
    if resource is None:
        _refuse("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and count > soft:
        possible = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))


def lock_file(descriptor: int, *, shared: bool = False) -> None:
    """Lock an open file with flock(2) until it is closed or this process ends.

    A shared lock waits for the holder of an exclusive one; an exclusive lock never waits.

    Raises:
        BlockingIOError: another process holds a lock, and an exclusive lock was requested.
        UnsupportedSystemError: the system has no flock, for example Windows.
    """
    if fcntl is None:
        _refuse("fcntl")
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)


def require_stores() -> None:
    """Raise an error if the system cannot lock stores.

    Raises:
        UnsupportedSystemError: the system has no flock, for example Windows.
    """
    if fcntl is None:
        _refuse("fcntl")


def _refuse(module: str) -> NoReturn:
    raise UnsupportedSystemError(
        f"Python on {sys.platform} has no {module!r} module, which mmindex needs for stores",
        "run mmindex on Linux or macOS; on Windows, use WSL2",
    )
