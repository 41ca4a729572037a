"""Rank images lower that are near to many texts.

Some images (hubs) are among the nearest of far more texts than others, in any space with many
dimensions (M. Radovanović et al., Hubs in Space, JMLR 2010). As in CSLS (A. Conneau et al., Word
Translation Without Parallel Data, ICLR 2018), each image has a ``bias``: half of its mean
similarity to its nearest texts of a bank. Hits are ranked by their cosine similarity minus the
bias; their scores stay cosine similarities. :mod:`mmindex.evaluate.fit_hubness` computes the biases
from the captions of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

HUBNESS: Final = "hubness"
"""The name of the object in a version."""
_SCHEMA: Final = pa.schema({"bias": pa.float32()})

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hubness:
    """The biases of the images.

    Attributes:
        bias: float32 (rows,), by id; 0 for removed vectors.
    """

    bias: Float32

    def order(self, scores: Float32, ids: Int64) -> tuple[Float32, Int64]:
        """Return the candidates of a query in their corrected order.

        Args:
            scores: float32 (m,), cosine similarities.
            ids: int64 (m,).
        """
        places = np.argsort(self.bias[ids] - scores, kind="stable")
        return scores[places], ids[places]


def candidates(depth: int) -> int:
    """Return how many candidates are ranked again for ``depth`` hits."""
    return max(4 * depth, depth + 100)


def write_hubness(objects: Objects, bias: Float32) -> ObjectRef:
    """Write the biases of a version."""
    return objects.write_table(HUBNESS, _SCHEMA, [pa.table({"bias": bias}, schema=_SCHEMA)])


def read_hubness(snapshot: Snapshot) -> Hubness | None:
    """Return the biases of a version; None if it has none.

    Raises:
        DataError: the object is missing, damaged, or of another index.
    """
    if snapshot.manifest.find(HUBNESS) is None:
        return None
    bias = snapshot.table(HUBNESS, ["bias"])["bias"].to_numpy().astype(np.float32)
    if len(bias) != snapshot.index(Modality.IMAGE).rows:
        raise DataError("the biases do not match the image index", "run `mmindex check --full`")
    return Hubness(bias)
