"""Export vectors with the ids of images or captions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.search.hits import names_of
from mmindex.store.snapshot import Snapshot

Names = NDArray[np.object_]
Float16 = NDArray[np.float16]

# Keys per pass over the table: about 25 MB with their names. Ten million vectors take 77 passes of
# about a second.
_NAMED = 1 << 17


def named_vectors(snapshot: Snapshot, side: Modality) -> tuple[Names, Float16]:
    """Return all vectors of one side: object (n,) ids and float16 (n, dim), read-only.

    There is one row for each distinct content, with its first id.

    Raises:
        NoInputError: that side is empty.
        DataError: an object is damaged.
    """
    vectors = snapshot.vectors(side).whole()
    keys = snapshot.table(f"ids/{side}", ["key"])["key"].drop_null()
    return names_of(snapshot, side, keys.combine_chunks()), vectors


def iter_named_vectors(
    snapshot: Snapshot, side: Modality, rows: int
) -> Iterator[tuple[Names, Float16]]:
    """Yield :func:`named_vectors` in parts of at most ``rows`` rows, with constant memory."""
    vectors = snapshot.vectors(side)
    first = 0
    for batch in snapshot.batches(f"ids/{side}", ["key"], rows=_NAMED):
        keys = batch["key"]
        ids = first + np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
        names = names_of(snapshot, side, keys.drop_null())
        for start in range(0, len(ids), rows):
            part = vectors.take(ids[start : start + rows])
            part.flags.writeable = False
            yield names[start : start + rows], part
            vectors.let_go()
        first += len(keys)
