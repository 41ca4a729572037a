"""The vectors that a search is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Scope:
    """The vectors to search.

    Attributes:
        snapshot: the version.
        searcher: the searcher of the side ``to``.
        to: the side to search.
        rows: bool (images,), whether each image meets the condition; None if all do.
        ids: int64 (n,), the vector ids that meet the condition; None if all do.
    """

    snapshot: Snapshot
    searcher: Searcher
    to: Modality
    rows: NDArray[np.bool_] | None
    ids: NDArray[np.int64] | None
