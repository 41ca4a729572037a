"""Do the objects of a version fit together, beyond each being what it was when it was written?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.store.manifest import IndexInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.vectors import Vectors

_RAW = ("vectors/", "digests/", "index/")  # every other object is Parquet
_TABLES = {Modality.IMAGE: "images", Modality.TEXT: "captions"}
_BLOCK_ROWS = 16_384
_KEY_WORDS = 4  # 64-bit words in a sha256

Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]


class ContentCheck:
    """Looks into the versions of one store; what several of them share is looked at once.

    Args:
        objects: of the store; what is asked about must have been verified by hash.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._read: set[str] = set()
        self._sides: set[tuple[str, ...]] = set()

    def problems(self, manifest: Manifest) -> Iterator[str]:
        """What does not fit together in one version, one line each."""
        where = f"version {manifest.version}"
        for ref in manifest.objects:
            if ref.sha256 not in self._read and not ref.name.startswith(_RAW):
                self._read.add(ref.sha256)
                yield from self._table(ref)
        yield from (f"{where}: {line}" for line in _counts(manifest))
        for side, info in manifest.indexes.items():
            parts = _parts(manifest, side)
            if parts not in self._sides:
                self._sides.add(parts)
                try:
                    found = list(self._side(manifest, side, info))
                except (DataError, pa.ArrowInvalid, KeyError, ValueError) as error:
                    found = [str(error)]
                yield from (f"{where}, {side}: {line}" for line in found)

    def _table(self, ref: ObjectRef) -> Iterator[str]:
        """Read a table from end to end."""
        try:
            rows = sum(batch.num_rows for batch in self._objects.iter_batches(ref))
        except (DataError, pa.ArrowInvalid, OSError) as error:
            yield f"{self._objects.layout.object(ref.sha256)} ({ref.name}): unreadable: {error}"
            return
        if rows != ref.rows:
            yield f"{ref.name}: {rows} rows, the manifest says {ref.rows}"

    def _side(self, manifest: Manifest, side: Modality, info: IndexInfo) -> Iterator[str]:
        """Vectors, their digests, removed rows, ids, the table that ids lead to, golden answers."""
        vectors = Vectors(self._objects, manifest, side)
        bad = sum(int((~np.isfinite(part).all(axis=1)).sum()) for _, part in _blocks(vectors))
        if bad:
            yield f"{bad} vectors are not finite"
        ids = manifest.find(f"ids/{side}")
        if ids is None:
            yield "the manifest lists no ids"
            return
        column = self._objects.read_table(ids, ["key"])["key"]
        if len(column) != info.rows:
            yield f"{len(column)} ids, the index has {info.rows}"
            return
        blank = np.flatnonzero(column.is_null().to_numpy())
        if not np.array_equal(blank, vectors.removed):
            yield "the ids without a key are not those of the removed rows"
        named = np.sort(_words([column.drop_null()]))
        if (named[1:] == named[:-1]).any():
            yield "two ids have the same key"
        table = manifest.find(_TABLES[side])
        if table is not None:
            keys = _words(batch["key"] for batch in self._objects.iter_batches(table, ["key"]))
            if not np.array_equal(np.unique(keys), named):
                yield f"the ids are not those of the table {table.name}"
        golden = manifest.find(f"golden/{side}")
        if golden is not None:
            answers = pc.list_flatten(self._objects.read_table(golden, ["ids"])["ids"]).to_numpy()
            answers = answers[answers >= 0]
            if (answers >= info.rows).any() or np.isin(answers, vectors.removed).any():
                yield "golden answers name ids that are not there"


def _parts(manifest: Manifest, side: Modality) -> tuple[str, ...]:
    names = (f"{kind}/{side}" for kind in ("ids", "removed", "vectors", "digests", "golden"))
    wanted = (*names, _TABLES[side])
    return tuple(ref.sha256 for ref in manifest.objects if ref.name.startswith(wanted))


def _blocks(vectors: Vectors) -> Iterator[tuple[Int64, Any]]:
    return vectors.blocks(_BLOCK_ROWS)


def _counts(manifest: Manifest) -> Iterator[str]:
    """The manifest's own counts against the rows of its tables."""
    counts = manifest.counts
    for name, count in (("images", counts.indexed), ("captions", counts.captions)):
        ref = manifest.find(name)
        if ref is not None and ref.rows != count:
            yield f"{ref.rows} rows in {name}, the counts say {count}"


def _words(columns: Iterable[Any]) -> Words:
    """The first 64 bits of each key: enough to tell millions apart, an eighth of the memory."""
    found = [np.empty(0, dtype=np.uint64)]
    for column in columns:
        data = bytes.fromhex("".join(column.to_pylist()))
        if len(data) != len(column) * _KEY_WORDS * 8:
            raise DataError("a key is not a sha256 in hex")
        found.append(np.frombuffer(data, dtype=np.uint64)[::_KEY_WORDS].copy())
    return np.concatenate(found)
