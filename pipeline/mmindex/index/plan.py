"""Choose an index for a number of vectors: pure arithmetic, no FAISS, no I/O.

Sizing follows the guidelines of https://github.com/facebookresearch/faiss/wiki, with constants
measured on CLIP-like vectors (200,000 x 512, two cores).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mmindex.core.errors import UsageError
from mmindex.index.gpu import GpuInfo, check_gpu_legal, gpu_sub_quantizers

KINDS = ("auto", "exact", "ivfpq", "ivfflat", "sq8")
EXACT_BELOW = 10_000  # a full scan of 10,000 x 512 takes 2 ms; an index would only lose recall
MIN_PQ_ROWS = {4: 16, 8: 256}  # k-means needs a row for each of the 2**bits centroids
_MAX_CODE_DIMS = 256  # dimensions kept by PCA at first: 99 % of the recall of 512 for half the work
_PCA_STEPS = 3  # number of times that the kept dimensions are doubled if recall is too low
_MAX_M = 128  # 4-bit sub-quantizers: 64 bytes per vector
_ALONE_UP_TO = 32  # up to this dimension, one sub-quantizer each; above it, one for two
_ID_BYTES = 8
_MIB = 1 << 20
_MAX_NLIST = 65_536  # with more lists, assigning vectors to lists costs more than it saves
_ROWS_PER_LIST = 39  # with fewer, k-means results in empty or meaningless lists (faiss warns)
# From this number of lists on, 4-bit codes of the centres select the nearest ones, and only these
# are compared exactly: reading 2,048 centres of 256 floats takes longer than the rest of a query.
_CODED_CENTRES_FROM = 1_024
_TRAINING_BYTES = 4 << 30  # float32 rows in memory during training, for a corpus of any size


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The index to build.

    Attributes:
        factory: faiss factory string; empty for exact search.
        reason: one sentence about the choice.
        n: number of vectors.
        dim: number of dimensions.
        nlist: number of inverted lists; 1 without lists.
        m: number of sub-quantizers of the product quantizer; 0 without one.
        bits: bits per sub-quantizer; 8 for scalar quantizers, 32 for plain floats.
        code_dim: dimensions after the rotation.
        nprobe: lists to probe if nothing was measured.
        training_rows: number of rows in the training sample.
        bytes: estimated memory during search, without the memory-mapped vectors; 0 if unknown
            (factory strings) and for exact search.
        gpu: whether training, adding and searching use the GPUs.
    """

    factory: str
    reason: str
    n: int
    dim: int
    nlist: int = 1
    m: int = 0
    bits: int = 32
    code_dim: int = 0
    nprobe: int = 1
    training_rows: int = 0
    bytes: int = 0
    gpu: bool = False

    @property
    def exact(self) -> bool:
        """Whether every query scans all vectors."""
        return not self.factory


def lists_for(n: int) -> int:
    """Return the number of lists: a power of two near 4.6 sqrt(n), with 39 vectors in each.

    The guidelines of faiss state 4 to 16 sqrt(n). Half as many lists train in half the time, but
    queries over a million clustered vectors then take twice as long at the same recall; without
    clusters, the recall of both differs by less than one percentage point.
    """
    wanted = 1
    # 4.6 sqrt(n) lies between wanted / sqrt(2) and wanted * sqrt(2), in integers.
    while 2 * wanted * wanted * 100 < 2116 * n:
        wanted *= 2
    while wanted > 1 and wanted * _ROWS_PER_LIST > n:
        wanted //= 2
    return min(wanted, _MAX_NLIST)


