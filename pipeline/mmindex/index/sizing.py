"""What a plan consists of, and the sizes that follow from the number of vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

_MAX_NLIST = 65_536  # beyond, assigning each vector to its list costs more than it saves
_ROWS_PER_LIST = 39  # fewer, and k-means gives empty or meaningless lists (faiss warns there)
_TRAINING_BYTES = 4 << 30  # float32 rows held while training, whatever the corpus


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What to build and why.

    Attributes:
        factory: faiss factory string; empty for exact search.
        reason: one sentence for people.
        n: number of vectors.
        dim: their dimensions.
        nlist: inverted lists; 1 where there are none.
        m: sub-quantizers of the product quantizer; 0 without one.
        bits: bits of each sub-quantizer; 8 for scalar quantizers, 32 for plain floats.
        code_dim: dimensions after the rotation.
        nprobe: lists to probe where nothing was measured.
        training_rows: rows of the training sample.
        bytes: estimated size in memory while searching, without the memory-mapped vectors;
            0 where unknown (factory strings) and for exact search.
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
        """Whether every query is answered by a full scan."""
        return not self.factory


def lists_for(n: int) -> int:
    """Number of inverted lists: a power of two near 4.6 sqrt(n), with 39 vectors in each.

    faiss' guidelines say 4 to 16 sqrt(n). Half as many train in half the time, but a million
    clustered vectors then take twice as long to answer at the same recall; where there are no
    clusters the two are within a point of recall of each other.
    """
    wanted = 1
    # 4.6 sqrt(n) lies between wanted / sqrt(2) and wanted * sqrt(2), in integers.
    while 2 * wanted * wanted * 100 < 2116 * n:
        wanted *= 2
    while wanted > 1 and wanted * _ROWS_PER_LIST > n:
        wanted //= 2
    return min(wanted, _MAX_NLIST)


def training_rows_for(n: int, dim: int, nlist: int) -> int:
    """Rows of the training sample: 48 for each list, within ``n`` and 4 GiB of float32."""
    wanted = max(48 * nlist, 32_768)
    return max(1, min(n, wanted, _TRAINING_BYTES // (4 * dim)))


def for_sample(chosen: IndexPlan, n: int) -> IndexPlan:
    """The same recipe for a sample of ``n`` rows: same rotation and codes, fewer lists."""
    nlist = min(chosen.nlist, lists_for(n))
    return replace(
        chosen,
        factory=chosen.factory.replace(f"IVF{chosen.nlist},", f"IVF{nlist},"),
        n=n,
        nlist=nlist,
        training_rows=training_rows_for(n, chosen.dim, nlist),
    )
