"""The crawl stage: read every image of every source once, hash it, and parse its header.

Files that have not changed since the last crawl are not read again, see
:mod:`mmindex.crawl.stamps`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

import mmindex
from mmindex.cluster.join import Joined
from mmindex.core.config import FetchConfig, LimitsConfig, SourceConfig
from mmindex.core.errors import UsageError
from mmindex.core.progress import counter, get_logger
from mmindex.core.records import (
    CaptionItem,
    Detail,
    Expected,
    Ignored,
    ImageRow,
    ItemError,
    Note,
    NoteKind,
    QuarantineEntry,
    Rejected,
    Skip,
    SourceEvent,
    SourceItem,
    VectorItem,
)
from mmindex.crawl.ahead import Reader, ThreadReader, read_ahead
from mmindex.crawl.listings import Listings
from mmindex.crawl.metadata import PhotoRules, photo_captions, row_metadata
from mmindex.crawl.reading import Reading, ReadRules
from mmindex.crawl.spool import Spool
from mmindex.crawl.spread import ClusterReader
from mmindex.crawl.stamps import Known, Stamps, last_crawl
from mmindex.crawl.tables import column_name
from mmindex.crawl.tally import Tally, storable
from mmindex.crawl.unchanged import Crawled, inputs_digest
from mmindex.crawl.videos import VideoProber
from mmindex.media.files import is_remote
from mmindex.media.images import ImageLimits
from mmindex.media.kinds import image_extensions
from mmindex.media.photo import DURATION
from mmindex.media.video import frame_key, frame_times, frame_uri
from mmindex.sources import registry
from mmindex.sources.captions import usable_captions
from mmindex.sources.naming import folder_roots, named_specs, source_names
from mmindex.sources.needs import needs_of
from mmindex.sources.spec import (
    SourceOptions,
    SourceSpec,
    open_source,
    source_name,
)
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.manifest import ObjectRef, SourceSummary, count_not_read
from mmindex.store.objects import Objects

# An object store takes tens of milliseconds per response, even for small objects.
_READERS: Final = 4
_REMOTE_READERS: Final = 16
_FINGERPRINT: Final = "mmindex-corpus-1"


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """The result of a crawl: ``seen = images.rows + len(quarantined) + ignored``.

    Attributes:
        images: the ``images`` object, rows in source order.
        captions: the ``captions`` object, in the order of their images.
        sources: one summary per source, in the same order.
        quarantined: quarantined rows, in source order.
        seen: the number of source rows.
        ignored: the number of rows ignored by rule.
        corpus_fingerprint: sha256 over the sha256 of the two objects: equal for equal content.
        details: figures for the report of the run: counts of each source, numbers of read and
            unchanged files, and downloads.
    """

    images: ObjectRef
    captions: ObjectRef
    sources: tuple[SourceSummary, ...]
    quarantined: tuple[QuarantineEntry, ...]
    seen: int
    ignored: int
    corpus_fingerprint: str
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def not_read(self) -> dict[str, int]:
        """Return the files that were not read, by extension, most frequent first."""
        return count_not_read(self.sources)


def crawl(
    objects: Objects,
    sources: Sequence[SourceConfig],
    limits: LimitsConfig,
    fetch: FetchConfig | None = None,
    *,
    photos: PhotoRules | None = None,
    names: Mapping[str, str] | None = None,
    rehash: bool = False,
    forgotten: Forgotten = NOTHING,
    before: Crawled | None = None,
    cluster: Joined | None = None,
    scratch: Path | None = None,
) -> CrawlReport:
    """Read all sources and write the tables ``images`` and ``captions``.

    Every file is read once to hash it and to parse its header; files that have not changed since
    the last crawl of this store are not read. Rows are in the order of the sources, and of the
    listing within each source, so an unchanged corpus results in the same objects. Memory is
    limited to a few files and a row group. An image with the id of another image goes to
    quarantine; rows of a table with the same bytes are one image with all their captions.

    Args:
        objects: where to write; requires the writer lock of the store.
        sources: the sources, in order.
        limits: the limits of an image.
        fetch: the network settings; None for the defaults.
        photos: the metadata settings; None for the defaults.
        names: the name of each source by spec; None for the names in a new store.
        rehash: also read unchanged files.
        forgotten: items to leave out, by id or by bytes; they count as ignored.
        before: the result of the published version's crawl, whose objects exist. It is returned if
            nothing has changed.
        cluster: its nodes read the images of folders, archives and tables, with the same result.
        scratch: the folder of the temporary database, see :class:`mmindex.crawl.spool.Spool`.

    Raises:
        UsageError: a spec is invalid.
        NoInputError: a source does not exist.
        DataError: the annotations of a source are damaged, or have too many columns.
            NetworkError, BusyError: a download fails.
        StorageError: the disk is full.
    """
    fetch, photos = fetch or FetchConfig(), photos or PhotoRules()
    # Names first, so that a missing source is reported before hours are spent on the others.
    texts = [source.spec for source in sources]
    specs = named_specs(texts, names if names is not None else source_names(texts, fetch))
    _refuse_idle_globs(sources, specs)
    image_limits = ImageLimits.of(limits)
    read_rules = ReadRules(image_limits, photos)
    tallies = [
        Tally(text, source_name(spec, fetch)) for text, spec in zip(texts, specs, strict=True)
    ]
    layout = objects.layout
    rules = f"{mmindex.__version__} {image_limits} metadata={photos.metadata}"
    options = SourceOptions(
        layout=layout,
        max_bytes=limits.max_bytes,
        fetch=fetch,
        max_throttled=limits.max_quarantine,
        forgotten=forgotten,
        roots=folder_roots(specs),
    )
    own = [
        replace(options, all_files=one.all_files, exclude=one.exclude, include=one.include)
        for one in sources
    ]
    about = (_listing_rules(rules), photos, texts, [tally.name for tally in tallies])
    inputs = None if rehash else inputs_digest(about, specs, own)
    if before is not None and inputs and last_crawl(layout, rules) == before.identity(inputs):
        return _unchanged(before)
    with (
        Spool(layout, scratch) as spool,
        Stamps(layout, rules, distrust=rehash) as stamps,
        Listings(
            layout, _listing_rules(rules), limits.max_bytes, forgotten, distrust=rehash
        ) as listings,
        VideoProber(image_limits) as videos,
    ):
        for spec, tally, its in zip(specs, tallies, own, strict=True):
            sink = _Sink(spool, stamps, listings, videos, read_rules, forgotten)
            # Determined after opening, because opening downloads missing files.
            events = _without(forgotten, open_source(spec, replace(its, listings=listings)))
            expected = needs_of(spec, layout, fetch).images or None
            with _reader(spec, read_rules, cluster) as reader:
                _read_source(read_ahead(events, stamps, reader), tally, sink, expected)
            _warn_of_lost_captions(tally, limits.max_quarantine)
        _warn_of_mixed_columns(spool.mixed_columns)
        crawled = Crawled(
            images=spool.write_images(objects),
            captions=spool.write_captions(objects),
            sources=tuple(tally.summary() for tally in tallies),
            quarantined=tuple(entry for tally in tallies for entry in tally.quarantined),
        )
        if inputs is not None and crawled.lasts and not spool.mixed_columns:
            stamps.identify(crawled.identity(inputs))
    return _report(
        crawled,
        {
            "read": sum(tally.read for tally in tallies),
            "unchanged": sum(tally.unchanged for tally in tallies),
            "sources": [tally.report() for tally in tallies],
        },
    )


def _unchanged(before: Crawled) -> CrawlReport:
    """Return the report of a crawl in which nothing has changed."""
    get_logger("crawl").info("no file has changed", images=before.images.rows)
    sources = [
        {**msgspec.to_builtins(source), "read": 0, "unchanged": source.images}
        for source in before.sources
    ]
    unchanged = sum(source.images for source in before.sources)
    return _report(before, {"read": 0, "unchanged": unchanged, "sources": sources})


def _report(crawled: Crawled, details: Mapping[str, Any]) -> CrawlReport:
    return CrawlReport(
        images=crawled.images,
        captions=crawled.captions,
        sources=crawled.sources,
        quarantined=crawled.quarantined,
        seen=sum(summary.seen for summary in crawled.sources),
        ignored=sum(summary.ignored for summary in crawled.sources),
        corpus_fingerprint=corpus_fingerprint(crawled.images, crawled.captions),
        details=details,
    )


def _listing_rules(rules: str) -> str:
    """Return the rules of the cache of listings: which files are images depends on the extras."""
    return f"{rules} {sorted(image_extensions())}"


def corpus_fingerprint(images: ObjectRef, captions: ObjectRef) -> str:
    """Return the fingerprint of a corpus: the sha256 over those of its two tables."""
    identity = f"{_FINGERPRINT}\n{images.sha256}\n{captions.sha256}\n"
    return hashlib.sha256(identity.encode("ascii")).hexdigest()


def _refuse_idle_globs(sources: Sequence[SourceConfig], specs: Sequence[SourceSpec]) -> None:
    """Raise an error for globs that no source supports."""
    given = any(source.exclude or source.include for source in sources)
    if given and not any(registry.find(spec.kind).globs for spec in specs):
        raise UsageError(
            "`exclude` and `include` select files in a folder, but no source is a folder",
            "remove them",
        )


def _warn_of_lost_captions(tally: Tally, limit: float) -> None:
    lost = tally.notes[NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES]
    if lost and (not tally.captions or lost > limit * (lost + tally.captions)):
        get_logger("crawl").warning(
            "captions without a matching image are not used",
            source=tally.name,
            not_used=lost,
            used=tally.captions,
        )


def _warn_of_mixed_columns(names: Sequence[str]) -> None:
    if names:
        get_logger("crawl").warning(
            "columns with values of several types are stored as text: in `where`, use "
            "try_cast(COLUMN as DOUBLE)",
            columns=", ".join(names),
        )


@dataclass(frozen=True, slots=True)
class _Sink:
    """Receives the images of all sources."""

    spool: Spool
    stamps: Stamps
    listings: Listings
    videos: VideoProber
    rules: ReadRules
    forgotten: Forgotten


def _reader(spec: SourceSpec, rules: ReadRules, cluster: Joined | None) -> Reader:
    """Return who reads the images of a source."""
    threads = _REMOTE_READERS if is_remote(spec.where) else _READERS
    if cluster is not None and registry.find(spec.kind).spreads:
        return ClusterReader(cluster, rules, threads)
    return ThreadReader(rules, threads, remote=is_remote(spec.where))


def _read_source(
    events: Iterable[tuple[SourceEvent, Reading | None]],
    tally: Tally,
    sink: _Sink,
    total: int | None,
) -> None:
    with counter(total=total, label="crawl", unit="image") as progress:
        for event, found in events:
            match event:
                case SourceItem() if found is not None:
                    _take(event, found, tally, sink)
                    progress.update(1)
                case VectorItem():
                    _take_vector(event, tally, sink)
                    progress.update(1)
                case CaptionItem():
                    _take_caption(event, tally, sink)
                case Rejected():
                    tally.reject(event)
                case Ignored():
                    tally.ignore(event)
                case Note(kind, count):
                    tally.notes[kind] += count
                case Detail(name, values):
                    tally.details[name] = values
                case Expected(images) if total is None:
                    progress.total = (progress.total or 0) + images
                    progress.refresh()


def _without(forgotten: Forgotten, events: Iterable[SourceEvent]) -> Iterator[SourceEvent]:
    """Ignore rows with a forgotten id before reading them."""
    for event in events:
        match event:
            case SourceItem() | VectorItem() | Rejected() if forgotten.has_id(
                storable(event.image_id)
            ):
                yield Ignored(Skip.FORGOTTEN)
            case CaptionItem() if forgotten.has_id(storable(event.image_id)):
                continue
            case _:
                yield event


def _take(item: SourceItem, found: Reading, tally: Tally, sink: _Sink) -> None:
    """Add the rows of an item, or reject it with a reason."""
    if found.key:
        tally.read += not found.unchanged
        tally.unchanged += found.unchanged
        if sink.forgotten.has_key(found.key):
            sink.listings.keep_nothing()
            tally.ignore(Ignored(Skip.FORGOTTEN))
            return
    try:
        known = _known(item, found, tally, sink)
        rows = _frames(item, known, tally, sink) if item.video else [(item, known)]
    except ItemError as error:
        _reject(item, error, found.key, tally)
        return
    if item.stamp is not None and rows:
        sink.stamps.add(item.uri, item.stamp, known)
    for one, of_it in rows:
        _keep(one, of_it, tally, sink)


def _frames(
    item: SourceItem, known: Known, tally: Tally, sink: _Sink
) -> list[tuple[SourceItem, Known]]:
    """Yield the images of a video; the middle one gets the captions."""
    times = frame_times(float(str(known.fields[DURATION])), sink.rules.photos.video_interval)
    rows = []
    for number, time_s in enumerate(times):
        frame = replace(
            item,
            image_id=frame_uri(item.image_id, time_s),
            uri=frame_uri(item.uri, time_s),
            captions=item.captions if number == len(times) // 2 else (),
            metadata={**item.metadata, "time_s": time_s},
        )
        key = frame_key(known.key, time_s)
        if sink.forgotten.has_id(storable(frame.image_id)) or sink.forgotten.has_key(key):
            tally.ignore(Ignored(Skip.FORGOTTEN))
        else:
            rows.append((frame, replace(known, key=key)))
    return rows


def _keep(item: SourceItem, known: Known, tally: Tally, sink: _Sink) -> None:
    """Add the row and the captions of an image."""
    try:
        row = _row(item, known, tally.name, sink.rules.photos)
        kept = sink.spool.add_image(row, is_row=item.is_row)
    except ItemError as error:
        _reject(item, error, known.key, tally)
        return
    told = (text for text in photo_captions(known, sink.rules.photos) if text not in item.captions)
    captions = (*item.captions, *told)
    usable = list(usable_captions(captions))
    if empty := len(captions) - len(usable):
        tally.notes[NoteKind.EMPTY_CAPTIONS] += empty
    tally.captions += sink.spool.add_captions(kept, usable)
    if kept.is_new:
        tally.images += 1
    else:
        tally.ignore(Ignored(Skip.SAME_IMAGE))


def _take_vector(item: VectorItem, tally: Tally, sink: _Sink) -> None:
    """Add the row of an image that has a vector, or reject it with a reason."""
    if sink.forgotten.has_key(item.key):
        tally.ignore(Ignored(Skip.FORGOTTEN))
        return
    metadata = {column_name(storable(name)): value for name, value in item.metadata.items()}
    row = ImageRow(
        image_id=storable(item.image_id),
        key=item.key,
        source=tally.name,
        uri=storable(item.uri),
        split=storable(item.split),
        width=item.width,
        height=item.height,
        format=item.format,
        size_bytes=item.size_bytes,
        metadata=metadata,
    )
    try:
        kept = sink.spool.add_image(row)
    except ItemError as error:
        tally.reject(Rejected(item.image_id, item.uri, error.reason, error.detail), item.key)
        return
    if kept.is_new:
        tally.images += 1
    else:
        tally.ignore(Ignored(Skip.SAME_IMAGE))


def _take_caption(item: CaptionItem, tally: Tally, sink: _Sink) -> None:
    """Add a caption that has a vector to its image."""
    kept = sink.spool.find_image(storable(item.image_id))
    if kept is None:
        tally.notes[NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES] += 1
    else:
        tally.captions += sink.spool.add_captions(kept, [(0, item.text)], item.key)


def _reject(item: SourceItem, error: ItemError, key: str, tally: Tally) -> None:
    tally.reject(Rejected(item.image_id, item.uri, error.reason, error.detail), key)
    if item.captions:
        tally.notes[NoteKind.CAPTIONS_OF_REJECTED_IMAGES] += len(item.captions)


def _known(item: SourceItem, found: Reading, tally: Tally, sink: _Sink) -> Known:
    """Return the facts about an item.

    Raises:
        ItemError: it cannot be used.
    """
    if found.failure is not None:
        raise ItemError(*found.failure)
    known = found.known
    if known is None:
        seen = sink.videos.probe(item.video)
        size = item.stamp[0] if item.stamp else 0
        fields = {**sink.rules.photos.kept(seen.fields), DURATION: seen.duration_s}
        known = Known(found.key, seen.width, seen.height, seen.format, size, fields)
    if item.sidecar is None:
        return known
    if found.sidecar is None:
        tally.notes[NoteKind.UNREADABLE_SIDECARS] += 1
        return known
    return replace(known, sidecar=found.sidecar)


def _row(item: SourceItem, known: Known, source: str, photos: PhotoRules) -> ImageRow:
    return ImageRow(
        image_id=item.image_id,
        key=known.key,
        source=source,
        uri=item.uri,
        split=item.split,
        width=known.width,
        height=known.height,
        format=known.format,
        size_bytes=known.size_bytes,
        metadata=row_metadata(item, known, photos),
    )
