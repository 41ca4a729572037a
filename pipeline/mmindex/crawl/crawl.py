"""The crawl stage: read every image of every source once, hash it, look at its header."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from mmindex.config import LimitsConfig, SourceConfig
from mmindex.crawl.spec import SourceOptions, open_source, parse_spec, source_name
from mmindex.crawl.spool import Spool
from mmindex.crawl.tables import column_name
from mmindex.images import ImageLimits, probe
from mmindex.progress import counter
from mmindex.records import (
    CaptionRow,
    Ignored,
    ImageRow,
    ItemError,
    Note,
    QuarantineEntry,
    Reason,
    Rejected,
    SourceEvent,
    SourceItem,
)
from mmindex.store.manifest import ObjectRef, SourceSummary
from mmindex.store.objects import Objects

# Reading waits for the disk and sha256 releases the interpreter: a few threads hide both. Files
# held at once are bounded by the look-ahead times ``limits.max_bytes``.
_READERS: Final = 4
_LOOK_AHEAD: Final = 8
_FINGERPRINT: Final = "mmindex-corpus-1"


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """What the crawl wrote and counted: ``seen = images.rows + len(quarantined) + ignored``.

    Attributes:
        images: the ``images`` object, rows in source order.
        captions: the ``captions`` object, in the order of their images.
        sources: one summary for each source, in the order given.
        quarantined: rows kept out, in source order.
        seen: source rows.
        ignored: source rows passed over by rule.
        corpus_fingerprint: sha256 over the sha256 of the two objects: equal for equal content.
    """

    images: ObjectRef
    captions: ObjectRef
    sources: tuple[SourceSummary, ...]
    quarantined: tuple[QuarantineEntry, ...]
    seen: int
    ignored: int
    corpus_fingerprint: str


@dataclass(slots=True)
class _Tally:
    """Counts of one source while it is read."""

    spec: str
    name: str
    images: int = 0
    captions: int = 0
    ignored: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    quarantined: list[QuarantineEntry] = field(default_factory=list)

    def reject(self, rejected: Rejected, key: str = "") -> None:
        self.quarantined.append(
            QuarantineEntry(
                id=_storable(rejected.image_id),
                uri=_storable(rejected.uri),
                source=self.name,
                stage="crawl",
                reason=rejected.reason,
                detail=_storable(rejected.detail),
                key=key,
            )
        )

    def summary(self) -> SourceSummary:
        return SourceSummary(
            spec=self.spec,
            name=self.name,
            seen=self.images + len(self.quarantined) + self.ignored,
            images=self.images,
            captions=self.captions,
            quarantined=len(self.quarantined),
            ignored=self.ignored,
            notes=dict(sorted(self.notes.items())),
        )


def crawl(objects: Objects, sources: Sequence[SourceConfig], limits: LimitsConfig) -> CrawlReport:
    """Read all sources and write the tables ``images`` and ``captions``.

    Every file is read once: hashed and its header probed. The rows' order is that of the sources,
    and within one that of its own listing, so an unchanged corpus gives the same objects. Memory
    is bounded by a few files and a row group; an id that is taken goes to quarantine.

    Args:
        objects: where to write; the store's writer lock must be held.
        sources: what to read, in order.
        limits: what one image may cost.

    Raises:
        UsageError: a spec has no meaning.
        NoInputError: a source does not exist.
        DataError: a source's annotations are damaged, or they name too many columns.
        StorageError: the disk is full.
    """
    specs = [parse_spec(source.spec) for source in sources]
    image_limits = ImageLimits.of(limits)
    # Names first: a source that is not there shows before hours are spent on the others.
    tallies = [_Tally(str(spec), source_name(spec)) for spec in specs]
    with Spool(objects.layout) as spool:
        for source, spec, tally in zip(sources, specs, tallies, strict=True):
            options = SourceOptions(objects.layout, limits.max_bytes, source.all_files)
            _read_source(open_source(spec, options), tally, spool, image_limits)
        images, captions = spool.write_images(objects), spool.write_captions(objects)
    summaries = tuple(tally.summary() for tally in tallies)
    identity = f"{_FINGERPRINT}\n{images.sha256}\n{captions.sha256}\n"
    return CrawlReport(
        images=images,
        captions=captions,
        sources=summaries,
        quarantined=tuple(entry for tally in tallies for entry in tally.quarantined),
        seen=sum(summary.seen for summary in summaries),
        ignored=sum(summary.ignored for summary in summaries),
        corpus_fingerprint=hashlib.sha256(identity.encode("ascii")).hexdigest(),
    )


def _read_source(
    events: Iterable[SourceEvent], tally: _Tally, spool: Spool, limits: ImageLimits
) -> None:
    with counter(total=None, label="crawl", unit="image") as progress:
        for event, loaded in _load_ahead(events):
            match event:
                case SourceItem() if loaded is not None:
                    _take(event, loaded, tally, spool, limits)
                    progress.update(1)
                case Rejected():
                    tally.reject(event)
                case Ignored(why, count):
                    tally.ignored += count
                    tally.notes[f"ignored: {why}"] += count
                case Note(name, count):
                    tally.notes[name] += count


def _load_ahead(
    events: Iterable[SourceEvent],
) -> Iterator[tuple[SourceEvent, Future[_Loaded] | None]]:
    """Pass events on in order while a few threads read the files of those that follow."""
    waiting: deque[tuple[SourceEvent, Future[_Loaded] | None]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="crawl-read") as readers:
        try:
            for event in events:
                future = readers.submit(_load, event) if isinstance(event, SourceItem) else None
                waiting.append((event, future))
                if len(waiting) > _LOOK_AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            readers.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Loaded:
    data: bytes
    key: str


def _load(item: SourceItem) -> _Loaded:
    data = item.read()
    return _Loaded(data, hashlib.sha256(data).hexdigest())


def _take(
    item: SourceItem,
    loaded: Future[_Loaded],
    tally: _Tally,
    spool: Spool,
    limits: ImageLimits,
) -> None:
    """Keep one item's rows, or say why not."""
    key = ""
    try:
        file = loaded.result()
        key = file.key
        info = probe(file.data, limits)
        row = ImageRow(
            image_id=item.image_id,
            key=key,
            source=tally.name,
            uri=item.uri,
            split=item.split,
            width=info.width,
            height=info.height,
            format=info.format,
            size_bytes=len(file.data),
            metadata={column_name(name): value for name, value in item.metadata.items()},
        )
        if not spool.add_image(row):
            raise ItemError(Reason.DUPLICATE_ID, "another image has this id")
    except ItemError as error:
        tally.reject(Rejected(item.image_id, item.uri, error.reason, error.detail), key)
        if item.captions:
            tally.notes["captions_of_rejected_images"] += len(item.captions)
        return
    spool.add_captions(
        CaptionRow(f"{item.image_id}#{n}", caption_key(text), item.image_id, text)
        for n, text in enumerate(item.captions)
    )
    tally.images += 1
    tally.captions += len(item.captions)


def caption_key(text: str) -> str:
    """The key of a text: the sha256 of its UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: file names may carry bytes of no encoding."""
    return text.encode("utf-8", "replace").decode("utf-8")
