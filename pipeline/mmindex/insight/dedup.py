"""Near-duplicates: groups of images whose vectors are almost the same.

Candidates come from the index: it is searched deeper as long as neighbours are above the threshold.
Each candidate is then checked exactly (float64 cosine of the stored float16 vectors). Groups are
the connected components of the remaining pairs, so an image can be linked to its group through
others. Rows with the same bytes are grouped without a search.

With exact search, no pair is missed. With a quantised index, a pair is missed only if the index
does not return it as a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.search.columns import check_columns
from mmindex.search.near import (
    Int64,
    close_pairs,
    cosines,
    default_threshold,
    group_leaders,
    unit_rows,
)
from mmindex.search.searcher import Searcher
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot
from mmindex.store.vectors import Vectors

if TYPE_CHECKING:
    from mmindex.search.filters import Rows


@dataclass(frozen=True, slots=True)
class _Facts:
    """Columns of the images table."""

    image_id: str
    uri: str
    width: int
    height: int
    size_bytes: int
    across: str | None = None

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group.

    Attributes:
        similarity: cosine similarity with the image to keep.
        keep: whether this is the image to keep: the one with the most pixels, then the most bytes,
            then the first one.
        same: whether it has the same bytes as the image to keep.
        across: the value of the image in the column ``across``; None without such a column.
    """

    image_id: str
    uri: str
    width: int
    height: int
    size_bytes: int
    similarity: float
    keep: bool
    same: bool
    across: str | None = None

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