def training_rows_for(n: int, dim: int, nlist: int) -> int:
    """Return the rows of the training sample: 48 per list, at most ``n`` and 4 GiB of float32."""
    wanted = max(48 * nlist, 32_768)
    return max(1, min(n, wanted, _TRAINING_BYTES // (4 * dim)))


def _lists(nlist: int, code_dim: int, bits: int) -> str:
    """Return the part of a factory string for the lists; for GPUs, their centres have no codes."""
    if bits != 4 or nlist < _CODED_CENTRES_FROM:
        return f"IVF{nlist}"
    together = next(size for size in (4, 3, 2, 1) if code_dim % size == 0)
    return f"IVF{nlist}(PQ{code_dim // together}x4fs,RFlat)"


def with_lists(factory: str, lists: str) -> str:
    """Return a factory string with other lists."""
    return re.sub(r"IVF\d+(\([^)]*\))?", lists, factory)


def for_sample(chosen: IndexPlan, n: int) -> IndexPlan:
    """Return the same plan for a sample of ``n`` rows: same rotation and codes, fewer lists."""
    nlist = min(chosen.nlist, lists_for(n))
    return replace(
        chosen,
        factory=with_lists(chosen.factory, _lists(nlist, chosen.code_dim, chosen.bits)),
        n=n,
        nlist=nlist,
        training_rows=training_rows_for(n, chosen.dim, nlist),
    )


def plan(
    n: int, dim: int, kind: str, memory_bytes: int | None = None, gpu: GpuInfo | None = None
) -> IndexPlan:
    """Return the index to build first; see :func:`candidates`."""
    return candidates(n, dim, kind, memory_bytes, gpu)[0]


def candidates(
    n: int, dim: int, kind: str, memory_bytes: int | None = None, gpu: GpuInfo | None = None
) -> tuple[IndexPlan, ...]:
    """Return indexes to try, cheapest first: how far PCA can reduce depends on the embeddings.

    Args:
        n: number of vectors.
        dim: number of dimensions.
        kind: one of ``KINDS`` or a faiss factory string.
        memory_bytes: the memory limit during search; None: no limit.
        gpu: the GPUs for the index; None: CPU.

    Raises:
        UsageError: the kind is unknown, exceeds a limit of the GPU, or does not fit in the memory
            limit.
    """
    if kind in ("auto", "exact", "ivfpq") and (reason := _why_exact(n, dim, kind)):
        return (IndexPlan(factory="", reason=reason, n=n, dim=dim, code_dim=dim),)
    if kind in ("auto", "ivfpq"):
        return _ivfpq(n, dim, kind, memory_bytes, gpu)
    if kind in ("ivfflat", "sq8"):
        return (_plain_ivf(n, dim, kind, memory_bytes, gpu),)
    return (_from_factory(n, dim, kind, gpu),)


def _why_exact(n: int, dim: int, kind: str) -> str:
    if kind == "exact":
        return f"exact search, as requested, over {n:,} vectors"
    if kind == "auto" and n < EXACT_BELOW:
        return f"exact search: {n:,} vectors are fewer than {EXACT_BELOW:,}"
    if n < MIN_PQ_ROWS[4]:
        return (
            f"exact search instead of ivfpq: {n:,} vectors cannot train a 4-bit"
            f" product quantizer, which needs {MIN_PQ_ROWS[4]}"
        )
    if dim < 2:
        return f"exact search over {n:,} vectors: one dimension leaves nothing to quantize"
    return ""


def _ivfpq(
    n: int, dim: int, kind: str, memory_bytes: int | None, gpu: GpuInfo | None
) -> tuple[IndexPlan, ...]:
    rows = training_rows_for(n, dim, lists_for(n))
    bits = 8 if gpu and rows >= MIN_PQ_ROWS[8] else 4
    limit = _limit(memory_bytes, gpu if bits == 8 else None)
    found: list[IndexPlan] = []
    for rotation, code_dim in _rotations(dim, rows, bits):
        for m in _sub_quantizers(code_dim, bits):
            size = _ivfpq_bytes(n, dim, code_dim, m, bits)
            if limit is not None and size > limit:
                continue
            found.append(_ivfpq_plan(n, dim, kind, (rotation, code_dim, m, bits), size))
            break
    if not found:
        least = min(
            _ivfpq_bytes(n, dim, code_dim, m, bits)
            for _, code_dim in _rotations(dim, rows, bits)
            for m in _sub_quantizers(code_dim, bits)
        )
        raise _too_large(n, least, limit or 0)
    for chosen in found:
        if chosen.gpu:
            check_gpu_legal(chosen.m, chosen.bits, chosen.code_dim, chosen.nprobe)
    return tuple(found)


def _rotations(dim: int, rows: int, bits: int) -> list[tuple[str, int]]:
    """Return rotations to try, in order. PCA cannot find more directions than rows."""
    room = min(dim, rows)
    first = room if room <= 128 else min(_MAX_CODE_DIMS, max(128, room // 2 // 8 * 8))
    sizes = [first]
    while sizes[-1] * 2 <= room and len(sizes) < _PCA_STEPS:
        sizes.append(sizes[-1] * 2)
    sizes = [_rounded(size, bits) for size in sizes]
    return [("PCAR", size) for size in sizes] + [("OPQ", sizes[0])]


def _rounded(code_dim: int, bits: int) -> int:
    """Round down to a number of dimensions that the sub-quantizers divide evenly.

    PCA drops its weakest directions, so the loss is negligible for many dimensions, and re-ranking
    is exact in any case.
    """
    if bits == 8:
        while not any(4 * m >= min(code_dim, 128) for m in _sub_quantizers(code_dim, bits)):
            code_dim -= 1
        return code_dim
    return code_dim // 2 * 2 if code_dim > _ALONE_UP_TO else code_dim


def _sub_quantizers(code_dim: int, bits: int) -> list[int]:
    """Return the possible numbers of sub-quantizers, the most precise first."""
    if bits == 8:
        return gpu_sub_quantizers(code_dim, min(_MAX_M // 2, max(4, code_dim // 2)))
    most = code_dim if code_dim <= _ALONE_UP_TO else code_dim // 2
    return [m for m in range(min(most, _MAX_M), 0, -1) if code_dim % m == 0]


def _ivfpq_bytes(n: int, dim: int, code_dim: int, m: int, bits: int) -> int:
    nlist = lists_for(n)
    code = -(-m * bits // 8)
    # Fast scan pads each list to a multiple of 32 codes: half of that on average.
    padding = nlist * 16 * code if bits == 4 else 0
    floats = nlist * code_dim + dim * code_dim + (1 << bits) * code_dim
    return n * (code + _ID_BYTES) + padding + 4 * floats


def _ivfpq_plan(
    n: int, dim: int, kind: str, shape: tuple[str, int, int, int], size: int
) -> IndexPlan:
    rotation, code_dim, m, bits = shape
    nlist = lists_for(n)
    turn = f"PCAR{code_dim}" if rotation == "PCAR" else f"OPQ{m}_{code_dim}"
    # "r": codes of the residual to the list's centre: 3 % more recall before re-ranking, free
    # for inner products. "np": no polysemous training, which takes minutes and is never used.
    codes = f"PQ{m}x4fsr" if bits == 4 else f"PQ{m}np"
    if kind == "auto":
        why = f"{n:,} vectors are not fewer than {EXACT_BELOW:,}"
    else:
        why = f"as requested, over {n:,} vectors"
    form = "4-bit fast-scan" if bits == 4 else "8-bit (for GPUs)"
    name = "PCA" if rotation == "PCAR" else "OPQ"
    return IndexPlan(
        factory=f"{turn},{_lists(nlist, code_dim, bits)},{codes}",
        reason=(
            f"IVF-PQ with exact re-ranking: {why}; {nlist:,} lists, {form} codes of"
            f" {-(-m * bits // 8)} bytes after {name} to {code_dim} of {dim} dimensions,"
            f" about {-(-size // _MIB):,} MiB"
        ),
        n=n,
        dim=dim,
        nlist=nlist,
        m=m,
        bits=bits,
        code_dim=code_dim,
        nprobe=max(1, nlist // 32),
        training_rows=training_rows_for(n, dim, nlist),
        bytes=size,
        gpu=bits == 8,
    )


def _plain_ivf(
    n: int, dim: int, kind: str, memory_bytes: int | None, gpu: GpuInfo | None
) -> IndexPlan:
    nlist = lists_for(n)
    bits, codes = (32, "Flat") if kind == "ivfflat" else (8, "SQ8")
    size = n * (dim * bits // 8 + _ID_BYTES) + 4 * nlist * dim
    limit = _limit(memory_bytes, gpu)
    if limit is not None and size > limit:
        raise _too_large(n, size, limit)
    return IndexPlan(
        factory=f"IVF{nlist},{codes}",
        reason=f"{kind}, as requested: {nlist:,} lists, {n:,} vectors, {-(-size // _MIB):,} MiB",
        n=n,
        dim=dim,
        nlist=nlist,
        bits=bits,
        code_dim=dim,
        nprobe=max(1, nlist // 32),
        training_rows=training_rows_for(n, dim, nlist),
        bytes=size,
        gpu=gpu is not None,
    )


def check_kind(kind: str) -> None:
    """Raise an error for an invalid kind of index before anything is read or encoded.

    Raises:
        UsageError: ``kind`` is not one of ``KINDS`` or a supported factory string.
    """
    if kind in KINDS:
        return
    if "," not in kind and not re.search(r"\d|Flat", kind):
        raise UsageError(
            f"unknown index {kind!r}",
            f"use one of {', '.join(KINDS)}, or a faiss factory string",
        )
    if "Refine" in kind or "RFlat" in kind:
        raise UsageError(
            f"{kind}: re-ranking is not part of the factory string",
            "remove Refine: mmindex re-ranks exactly with the stored vectors",
        )


def _from_factory(n: int, dim: int, factory: str, gpu: GpuInfo | None) -> IndexPlan:
    check_kind(factory)
    lists = re.search(r"IVF(\d+)", factory)
    nlist = int(lists[1]) if lists else 1
    if nlist > n:
        raise UsageError(
            f"{factory}: {nlist:,} lists need at least as many vectors, but there are {n:,}",
            "use fewer lists, or `index=auto`",
        )
    pq = re.search(r"PQ(\d+)(?:x(\d+))?", factory)
    m, bits = (int(pq[1]), int(pq[2] or 8)) if pq else (0, 32)
    cut = re.search(r"(?:PCA[RW]*|OPQ\d+_|RR|ITQ|Pad)(\d+)", factory)
    code_dim = int(cut[1]) if cut else dim
    if gpu is not None and pq:
        check_gpu_legal(m, bits, code_dim, 1)
    return IndexPlan(
        factory=factory,
        reason=f"factory string as requested, over {n:,} vectors",
        n=n,
        dim=dim,
        nlist=nlist,
        m=m,
        bits=bits,
        code_dim=code_dim,
        nprobe=max(1, nlist // 32),
        training_rows=training_rows_for(n, dim, nlist),
        gpu=gpu is not None,
    )


def _limit(memory_bytes: int | None, gpu: GpuInfo | None) -> int | None:
    limits = [memory_bytes] if memory_bytes is not None else []
    if gpu is not None and gpu.memory_bytes is not None:
        limits.append(gpu.usable_bytes)
    return min(limits, default=None)


def _too_large(n: int, size: int, limit: int) -> UsageError:
    return UsageError(
        f"an index of {n:,} vectors takes at least {size:,} bytes; the limit is {limit:,}",
        "raise index.memory_bytes, set index.gpu to never, or use `index=exact`",
    )
