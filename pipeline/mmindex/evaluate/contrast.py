"""Compare the recall of two versions, usually of two models, on the same corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import NoInputError, UsageError
from mmindex.evaluate.directions import Direction
from mmindex.evaluate.paired import Change, most_changed, recall_changes
from mmindex.evaluate.stage import Measured, measure, settings_of
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot, open_snapshot, open_version

MOST_CHANGED: Final = 10
_DIGITS: Final = 20  # most digits of a version number
# The content of these images is their vector, which differs between models.
_VECTORS: Final = "embeddings/"


@dataclass(frozen=True, slots=True)
class Moved:
    """A query whose rank changed.

    Attributes:
        id: the id of the caption or image.
        here, there: the rank of its best correct answer with each model.
        place: its position among the queries of the direction.
    """

    id: str
    here: int
    there: int
    place: int


@dataclass(frozen=True, slots=True)
class DirectionContrast:
    """The changes in one direction.

    Attributes:
        queries: the number of queries.
        changes: recall@1, 5 and 10.
        better, worse: the queries that changed most, at most :data:`MOST_CHANGED` each.
    """

    queries: int
    changes: tuple[Change, ...]
    better: tuple[Moved, ...]
    worse: tuple[Moved, ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A version compared with another one.

    Attributes:
        store: the folder of the other store.
        version: the number of the other version.
        model: its model.
        text_to_image, image_to_text: the changes; differences are this version minus the other.
    """

    store: str
    version: int
    model: str
    text_to_image: DirectionContrast
    image_to_text: DirectionContrast

    @property
    def same_ranks(self) -> bool:
        """Whether every query has the same rank in both versions."""
        directions = (self.text_to_image, self.image_to_text)
        return not any(one.better or one.worse for one in directions)

    def record(self) -> dict[str, Any]:
        """Return the comparison as in JSON."""
        return {
            "store": self.store,
            "version": self.version,
            "model": self.model,
            "text_to_image": _record(self.text_to_image),
            "image_to_text": _record(self.image_to_text),
        }


def open_other(snapshot: Snapshot, where: str) -> Snapshot:
    """Open the version to compare with.

    Args:
        snapshot: this version.
        where: the number of a version of the same store, or the folder of a store.

    Raises:
        NoInputError: there is no such version or store, or it cannot be searched.
        UsageError: it is this version, or it has another corpus.
    """
    if where.isascii() and where.isdigit():
        if len(where) > _DIGITS:
            raise NoInputError(f"no version {where[:_DIGITS]}...", "run `mmindex versions`")
        other = open_version(snapshot.layout.root, int(where))
    else:
        other = open_snapshot(Path(where).expanduser())
    require_same_corpus(snapshot, other)
    return other


def require_same_corpus(here: Snapshot, there: Snapshot) -> None:
    """Check that two versions have the same images and captions in the same order.

    Raises:
        UsageError: they do not; the message names the difference.
    """
    tables = (("images", "image_id"), ("captions", "caption_id"))
    for name, column in tables:
        ours, theirs = (one.table(name, [column, "key"]) for one in (here, there))
        _require_same(name, ours[column], theirs[column])
        if name == "images":
            sources = here.table(name, ["source"])["source"]
            files = pc.invert(pc.starts_with(sources, _VECTORS))
            changed = pc.and_(files, pc.not_equal(ours["key"], theirs["key"]))
            _require_unchanged("images", ours[column], changed)
    texts = [one.table("captions", ["text"])["text"].cast(pa.binary()) for one in (here, there)]
    ids = here.table("captions", ["caption_id"])["caption_id"]
    _require_unchanged("captions", ids, pc.not_equal(*texts))


