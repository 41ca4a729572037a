"""Data that the stages of a run share, and checks that stop a run although nothing failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmindex.cluster.join import Joined
from mmindex.core.config import Config
from mmindex.core.errors import DataError
from mmindex.core.records import QuarantineEntry
from mmindex.encode.cluster import ClusterWorker
from mmindex.encode.work import EncoderSource
from mmindex.runs.figures import Figures
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef, SourceSummary
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

MEANT = "if this is intended, pass `max_removed=1`"
QUARANTINE_FLOOR = 10  # a few bad files in a small folder do not stop a run


@dataclass(slots=True)
class Context:
    """The data that the stages of a run share.

    Attributes:
        layout, objects: the store.
        config: the run's settings.
        run_id: its name.
        parent: the published version.
        encoder: the model, once it is known.
        cluster: the cluster that this run has joined, or None.
        cluster_worker: encodes on its nodes in place of this process; None if this run does not.
        retry: retry items that earlier runs could not encode.
        figures: collects the stages' results.
    """

    layout: Layout
    objects: Objects
    config: Config
    run_id: str
    parent: Manifest | None
    encoder: EncoderSource | None = None
    cluster: Joined | None = None
    cluster_worker: ClusterWorker | None = None
    retry: bool = False
    figures: Figures = field(default_factory=Figures)

    def close(self) -> None:
        """Disconnect from the cluster, if there is one."""
        if self.cluster is not None:
            self.cluster.close()

    def snapshot(self, draft: Manifest) -> Snapshot:
        """Return a snapshot of a draft with the store's objects."""
        return Snapshot(self.objects, draft)


def quarantine_gate(
    sources: Sequence[SourceSummary], entries: Sequence[QuarantineEntry], share: float
) -> DataError | None:
    """Return an error if too many images or captions of a source, or of all sources, are unusable.

    Args:
        sources: the results of the sources, in order.
        entries: the excluded items.
        share: the share of items that can be unusable, 0 to 1; a few items are always allowed.
    """
    images = [entry for entry in entries if not entry.is_caption]
    captions = [entry for entry in entries if entry.is_caption]
    seen = [source.seen for source in sources]
    told = [source.captions for source in sources]
    return _too_many("items", sources, seen, images, share) or _too_many(
        "captions", sources, told, captions, share
    )


def _too_many(
    what: str,
    sources: Sequence[SourceSummary],
    seen: Sequence[int],
    entries: Sequence[QuarantineEntry],
    share: float,
) -> DataError | None:
    """Check each source, then all of them; ``seen`` is the number of items of each source."""
    for source, count in zip(sources, seen, strict=True):
        mine = [entry for entry in entries if entry.source == source.name]
        if error := _above(share, count, mine, f"{what} of {source.spec}"):
            return error
    return _above(share, sum(seen), entries, what)


def _above(
    share: float, seen: int, entries: Sequence[QuarantineEntry], what: str
) -> DataError | None:
    allowed = max(QUARANTINE_FLOOR, int(share * seen))
    if len(entries) <= allowed:
        return None
    reasons = Counter(str(entry.reason) for entry in entries).most_common()
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
    details = Counter(entry.detail for entry in entries if entry.reason == reasons[0][0])
    [(detail, alike)] = details.most_common(1)
    return DataError(
        f"{len(entries)} of {seen} {what} are unusable ({counts}); at most {allowed} are allowed",
        f"{alike} of them: {detail}; see `mmindex quarantine list`, "
        "or raise `max_quarantine` to build without them",
    )


def emptied_gate(
    before: Sequence[SourceSummary], after: Sequence[SourceSummary], share: float
) -> DataError | None:
    """Return an error if a source that had images or captions has none now, however few it had.

    A disk that is not mounted looks like an empty folder; a caption list whose names no longer
    match has no captions.

    Args:
        before, after: the results of each source in the last version, and now.
        share: the share that can disappear, 0 to 1; with 1, a source can become empty.
    """
    if share >= 1:
        return None
    had = {source.spec: source for source in before}
    for source in after:
        if (old := had.get(source.spec)) is None:
            continue
        if old.images and not source.images:
            return DataError(
                f"{source.spec} had {old.images} images in the last version and has none now",
                f"check whether it is unmounted or was moved; {MEANT}",
            )
        if old.captions and not source.captions:
            return DataError(
                f"{source.spec} had {old.captions} captions in the last version and has none now",
                f"check whether the names in its caption list still match the images; {MEANT}",
            )
    return None


def removal_gate(before: int, gone: int, share: float, where: str = "") -> DataError | None:
    """Return an error if more than ``share`` of the last version's images are gone.

    An unmounted folder must not empty the index.

    Args:
        before: number of images in the last version.
        gone: number of them that are missing now.
        share: the share that can disappear, 0 to 1.
        where: the source, for the message; empty for the whole corpus.
    """
    if gone <= share * before:
        return None
    of = f" of {where}" if where else ""
    return DataError(
        f"{gone} of the {before} images{of} in the last version are missing; at most "
        f"{int(share * before)} are allowed",
        f"check whether a source is unmounted or was moved; {MEANT}",
    )


def survivors(images: ObjectRef, captions: ObjectRef, kept_out: ObjectRef) -> tuple[ObjectRef, ...]:
    """Return the tables that search and evaluation read."""
    return images.named("images"), captions.named("captions"), kept_out.named("quarantine")


def after_change(draft: Manifest, **changes: Any) -> Manifest:
    """Return a draft without the later stages, which are no longer valid."""
    return msgspec.structs.replace(
        draft, indexes={}, evaluation=None, evaluation_inputs="", **changes
    )
