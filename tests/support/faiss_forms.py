"""Small FAISS indexes of every form that can be changed in place."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, NoReturn

import faiss
import numpy as np

from mmindex.index.faissio import ivf_part
from support.clustered import clustered

N, NEW, DIM = 3_000, 300, 32
POOL = clustered(N + NEW, DIM, seed=3)
FAST_SCAN = [
    "PCAR16,IVF16,PQ8x4fsr",
    "PCAR15,IVF16,PQ15x4fsr",
    "OPQ8_16,IVF16,PQ8x4fs",
    "IVF16,PQ8x4fs",
    "PCAR16,IVF16(PQ4x4fs,RFlat),PQ8x4fsr",
    "PCAR16,IVF16,RaBitQfs",
]
FORMS = [
    *FAST_SCAN,
    "PCAR16,IVF16,PQ8np",
    "IVF16,PQ8x4",
    "IVF16,Flat",
    "IVF16,SQ8",
    "IVF16_HNSW8,Flat",
]


@cache
def _trained(form: str) -> Any:
    index = faiss.index_factory(DIM, form, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexPreTransform):
        turn = faiss.downcast_VectorTransform(index.chain.at(0))
        if isinstance(turn, faiss.OPQMatrix):
            turn.niter = 1
            turn.pq = quantizer = faiss.ProductQuantizer(turn.d_out, turn.M, 4)
            quantizer.cp.min_points_per_centroid = 1
    inner = ivf_part(index) or index
    for owner in (inner, getattr(inner, "pq", None)):
        if getattr(owner, "cp", None) is not None:
            owner.cp.min_points_per_centroid = 1
    if hasattr(inner, "do_polysemous_training"):
        inner.do_polysemous_training = False
    index.train(POOL[:N].astype(np.float32))
    return faiss.serialize_index(index)


def trained(form: str) -> Any:
    """Return a trained, empty index."""
    return faiss.deserialize_index(_trained(form))


def blocks_of(ids: Any) -> list[tuple[Any, Any]]:
    """Yield vectors with their ids, in three blocks."""
    return [(part, POOL[part]) for part in np.array_split(ids, 3)]


def die(*_: object) -> NoReturn:
    """End the process at once, as if it were killed."""
    os._exit(9)
