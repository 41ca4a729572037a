"""One version of a store, open for reading: the basis of queries, measurements and stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.core.modality import Modality
from mmindex.media.services import use_endpoint
from mmindex.store import versions
from mmindex.store.holds import Hold, lock_shared, take_current
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo, IndexInfo, Manifest
from mmindex.store.objects import Objects
from mmindex.store.rows import Rows
from mmindex.store.vectors import Vectors

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

TABLES = {Modality.IMAGE: "images", Modality.TEXT: "captions"}
"""The table with the rows of each side."""

# Up to this number, keys are read one by one: pyarrow's `take` first copies the whole column, which
# takes 40 ms for a million keys.
_FEW_KEYS = 10_000
# The number of the request that prepares look-ups: this takes as long as scanning a table four
# times.
_PREPARED_AT = 5
_TEXTS = {"images": ("image_id", "uri"), "captions": ("caption_id", "image_id", "text")}
_SEARCHABLE = ("encode", "index")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A version, published or still a draft, with the objects that it lists.

    Vectors are mapped and keys are read once per side, shared by all threads. Later versions do not
    affect a snapshot.

    Attributes:
        objects: the store's objects.
        manifest: the version's manifest.
        hold: protects a published version from ``gc`` for the lifetime of this snapshot; None
            if the writer's lock protects it, and for drafts.
    """

    objects: Objects
    manifest: Manifest
    hold: Hold | None = None
    _vectors: dict[Modality, Vectors] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _keys: dict[Modality, pa.ChunkedArray[Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _rows: dict[str, Rows] = field(default_factory=dict, init=False, repr=False, compare=False)
    _requests: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _looking_up: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)
    _lock: RLock = field(default_factory=RLock, init=False, repr=False, compare=False)

    @property
    def layout(self) -> Layout:
        """The store's paths."""
        return self.objects.layout

    @property
    def encoder(self) -> EncoderInfo:
        """The model that made the vectors.

        Raises:
            NoInputError: the version has not been encoded.
        """
        if self.manifest.encoder is None:
            raise NoInputError("encode has not run yet", "run `mmindex encode` first")
        return self.manifest.encoder

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table, whole or some of its columns.

        Raises:
            NoInputError: the stage that makes it has not run.
            DataError: it is missing or damaged.
        """
        return self.objects.read_table(self.manifest.require(name), columns)

    def open_parquet(self, name: str) -> pq.ParquetFile:
        """Open a table to read it in parts; raises as :meth:`table`."""
        return self.objects.open_parquet(self.manifest.require(name))

    def batches(
        self, name: str, columns: Sequence[str] | None = None, rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Yield a table in batches of at most ``rows`` rows; raises as :meth:`table`."""
        return self.objects.iter_batches(self.manifest.require(name), columns, rows)

    def take(self, name: str, columns: Sequence[str], rows: Int64) -> pa.Table:
        """Read some rows of a table from the row groups that have them; raises as :meth:`table`.

        Args:
            name: the table's name.
            columns: the columns to read.
            rows: int64 (n,), ascending, distinct.
        """
        return self.objects.take(self.manifest.require(name), columns, rows)

    def rows(self, name: str, *, now: bool = False) -> Rows | None:
        """Return the rows of a table for look-ups by key or id; they are read once for all threads.

        Args:
            name: ``images`` or ``captions``.
            now: whether to read them at the first request. By default, the first requests return
                None: for a few queries, it is faster to scan the table.

        Raises:
            NoInputError, DataError: as :meth:`table`.
        """
        with self._looking_up:  # reading takes long, and other readers of the version need not wait
            if name in self._rows:
                return self._rows[name]
            self._requests[name] = self._requests.get(name, 0) + 1
            if not now and self._requests[name] < _PREPARED_AT:
                return None
            known = Rows(self.objects, self.manifest.require(name), _TEXTS[name])
            self._rows[name] = known
            return known

    def index(self, side: Modality) -> IndexInfo:
        """Return how one side is searched.

        Raises:
            NoInputError: the version has not been indexed, or that side of the corpus is empty.
        """
        info = self.manifest.indexes.get(side)
        if info is None and "index" in self.manifest.stages:
            what = "captions" if side == Modality.TEXT else "images"
            other = Modality.IMAGE if side == Modality.TEXT else Modality.TEXT
            raise NoInputError(
                f"version {self.manifest.version} has no {what} to search",
                f"search the other side with `to={other}`, or build from a source that has {what}",
            )
        if info is None:
            raise NoInputError(
                f"version {self.manifest.version} has no {side} index", "run `mmindex index` first"
            )
        return info

    def vectors(self, side: Modality) -> Vectors:
        """Return the vectors of one side, mapped; row i belongs to id i.

        Raises:
            NoInputError: as :meth:`index`.
            DataError: vectors or ids are missing, damaged, or do not fit the index.
        """
        with self._lock:
            if side not in self._vectors:
                self._vectors[side] = self._map(side)
            return self._vectors[side]

    def _map(self, side: Modality) -> Vectors:
        info, ids = self.index(side), self.manifest.find(f"ids/{side}")
        vectors = Vectors(self.objects, self.manifest.objects, side, info.dim)
        if (vectors.n, vectors.live) != (info.rows, info.n):
            raise DataError(
                f"{side} vectors: {vectors.n} rows, {vectors.live} of them live; the index has"
                f" {info.rows} and {info.n}"
            )
        if ids is None or ids.rows != info.rows:
            raise DataError(f"{side}: the ids do not match the index", "run `mmindex check`")
        return vectors

    def keys(self, side: Modality) -> pa.ChunkedArray[Any]:
        """Return the keys of one side by id, in hex; null if the id's vector was removed.

        They stay in memory: about 70 bytes per key.
        """
        with self._lock:
            if side not in self._keys:
                self._keys[side] = self.table(f"ids/{side}", ["key"])["key"]
            return self._keys[side]

    def keys_at(self, side: Modality, ids: Int64) -> list[str]:
        """Return the keys of ids, in the same order.

        Raises:
            UsageError: an id does not exist, including -1, which means "no hit".
            DataError: an id was removed.
        """
        rows = self.index(side).rows
        if len(ids) and (ids.min() < 0 or ids.max() >= rows):
            raise UsageError(f"ids must be in 0..{rows - 1}")
        column = self.keys(side)
        if len(ids) <= _FEW_KEYS:
            keys = [column[row].as_py() for row in ids.tolist()]
        else:
            keys = column.take(
                pa.array(ids.tolist(), pa.int64())  # of an array, pyarrow would import numpy.ma
            ).to_pylist()
        if None in keys:
            raise DataError(f"{side}: an id has no key", "run `mmindex check --full`")
        return [str(key) for key in keys]

    def vector_of(self, side: Modality, key: str) -> Float32:
        """Return the stored vector of a key: float32 (dim,), of length 1 up to float16 rounding.

        Raises:
            NoInputError: no vector of that side has this key, or as :meth:`index`.
            DataError: as :meth:`vectors`.
        """
        vectors, keys = self.vectors(side), self.keys(side)
        place = pc.index(keys, pa.scalar(key, keys.type)).as_py()
        if place < 0:
            raise NoInputError(f"{key} is not in the {side} index")
        row: Float32 = vectors.take(np.array([place], dtype=np.int64))[0].astype(np.float32)
        return row

    def row_ids(self, side: Modality) -> Int64:
        """Return the ids of a side's table rows: int64 (rows,); rows with one key share an id.

        Memory: the keys during the look-up (64 bytes per row, twice), then 8 bytes per row.

        Raises:
            NoInputError: as :meth:`index`.
            DataError: a row has no vector, or an object is damaged.
        """
        self.index(side)
        known = self.table(f"ids/{side}", ["key"])["key"]
        keys = self.table(TABLES[side], ["key"])["key"]
        return positions(keys, known, f"{TABLES[side]}: a row has no vector")

    def verify(self, but: Collection[str] = ()) -> None:
        """Read and hash every object, except those whose sha256 is in ``but``.

        Raises:
            DataError: an object is missing or damaged; the message names the file.
        """
        for ref in self.manifest.objects:
            if ref.sha256 not in but:
                self.objects.path(ref)


def positions(values: Any, known: Any, complaint: str) -> Int64:
    """Return the positions of a column's values in the column ``known``: int64 (len(values),).

    Raises:
        DataError: a value is not in ``known``; the message is ``complaint``.
    """
    # Bytes instead of strings: ids can contain lone surrogates, which are not valid UTF-8.
    found = pc.index_in(values.cast(pa.binary()), value_set=known.cast(pa.binary()))
    if found.null_count:
        raise DataError(complaint, "run `mmindex check --full`, then `mmindex build`")
    places: Int64 = found.to_numpy().astype(np.int64)
    return places


def published(layout: Layout) -> Snapshot | None:
    """Return the published version, held; None if nothing is published yet.

    Raises:
        DataError: CURRENT or the manifest is damaged.
    """
    hold = take_current(layout)
    if hold is None:
        return None
    endpoint = hold.manifest.config.get("fetch", {}).get("s3_endpoint")
    use_endpoint(endpoint, [source.spec for source in hold.manifest.sources])  # to show its images
    return Snapshot(Objects(layout), hold.manifest, hold)


def open_snapshot(root: Path) -> Snapshot:
    """Open the published version of the store at ``root``, held and ready for searches.

    Raises:
        NoInputError: there is no store, no version, or a stage that searching needs has not run;
            the message names the missing stages.
        DataError: the manifest is damaged.
    """
    snapshot = published(versions.open_layout(root))
    if snapshot is None:
        raise NoInputError(f"{root}: nothing is published yet", "run `mmindex build` first")
    return _ready(root, snapshot)


def open_version(root: Path, number: int) -> Snapshot:
    """Open one version of the store at ``root``, held and ready for searches.

    Raises:
        NoInputError: there is no such version, or a stage that searching needs has not run.
        DataError: the manifest is damaged.
    """
    layout = versions.open_layout(root)
    manifest = versions.read_version(layout, number)
    descriptor = lock_shared(layout.version(number))
    if descriptor is None:  # gc has removed it in the meantime
        raise NoInputError(f"{root}: no version {number}", "run `mmindex versions`")
    return _ready(root, Snapshot(Objects(layout), manifest, Hold(manifest, descriptor)))


def _ready(root: Path, snapshot: Snapshot) -> Snapshot:
    """Return a version that can be searched; see :func:`open_snapshot`."""
    manifest = snapshot.manifest
    missing = [stage for stage in _SEARCHABLE if stage not in manifest.stages]
    if missing or manifest.encoder is None:
        raise NoInputError(
            f"{root}: version {manifest.version} cannot be searched yet; missing stages: "
            + ", ".join(missing or _SEARCHABLE),
            f"run {', then '.join(f'`mmindex {stage}`' for stage in missing or _SEARCHABLE)}",
        )
    return snapshot
