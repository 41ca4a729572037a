"""What has to go when images are forgotten: their bytes under every name, in every version."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.progress import get_logger
from mmindex.core.records import Reason
from mmindex.store import versions
from mmindex.store.forgotten import Forgotten
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.purge import fetched_shards
from mmindex.store.quarantine import read_entries

_URL_LISTS = "urls/"  # the column ``source`` of images that were fetched one by one
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Row:
    """An image of the published version that goes."""

    image_id: str
    uri: str
    asked: bool


@dataclass(slots=True)
class Deletion:
    """What goes.

    Attributes:
        ids: asked for, and found in some version.
        already: asked for, and forgotten before.
        keys: of their bytes, in hex.
        addresses: URLs that served those bytes.
        uris: where the bytes lay, also under other names.
        others: ids of other images with the same bytes.
        rows: of the published version.
        captions: how many captions they have there.
    """

    ids: set[str] = field(default_factory=set)
    already: tuple[str, ...] = ()
    keys: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    uris: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    rows: tuple[Row, ...] = ()
    captions: int = 0

    @property
    def names(self) -> set[str]:
        """Everything that tells of them in plain text."""
        return self.ids | self.keys | self.addresses | self.uris | self.others


def plan(objects: Objects, current: Manifest, forgotten: Forgotten, ids: Sequence[str]) -> Deletion:
    """Find everything that belongs to these images.

    An id may be one of any version that the store keeps, and of images in quarantine as well.

    Args:
        objects: of the store.
        current: the published version.
        forgotten: its list.
        ids: image ids.

    Raises:
        NoInputError: no version has an image of one of the ids, and none was forgotten.
        DataError: the published version is damaged, or no image would be left.
    """
    doomed = Deletion()
    wanted = set(ids)
    images = all_tables(objects, current, ("crawl/images",))
    for ref in images:
        _take_rows(objects, ref, wanted, doomed)
    for ref in all_tables(objects, current, ("crawl/quarantine", "quarantine")):
        _take_entries(objects, ref, wanted, doomed)
    doomed.already = tuple(sorted(name for name in wanted - doomed.ids if forgotten.has_id(name)))
    missing = sorted(wanted - doomed.ids - set(doomed.already))
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise NoInputError(
            f"no image has the id, uri or path {', '.join(map(repr, missing[:_NAMED]))}{more}; "
            "nothing was forgotten",
            "`mmindex query` shows paths, `mmindex query --format json` shows ids and uris",
        )
    _follow_addresses(objects.layout, doomed)
    for ref in images:
        rows = _rows_with_keys(objects, ref, doomed)
        doomed.uris |= {row.uri for row in rows}
        doomed.others |= {row.image_id for row in rows} - doomed.ids
        if ref == current.find("crawl/images"):
            doomed.rows = rows
            if len(rows) == ref.rows:
                raise DataError(
                    f"forgetting {len(rows)} image(s) would leave none, and a version needs one",
                    f"to forget everything, remove {objects.layout.root}",
                )
    captions = current.find("crawl/captions")
    if captions is not None:
        ids_gone = pa.array([row.image_id for row in doomed.rows], pa.string())
        for batch in objects.iter_batches(captions, ["image_id"]):
            doomed.captions += pc.sum(pc.is_in(batch["image_id"], value_set=ids_gone)).as_py() or 0
    return doomed


def _versions(layout: Layout, current: Manifest) -> Iterator[Manifest]:
    """The published version and those before it; a damaged old one tells nothing, and goes."""
    for number in versions.list_versions(layout):
        if number >= current.version:
            continue
        try:
            yield versions.read_version(layout, number)
        except DataError as error:
            get_logger("forget").warning("passing over a damaged version", why=error.message)
    yield current


def all_tables(objects: Objects, current: Manifest, names: Collection[str]) -> list[ObjectRef]:
    """These objects of all versions, each content once; damaged ones of old versions tell nothing.

    Raises:
        DataError: one of the published version is damaged.
    """
    kept = list(_versions(objects.layout, current))
    needed = {ref.sha256 for ref in kept[-1].objects}
    found: dict[str, ObjectRef] = {}
    for ref in (ref for made in reversed(kept) for ref in made.objects if ref.name in names):
        try:
            objects.path(ref)
        except DataError as error:
            if ref.sha256 in needed:
                raise
            get_logger("forget").warning("passing over a damaged object", why=error.message)
        else:
            found.setdefault(ref.sha256, ref)
    return list(found.values())


def _scan(objects: Objects, ref: ObjectRef) -> Iterator[pa.RecordBatch]:
    columns = ["image_id", "key", "source", "uri"]
    with objects.open_parquet(ref) as file:
        names = file.schema_arrow.names
    return objects.iter_batches(ref, [*columns, "url"] if "url" in names else columns)


def _take_rows(objects: Objects, ref: ObjectRef, wanted: set[str], doomed: Deletion) -> None:
    asked = pa.array(sorted(wanted), pa.string())
    for batch in _scan(objects, ref):
        for row in batch.filter(pc.is_in(batch["image_id"], value_set=asked)).to_pylist():
            doomed.ids.add(row["image_id"])
            doomed.keys.add(row["key"])
            doomed.uris.add(row["uri"])
            if row["source"].startswith(_URL_LISTS) and row.get("url"):
                doomed.addresses.add(row["url"])


def _take_entries(objects: Objects, ref: ObjectRef, wanted: set[str], doomed: Deletion) -> None:
    for entry in read_entries(objects, ref):
        if entry.id not in wanted:
            continue
        doomed.ids.add(entry.id)
        doomed.uris.add(entry.uri)
        # The bytes of a second image under this id may be those of some third one, which stays.
        if entry.key and entry.reason is not Reason.DUPLICATE_ID:
            doomed.keys.add(entry.key)
        if entry.source.startswith(_URL_LISTS):
            doomed.addresses.add(entry.uri)


def _follow_addresses(layout: Layout, doomed: Deletion) -> None:
    """What these addresses ever served goes, and every address that served the same."""
    for column, known, other, found in (
        ("url", doomed.addresses, "key", doomed.keys),
        ("key", doomed.keys, "url", doomed.addresses),
    ):
        for path in fetched_shards(layout):
            values = pa.array(sorted(known), pa.string())
            try:
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(columns=["url", "key"]):
                        hits = batch[other].filter(pc.is_in(batch[column], value_set=values))
                        found.update(value for value in hits.to_pylist() if value)
            except (pa.ArrowInvalid, KeyError) as error:
                raise DataError(
                    f"{path}: damaged: {error}", "remove this file: its images are fetched again"
                ) from error


def _rows_with_keys(objects: Objects, ref: ObjectRef, doomed: Deletion) -> tuple[Row, ...]:
    ids, keys = (
        pa.array(sorted(doomed.ids), pa.string()),
        pa.array(sorted(doomed.keys), pa.string()),
    )
    found = []
    for batch in _scan(objects, ref):
        hits = pc.or_(
            pc.is_in(batch["image_id"], value_set=ids), pc.is_in(batch["key"], value_set=keys)
        )
        found += [
            Row(row["image_id"], row["uri"], row["image_id"] in doomed.ids)
            for row in batch.filter(hits).to_pylist()
        ]
    return tuple(found)
