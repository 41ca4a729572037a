"""Remove images permanently: publish a version without them, then remove all older versions.

First, the bytes of the images under every name in every version are found. Then the new version is
published like any other, with the list of forgotten items and a ``floor`` below which no version
may be kept. Only then is anything removed. After a kill, the next writer completes the removal, see
:mod:`mmindex.store.leftovers`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import mmindex
from mmindex.core.config import load_config
from mmindex.core.errors import BusyError, DataError, NoInputError, UsageError
from mmindex.core.progress import get_logger
from mmindex.core.records import Reason
from mmindex.media.video import split_frame
from mmindex.runs.context import Context
from mmindex.sources.spec import absolute_spec
from mmindex.store import versions
from mmindex.store.forgotten import read_forgotten
from mmindex.store.holds import hold_current
from mmindex.store.layout import Layout
from mmindex.store.leftovers import remove_below_floor, remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.purge import fetched_shards, purge, purge_reports, purge_stamps
from mmindex.store.quarantine import read_entries
from mmindex.store.snapshot import Snapshot
from mmindex.upkeep.forget_draft import draft_without

_URL_LISTS = "urls/"  # the start of the column ``source`` of images from URL lists
_NAMED = 5


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """The removed items, or those that would be removed.

    Attributes:
        version: the published version.
        published: whether this run published it.
        forgotten: the requested ids.
        already: ids that were forgotten before.
        images: number of removed rows of the published version, including other names.
        same_bytes: ids of other removed images with the same bytes.
        captions: number of removed captions.
        removed: removed older versions.
        held: older versions that a reader holds; the next writer removes them.
        still_in: archives in the downloads of the store that contain the images; they are not
            changed.
        dry_run: whether nothing was changed.
    """

    version: int
    published: bool
    forgotten: tuple[str, ...]
    already: tuple[str, ...]
    images: int
    same_bytes: tuple[str, ...]
    captions: int
    removed: tuple[int, ...]
    held: tuple[int, ...]
    still_in: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Row:
    """An image of the published version to remove."""

    image_id: str
    uri: str
    asked: bool


@dataclass(slots=True)
class Deletion:
    """The items to remove.

    Attributes:
        ids: requested ids that exist in a version.
        already: requested ids that were forgotten before.
        keys: keys of their bytes, in hex.
        addresses: URLs that returned these bytes.
        uris: locations of the bytes, including other names.
        others: ids of other images with the same bytes.
        rows: rows of the published version.
        captions: number of their captions in the published version.
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
        """All texts that identify the items."""
        return self.ids | self.keys | self.addresses | self.uris | self.others


def forget(root: Path, ids: Sequence[str], run_id: str, *, dry_run: bool = False) -> ForgetReport:
    """Remove images: their bytes under every name, their captions, vectors and all older versions.

    If an id is unknown, nothing is removed. Ids that are already forgotten are accepted, so that a
    killed command can be repeated. The sources are not read or changed; later crawls ignore the
    images.

    Args:
        root: the store.
        ids: image ids.
        run_id: the id of this run in the manifest.
        dry_run: only report what would be removed.

    Raises:
        UsageError: no id is given.
        NoInputError: there is no store or version, or no image has one of the ids.
        BusyError: another run holds the store.
        DataError: no image would be left, or the store is damaged.
    """
    if not ids:
        raise UsageError("no images to forget", "for example: mmindex forget ~/photos/anna.jpg")
    layout = versions.open_layout(root)
    if dry_run:
        with hold_current(layout):
            current = _published(layout)
            return _report(current, plan(current, ids), published=None)
    with writer_lock(layout):
        remove_leftovers(layout)
        parent = _published(layout)
        doomed = plan(parent, ids)
        published = _publish(parent, doomed, run_id) if doomed.ids else parent.manifest
        before = versions.list_versions(layout)
        held = remove_below_floor(layout)
        if not doomed.ids:  # otherwise, it was part of the removal
            purge(parent)
        removed = sorted(set(before) - set(versions.list_versions(layout)))
        return _report(parent, doomed, published=published, removed=removed, held=held)


def require_removed(report: ForgetReport) -> None:
    """Raise an error if older versions could not be removed yet.

    Raises:
        BusyError: a reader holds one of them.
    """
    if report.held:
        numbers = ", ".join(map(str, report.held))
        raise BusyError(
            f"forgotten in version {report.version}, but a reader still holds version {numbers}",
            "run `mmindex gc` after it has finished; every other run that writes also removes it",
        )


def _published(layout: Layout) -> Snapshot:
    current = versions.read_current(layout)
    if current is None:
        raise NoInputError(f"{layout.root}: nothing is published yet", "run `mmindex build`")
    return Snapshot(Objects(layout), current)


