"""The object ``keywords/summary``: the number of words of each image, and what all images share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.keywords.names import SUMMARY
from mmindex.keywords.words import RULES
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import REPAIR_HINT, Objects
from mmindex.store.snapshot import Snapshot

_METADATA: Final = b"mmindex.keywords"
_MADE_FROM: Final = ("images", "captions", "ids/image")


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights of the ranking by words; that of the ranking by vectors is 1.

    ``complete`` is for images that have all words of the query, ``partial`` for all others.
    ``queries`` is the number of captions that they were fitted on.
    """

    partial: float = 0.0
    complete: float = 1.0
    queries: int = 0

    @property
    def none(self) -> bool:
        """Whether words do not count at all."""
        return not self.partial and not self.complete


class _Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: str
    weights: Weights


@dataclass(frozen=True, slots=True)
class Summary:
    """The content of the object.

    Attributes:
        inputs: identifies what the index was made from, see :func:`inputs_of`.
        weights: how much words count in a hybrid search.
        lengths: uint32 (ids,), the number of words of each image; 0 for ids without text.
    """

    inputs: str
    weights: Weights
    lengths: NDArray[np.uint32]


def inputs_of(manifest: Manifest) -> str:
    """Return a digest of everything that determines the keyword index of a version.

    The vectors determine the weights; all else comes from the tables, the ids, and the rules for
    words.
    """
    index = manifest.indexes.get(Modality.IMAGE)
    parts = [manifest.require(name).sha256 for name in _MADE_FROM]
    text = "\n".join([RULES, *parts, "" if index is None else index.inputs])
    return hashlib.sha256(text.encode()).hexdigest()


def write_summary(objects: Objects, summary: Summary) -> ObjectRef:
    """Write the object."""
    shared = msgspec.json.encode(_Shared(summary.inputs, summary.weights))
    field = pa.field("length", pa.uint32(), nullable=False)
    schema = pa.schema([field], {_METADATA: shared})
    table: Any = pa.table([pa.array(summary.lengths)], schema=schema)
    return objects.write_table(SUMMARY, schema, [table])


def read_summary(snapshot: Snapshot) -> Summary:
    """Read the object.

    Raises:
        DataError: it is missing or damaged.
    """
    ref = snapshot.manifest.require(SUMMARY)
    table = snapshot.objects.read_table(ref)
    metadata = table.schema.metadata or {}
    try:
        shared = msgspec.json.decode(metadata.get(_METADATA, b""), type=_Shared)
        lengths = table["length"].to_numpy()
    except (msgspec.DecodeError, KeyError) as error:
        path = snapshot.layout.object(ref.sha256)
        raise DataError(f"{path} ({SUMMARY}): unreadable: {error}", REPAIR_HINT) from error
    return Summary(shared.inputs, shared.weights, lengths)