class KeptFor(StrEnum):
    """Why an image is the one to keep in its group."""

    PIXELS = "pixels"  # it has the most pixels
    BYTES = "bytes"  # others have the same number of pixels; its file is the largest of these
    ORDER = "order"  # others have equal pixels and bytes; it comes first in the table


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are near-duplicates of each other; the one to keep comes first."""

    members: tuple[Member, ...]

    @property
    def spare_bytes(self) -> int:
        """The total size of the images that are not kept."""
        return sum(member.size_bytes for member in self.members if not member.keep)

    @property
    def kept_for(self) -> KeptFor:
        """Why the first member is the one to keep."""
        kept, *others = self.members
        rivals = [one for one in others if one.pixels == kept.pixels]
        if not rivals:
            return KeptFor.PIXELS
        equal = any(one.size_bytes == kept.size_bytes for one in rivals)
        return KeptFor.ORDER if equal else KeptFor.BYTES


def near_duplicates(
    snapshot: Snapshot,
    threshold: float | None = None,
    rows: Rows | None = None,
    across: str | None = None,
) -> tuple[Group, ...]:
    """Find the groups; those that free the most bytes come first, then in table order.

    Time grows with the number of close pairs: n² for a corpus of near-copies of one image.

    Args:
        snapshot: the version.
        threshold: lowest cosine similarity of a linked pair; None: :func:`default_threshold`.
        rows: bool (images,): the images to compare; None: all.
        across: a column of the images: return only groups in which it has several values, such as
            ``split`` to find images in more than one split; None: all groups.

    Raises:
        UsageError: the threshold is not above 0 and at most 1, or there is no such column.
        NoInputError: there are no images to compare.
    """
    if threshold is None:
        threshold = default_threshold(snapshot.encoder)
    if not 0 < threshold <= 1:
        raise UsageError(
            f"`image_threshold={threshold:g}` is not above 0 and at most 1",
            "values near 1 find copies; lower values also find look-alikes",
        )
    if across is not None:
        check_columns(snapshot, [across])
    searcher, vectors = Searcher(snapshot, Modality.IMAGE), snapshot.vectors(Modality.IMAGE)
    ids = snapshot.row_ids(Modality.IMAGE)
    if rows is not None:
        ids = np.where(rows, ids, -1)
    wanted = np.unique(ids[ids >= 0])
    roots = _connected(searcher.rows, close_pairs(searcher, vectors, wanted, threshold))
    # Rows of a group have the same root; a single row is not a group.
    owner = np.where(ids >= 0, roots[ids], -1)
    sizes = np.bincount(owner[owner >= 0], minlength=searcher.rows)
    in_group = (owner >= 0) & (sizes[owner] > 1)
    groups = _groups(snapshot, np.flatnonzero(in_group), ids, owner, across)
    if across is None:
        return groups
    return tuple(group for group in groups if len({one.across for one in group.members}) > 1)


def near_leaders(
    snapshot: Snapshot, keys: Sequence[str], threshold: float | None = None
) -> list[str]:
    """Return, for each key, the first earlier key of a near-duplicate, or the key itself.

    Args:
        snapshot: the version.
        keys: keys of indexed images on one page; every pair is compared.
        threshold: as :func:`near_duplicates`.
    """
    if threshold is None:
        threshold = default_threshold(snapshot.encoder)
    there = snapshot.keys(Modality.IMAGE)
    places = pc.indices_nonzero(pc.is_in(there, value_set=pa.array(set(keys), there.type)))
    rows = places.to_numpy().astype(np.int64)
    units = unit_rows(snapshot.vectors(Modality.IMAGE).take(rows))
    row_of = {key: row for row, key in enumerate(there.take(places).to_pylist())}
    vectors = units[[row_of[key] for key in keys]]
    return [keys[one] for one in group_leaders(vectors, threshold).tolist()]


def close_to(snapshot: Snapshot, image_ids: Sequence[str], *, most: int) -> tuple[str, ...]:
    """Return ids of images that are near-duplicates of these (see :func:`default_threshold`).

    Args:
        snapshot: the version.
        image_ids: the images; unknown ones are skipped.
        most: the largest number of images to use.
    """
    names = np.array(contents(snapshot.table("images", ["image_id"])["image_id"]))
    ids = snapshot.row_ids(Modality.IMAGE)
    asked = np.isin(names, list(image_ids))
    wanted = np.unique(ids[asked])[:most]
    if not len(wanted):
        return ()
    searcher, vectors = Searcher(snapshot, Modality.IMAGE), snapshot.vectors(Modality.IMAGE)
    threshold = default_threshold(snapshot.encoder)
    pairs = [*close_pairs(searcher, vectors, wanted, threshold, whole=True)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(-cosines(vectors, left, right), kind="stable")
    rows_of = {one: np.flatnonzero(ids == one).tolist() for one in np.unique(right).tolist()}
    near = [row for one in right[order].tolist() for row in rows_of[one]]
    return tuple(dict.fromkeys(str(names[row]) for row in near if not asked[row]))


def _connected(n: int, pairs: Iterator[tuple[Int64, Int64]]) -> Int64:
    """Return the lowest id that each id is linked to, directly or indirectly: int64 (n,)."""
    parents = np.arange(n, dtype=np.int64)
    for left, right in pairs:
        # Each round connects every root to the lowest root linked with it, until nothing changes.
        first, second = parents[left], parents[right]
        while (apart := first != second).any():
            first, second = first[apart], second[apart]
            np.minimum.at(parents, np.maximum(first, second), np.minimum(first, second))
            while (higher := parents[parents]).tobytes() != parents.tobytes():
                parents = higher
            first, second = parents[first], parents[second]
    return parents


def _groups(
    snapshot: Snapshot, rows: Int64, ids: Int64, owner: Int64, across: str | None
) -> tuple[Group, ...]:
    """Return the members of each group; ``rows`` must be ascending."""
    if not len(rows):
        return ()
    vectors = snapshot.vectors(Modality.IMAGE)
    columns = ["image_id", "uri", "width", "height", "size_bytes"]
    data = snapshot.take("images", list(dict.fromkeys([*columns, across or "image_id"])), rows)
    values = [contents(data[column]) for column in columns]
    named = [None] * len(rows) if across is None else [str(one) for one in contents(data[across])]
    facts = [_Facts(*one) for one in zip(*values, named, strict=True)]
    order = np.argsort(owner[rows], kind="stable")
    starts = np.flatnonzero(np.diff(owner[rows][order], prepend=-1))
    parts = np.split(order, starts[1:])
    parts.sort(key=lambda part: int(rows[part[0]]))
    groups = [_group(vectors, [facts[n] for n in part.tolist()], ids[rows[part]]) for part in parts]
    return tuple(sorted(groups, key=lambda group: -group.spare_bytes))


def _group(vectors: Vectors, facts: list[_Facts], ids: Int64) -> Group:
    best = max(range(len(facts)), key=lambda n: (facts[n].pixels, facts[n].size_bytes, -n))
    found = cosines(vectors, np.full(len(ids), ids[best]), ids)
    members = [
        Member(
            image_id=fact.image_id,
            uri=fact.uri,
            width=fact.width,
            height=fact.height,
            size_bytes=fact.size_bytes,
            similarity=min(1.0, float(cosine)),
            keep=number == best,
            same=bool(ids[number] == ids[best]),
            across=fact.across,
        )
        for number, (fact, cosine) in enumerate(zip(facts, found, strict=True))
    ]
    return Group(tuple(sorted(members, key=lambda member: (not member.keep, -member.similarity))))