def _publish(before: Snapshot, doomed: Deletion, run_id: str) -> Manifest:
    layout, objects, parent = before.layout, before.objects, before.manifest
    forgotten = read_forgotten(before).including(doomed.ids, doomed.keys, doomed.addresses)
    context = Context(
        layout=layout,
        objects=objects,
        config=load_config(None, {}, parent.config, absolute_spec),
        run_id=run_id,
        parent=parent,
    )
    draft = msgspec.structs.replace(
        parent,
        version=parent.version + 1,
        parent=parent.version,
        restored_from=None,
        floor=parent.version + 1,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=run_id,
        mmindex=mmindex.__version__,
    )
    gone = {row.image_id for row in doomed.rows}
    draft = draft_without(context, draft, gone, forgotten)
    # Reports and a cache, which belong to no version. Only here are ids and paths known as text.
    purge_reports(layout, forgotten, doomed.names)
    files = doomed.uris | {split_frame(uri)[0] for uri in doomed.uris}
    purge_stamps(layout, forgotten, files)
    published = versions.publish_version(objects, draft)
    get_logger("forget").info(
        f"version {published.version} published",
        images=len(doomed.rows),
        captions=doomed.captions,
    )
    return published


def _report(
    parent: Snapshot,
    doomed: Deletion,
    *,
    published: Manifest | None,
    removed: Sequence[int] = (),
    held: Sequence[int] = (),
) -> ForgetReport:
    shown = published or parent.manifest
    downloads = f"{parent.layout.downloads_dir}/"
    inside = {
        uri.partition("!")[0]
        for uri in doomed.uris
        if uri.startswith(downloads) and not uri.startswith(f"{downloads}fetched/")
    }
    return ForgetReport(
        version=shown.version,
        published=shown is not parent.manifest,
        forgotten=tuple(sorted(doomed.ids)),
        already=doomed.already,
        images=len(doomed.rows),
        same_bytes=tuple(sorted(row.image_id for row in doomed.rows if not row.asked)),
        captions=doomed.captions,
        removed=tuple(removed),
        held=tuple(held),
        still_in=tuple(sorted(inside)),
        dry_run=published is None,
    )


def plan(current: Snapshot, ids: Sequence[str]) -> Deletion:
    """Find everything that belongs to these images.

    The ids can be from any version in the store, and from images in quarantine.

    Args:
        current: the published version.
        ids: image ids.

    Raises:
        NoInputError: an id is in no version and was not forgotten.
        DataError: the published version is damaged, or no image would be left.
    """
    doomed, objects, forgotten = Deletion(), current.objects, read_forgotten(current)
    wanted = set(ids)
    images = all_tables(current, ("crawl/images",))
    for ref in images:
        _take_rows(objects, ref, wanted, doomed)
    for ref in all_tables(current, ("crawl/quarantine", "quarantine")):
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
    _follow_addresses(current.layout, doomed)
    for ref in images:
        rows = _rows_with_keys(objects, ref, doomed)
        doomed.uris |= {row.uri for row in rows}
        doomed.others |= {row.image_id for row in rows} - doomed.ids
        if ref == current.manifest.find("crawl/images"):
            doomed.rows = rows
            if len(rows) == ref.rows:
                raise DataError(
                    f"forgetting {len(rows)} image(s) would leave none, but a version needs at "
                    "least one",
                    f"to forget everything, remove {current.layout.root}",
                )
    ids_gone = pa.array([row.image_id for row in doomed.rows], pa.string())
    for batch in current.batches("crawl/captions", ["image_id"]):
        doomed.captions += pc.sum(pc.is_in(batch["image_id"], value_set=ids_gone)).as_py() or 0
    return doomed


def _versions(current: Snapshot) -> Iterator[Manifest]:
    """Return the published version and the older ones; damaged old versions are skipped."""
    for number in versions.list_versions(current.layout):
        if number >= current.manifest.version:
            continue
        try:
            yield versions.read_version(current.layout, number)
        except DataError as error:
            get_logger("forget").warning("skipping a damaged version", why=error.message)
    yield current.manifest


def all_tables(current: Snapshot, names: Collection[str]) -> list[ObjectRef]:
    """Yield these objects of all versions, each content once; damaged old ones are skipped.

    Raises:
        DataError: an object of the published version is damaged.
    """
    objects, kept = current.objects, list(_versions(current))
    needed = {ref.sha256 for ref in kept[-1].objects}
    found: dict[str, ObjectRef] = {}
    for ref in (ref for made in reversed(kept) for ref in made.objects if ref.name in names):
        try:
            objects.path(ref)
        except DataError as error:
            if ref.sha256 in needed:
                raise
            get_logger("forget").warning("skipping a damaged object", why=error.message)
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
        # A second image with this id can have the same bytes as a third one, which stays.
        if entry.key and entry.reason is not Reason.DUPLICATE_ID:
            doomed.keys.add(entry.key)
        if entry.source.startswith(_URL_LISTS):
            doomed.addresses.add(entry.uri)


def _follow_addresses(layout: Layout, doomed: Deletion) -> None:
    """Add everything that these URLs ever returned, and all URLs that returned the same."""
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
