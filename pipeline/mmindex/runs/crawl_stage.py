"""The crawl stage: read the sources, compare them with the last version, and check the changes.

The content of a source is unknown until it is read, so this stage has no plan: a dry run reads the
sources as well. Both share the functions for reading, checking and drafting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mmindex.core.config import SourceConfig
from mmindex.core.errors import DataError
from mmindex.core.progress import get_logger
from mmindex.crawl.metadata import PhotoRules
from mmindex.crawl.stage import CrawlReport, crawl
from mmindex.crawl.unchanged import Crawled
from mmindex.encode.shards import is_sound
from mmindex.media.kinds import remedy
from mmindex.runs.context import (
    Context,
    after_change,
    emptied_gate,
    quarantine_gate,
    removal_gate,
    survivors,
)
from mmindex.runs.diff import Changes, Tables, compare, removed_by_source
from mmindex.runs.figures import CrawlFigures
from mmindex.sources.naming import source_names
from mmindex.store import quarantine
from mmindex.store.forgotten import FORGOTTEN, read_forgotten
from mmindex.store.keys import count_distinct
from mmindex.store.manifest import Counts, Manifest


@dataclass(frozen=True, slots=True)
class Found:
    """A crawl and its changes.

    Attributes:
        report: the crawl's report.
        changes: compared with the published version; None if its tables are damaged.
        removed: for each source of the published version, how many images it had and how many of
            them are gone; empty if none is.
    """

    report: CrawlReport
    changes: Changes | None
    removed: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def crawl_stage(context: Context, draft: Manifest) -> Manifest:
    """List, hash and probe every image of the sources.

    Raises:
        DataError: too many items are unusable or missing, or the input is damaged.
        MmindexError: a source does not exist or cannot be downloaded.
    """
    found = crawl_sources(context, draft, context.config.source)
    for error in objections(context, found):
        raise error
    return crawled_draft(context, draft, found.report)


def crawled_draft(context: Context, draft: Manifest, report: CrawlReport) -> Manifest:
    """Return the draft with the crawl's tables; later stages stay valid if nothing changed."""
    objects = context.objects
    crawled = (
        report.images.named("crawl/images"),
        report.captions.named("crawl/captions"),
        quarantine.write_entries(objects, "crawl/quarantine", report.quarantined),
    )
    draft = msgspec.structs.replace(
        draft, corpus_fingerprint=report.corpus_fingerprint, sources=report.sources
    )
    if all(draft.find(ref.name) == ref for ref in crawled):
        return draft
    counts = Counts(
        seen=report.seen,
        indexed=report.images.rows,
        quarantined=len(report.quarantined),
        ignored=report.ignored,
        captions=report.captions.rows,
        unique_images=count_distinct(objects, report.images),
        unique_texts=count_distinct(objects, report.captions),
        reasons=quarantine.count_reasons(report.quarantined),
    )
    return after_change(
        draft,
        stages=("crawl",),
        counts=counts,
        objects=(
            *draft.named(FORGOTTEN),
            *crawled,
            *survivors(*crawled),
            *draft.named("embeddings/"),
        ),
    )


def crawl_sources(
    context: Context,
    draft: Manifest,
    sources: Sequence[SourceConfig],
    unread: Sequence[str] = (),
) -> Found:
    """Crawl, and compare with the published version.

    Args:
        context: the run's context.
        draft: the next version; it has the list of forgotten items.
        sources: the sources to read.
        unread: names of sources that are left out, also from the comparison.

    Raises:
        MmindexError: as :func:`mmindex.crawl.stage.crawl`.
    """
    config, objects = context.config, context.objects
    fetch = config.fetch
    if context.retry:  # also URLs that failed permanently
        fetch = fetch.model_copy(update={"retry_permanent_days": 0.0})
    report = crawl(
        objects,
        sources,
        config.limits,
        fetch,
        photos=PhotoRules.of(config.crawl),
        names=names_of_sources(context),
        rehash=config.crawl.rehash,
        forgotten=read_forgotten(context.snapshot(draft)),
        before=None if context.retry else _before(context, draft),
        cluster=context.cluster,
        scratch=Path(config.run.scratch).expanduser() if config.run.scratch else None,
    )
    context.figures.crawl = CrawlFigures.of(report)
    quarantine.write_ledger(context.layout, report.quarantined)
    changes = _changes(context, Tables(report.images, report.captions), unread)
    before = Tables.of(context.parent)
    if changes is None or before is None or not changes.images.removed:
        return Found(report, changes)
    return Found(report, changes, removed_by_source(objects, before.images, report.images))


def _before(context: Context, draft: Manifest) -> Crawled | None:
    """Return the result of the last crawl, if its objects are intact."""
    objects = context.objects
    refs = [draft.find(f"crawl/{name}") for name in ("images", "captions", "quarantine")]
    images, captions, entries = refs
    if images is None or captions is None or entries is None:
        return None
    if not all(is_sound(objects, ref) for ref in refs if ref is not None):
        return None
    quarantined = tuple(quarantine.read_entries(objects, entries))
    return Crawled(images.named("images"), captions.named("captions"), draft.sources, quarantined)


def names_of_sources(context: Context) -> dict[str, str]:
    """Return each source's name by its spec; sources that the store knows keep their names.

    Raises:
        MmindexError: a source does not exist or its settings are invalid.
    """
    config, parent = context.config, context.parent
    known = {source.spec: source.name for source in parent.sources} if parent is not None else {}
    return source_names([source.spec for source in config.source], config.fetch, known)


def _changes(context: Context, after: Tables, unread: Sequence[str]) -> Changes | None:
    before = Tables.of(context.parent)
    try:
        changes = compare(context.objects, before, after, unread)
    except DataError as error:
        # Rows can be missing, and it is unknown which ones, so this needs permission.
        fewer = before is not None and before.images.rows > after.images.rows
        if fewer and context.config.limits.max_removed < 1:
            hint = "to build without checking for missing images, pass `max_removed=1`"
            raise DataError(error.message, hint) from error
        get_logger("crawl").warning("the changes cannot be determined", why=error.message)
        return None
    context.figures.changes = changes
    return changes


def objections(context: Context, found: Found) -> list[DataError]:
    """Return the reasons why a build must not continue after this crawl; empty if it may."""
    report, changes, limits = found.report, found.changes, context.config.limits
    errors = [quarantine_gate(report.sources, report.quarantined, limits.max_quarantine)]
    if context.parent is not None:
        errors.append(emptied_gate(context.parent.sources, report.sources, limits.max_removed))
    if changes is not None:
        known = {source.name: source.spec for source in report.sources}
        for name, (before, gone) in found.removed.items():
            if name in known:  # a source that is no longer requested counts only in the total
                errors.append(removal_gate(before, gone, limits.max_removed, known[name]))
        errors.append(
            removal_gate(changes.images.before, changes.images.removed, limits.max_removed)
        )
    if not report.images.rows:
        specs = ", ".join(source.spec for source in context.config.source)
        hint = "see `mmindex quarantine list` for the unusable items and the reasons"
        if {".zip", ".tar"} & report.not_read.keys():
            hint = "pass an archive as a separate source, such as folder:photos.zip"
        elif way := remedy(report.not_read):
            hint = way
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in report.not_read.items())
        not_read = f"; not read: {kinds}" if kinds else ""
        errors.append(DataError(f"no usable image in {specs}{not_read}", hint))
    return [error for error in errors if error is not None]