def _require_same(name: str, ours: Any, theirs: Any) -> None:
    ours, theirs = ours.cast(pa.binary()), theirs.cast(pa.binary())
    if ours.equals(theirs):
        return
    only_ours = ours.filter(pc.invert(pc.is_in(ours, value_set=theirs)))
    only_theirs = theirs.filter(pc.invert(pc.is_in(theirs, value_set=ours)))
    if not len(only_ours) and not len(only_theirs):
        raise UsageError(
            f"the two versions list their {name} in different orders",
            "build both from the same sources in the same order",
        )
    parts = [
        f"{_count(only, name)} only in {where} ({_shown(only[0])}{', ...' * (len(only) > 1)})"
        for only, where in ((only_ours, "this version"), (only_theirs, "the other"))
        if len(only)
    ]
    raise UsageError(
        f"the two versions have different corpora: {'; '.join(parts)}",
        "compare versions that were built from the same sources",
    )


def _require_unchanged(name: str, ids: Any, changed: Any) -> None:
    found = ids.cast(pa.binary()).filter(changed)
    if len(found):
        raise UsageError(
            f"the two versions have different corpora: {_count(found, name)} different "
            f"({_shown(found[0])}{', ...' * (len(found) > 1)})",
            "compare versions that were built from the same files",
        )


def _count(ids: Any, name: str) -> str:
    """Return ``1 image is`` or ``2 images are``."""
    return f"{len(ids):,} {name} are" if len(ids) != 1 else f"1 {name.removesuffix('s')} is"


def _shown(value: Any) -> str:
    return str(value.as_py().decode("utf-8", "replace"))[:100]


def contrast(snapshot: Snapshot, ours: Measured, other: Snapshot) -> Contrast:
    """Measure another version of the same corpus like this one, and compare them.

    Args:
        snapshot: this version.
        ours: its figures.
        other: the other version, see :func:`open_other`.

    Raises:
        NoInputError: the corpus has no captions.
        DataError: the other store is damaged.
    """
    config = settings_of(snapshot)
    theirs = measure(other, config)
    directions = []
    for name, column, ours_way, theirs_way in (
        ("captions", "caption_id", ours.text_to_image, theirs.text_to_image),
        ("images", "image_id", ours.image_to_text, theirs.image_to_text),
    ):
        if ours_way is None or theirs_way is None:
            raise NoInputError(
                "the corpus has no captions, so there is no recall to compare",
                "build from a source that has captions",
            )
        ways = (ours_way, theirs_way)
        directions.append(_direction(snapshot, name, column, ways, config.seed))
    return Contrast(
        store=str(other.layout.root),
        version=other.manifest.version,
        model=theirs.evaluation.model,
        text_to_image=directions[0],
        image_to_text=directions[1],
    )


def _direction(
    snapshot: Snapshot, name: str, column: str, ways: Sequence[Direction], seed: int
) -> DirectionContrast:
    # Samples of the same size have the same queries; otherwise, only queries in both are used.
    _, ours, theirs = np.intersect1d(ways[0].rows, ways[1].rows, return_indices=True)
    here, there = ways[0].ranks[ours], ways[1].ranks[theirs]
    better, worse = most_changed(here, there, ways[0].images[ours], MOST_CHANGED)
    shown = np.concatenate((better, worse))
    rows = ways[0].rows[ours[shown]]
    ascending = np.unique(rows)
    texts = contents(snapshot.take(name, [column], ascending)[column])
    names = [texts[place] for place in np.searchsorted(ascending, rows).tolist()]
    moved = [
        Moved(name, int(here[at]), int(there[at]), int(ours[at]))
        for name, at in zip(names, shown.tolist(), strict=True)
    ]
    changes = recall_changes(here, there, ways[0].images[ours], seed)
    return DirectionContrast(
        len(here), changes, tuple(moved[: len(better)]), tuple(moved[len(better) :])
    )


def _record(direction: DirectionContrast) -> dict[str, Any]:
    figures = {
        f"r@{change.k}": {
            "here": round(change.here, 4),
            "there": round(change.there, 4),
            "difference": round(change.difference, 4),
            "low": round(change.low, 4),
            "high": round(change.high, 4),
            "only_here": change.only_here,
            "only_there": change.only_there,
            "p": change.p,
        }
        for change in direction.changes
    }
    better, worse = (
        [{"id": one.id, "rank_here": one.here, "rank_there": one.there} for one in moved]
        for moved in (direction.better, direction.worse)
    )
    return {"queries": direction.queries, **figures, "better": better, "worse": worse}
