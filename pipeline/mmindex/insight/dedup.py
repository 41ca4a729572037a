"""Near-duplicates: groups of images whose vectors are almost the same.

Candidates come from the index, neighbour by neighbour, as deep as neighbours stay above the
threshold; each candidate is then checked exactly (float64 cosine of the stored float16 vectors).
Groups are the connected parts of what remains, so an image may be linked to its group through
others. Rows with the same bytes belong together without any search.

With exact search no pair is missed; with a quantised index pairs are missed only where it does not
list such close neighbours among its candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.core.model_names import EMBEDDED
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import EncoderInfo
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot
from mmindex.store.vectors import Vectors

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# A starting point, not a law: what separates copies from look-alikes depends on the model.
_THRESHOLD: Final = 0.96
# Measured (benchmarks/bench_insight.py): with the embedded model nearly all copies that were made
# smaller or recompressed lie above, as do 21 of 2,000 different scenes (at 0.96: 48), and none of
# 159 photographs.
_THRESHOLD_EMBEDDED: Final = 0.98
_FIRST_DEPTH: Final = 16
_BLOCK_ROWS: Final = 1_024
# Answers held at once: 4 Mi pairs of float32 score and int64 id are 48 MiB.
_ANSWERS: Final = 1 << 22
# The search works with the unrounded query on one side: its score may be off by this much.
_SLACK: Final = 2e-3


@dataclass(frozen=True, slots=True)
class _Facts:
    """Columns of the images table."""

    image_id: str
    uri: str
    width: int
    height: int
    size_bytes: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group.

    Attributes:
        similarity: cosine similarity with the image to keep.
        keep: whether this is the one to keep: the largest in pixels, then in bytes, then the first.
        same: whether its bytes are those of the image to keep.
    """

    image_id: str
    uri: str
    width: int
    height: int
    size_bytes: int
    similarity: float
    keep: bool
    same: bool

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


class KeptFor(StrEnum):
    """What sets the image to keep apart from the others of its group."""

    PIXELS = "pixels"  # it has the most
    BYTES = "bytes"  # others have as many pixels; its file is the largest of these
    ORDER = "order"  # others are as large in both; it comes first in the table


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are near-duplicates of each other; the one to keep comes first."""

    members: tuple[Member, ...]

    @property
    def spare_bytes(self) -> int:
        """What the images that are not kept take."""
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


def default_threshold(encoder: EncoderInfo) -> float:
    """The least similarity of a linked pair where nobody says any."""
    return _THRESHOLD_EMBEDDED if encoder.model == EMBEDDED else _THRESHOLD


def near_duplicates(
    snapshot: Snapshot, threshold: float | None = None, rows: Rows | None = None
) -> tuple[Group, ...]:
    """Find the groups: first what frees most bytes, then in the table's order.

    Time grows with the number of close pairs: a corpus of near-copies of one image costs n².

    Args:
        snapshot: the version.
        threshold: least cosine similarity of a linked pair; None: :func:`default_threshold`.
        rows: bool (images,): look at these only; None: all.

    Raises:
        UsageError: the threshold is not above 0 and at most 1.
        NoInputError: there are no images to compare.
    """
    if threshold is None:
        threshold = default_threshold(snapshot.encoder)
    if not 0 < threshold <= 1:
        raise UsageError(
            f"`image_threshold={threshold:g}` is not above 0 and at most 1",
            "values near 1 find copies; lower values also find look-alikes",
        )
    searcher, vectors = Searcher(snapshot, Modality.IMAGE), snapshot.vectors(Modality.IMAGE)
    ids = snapshot.row_ids(Modality.IMAGE)
    if rows is not None:
        ids = np.where(rows, ids, -1)
    wanted = np.unique(ids[ids >= 0])
    roots = _connected(searcher.rows, _close_pairs(searcher, vectors, wanted, threshold))
    # Rows of one group have one root; a row alone is not a group.
    owner = np.where(ids >= 0, roots[ids], -1)
    sizes = np.bincount(owner[owner >= 0], minlength=searcher.rows)
    in_group = (owner >= 0) & (sizes[owner] > 1)
    return _groups(snapshot, np.flatnonzero(in_group), ids, owner)


def near_leaders(
    snapshot: Snapshot, keys: Sequence[str], threshold: float | None = None
) -> list[str]:
    """For each of some images' keys the first before it that is almost the same, or itself.

    Args:
        snapshot: the version.
        keys: of images in the index; those of one page, every pair is compared.
        threshold: as :func:`near_duplicates`.
    """
    if threshold is None:
        threshold = default_threshold(snapshot.encoder)
    there = snapshot.keys(Modality.IMAGE)
    places = pc.indices_nonzero(pc.is_in(there, value_set=pa.array(set(keys), there.type)))
    rows = places.to_numpy().astype(np.int64)
    units = _unit(snapshot.vectors(Modality.IMAGE).take(rows))
    row_of = {key: row for row, key in enumerate(there.take(places).to_pylist())}
    vectors = units[[row_of[key] for key in keys]]
    near = vectors @ vectors.T >= threshold
    leaders: list[int] = []
    for place in range(len(keys)):
        leaders.append(next((one for one in leaders if leaders[one] == one and near[one, place]),
                            place))  # fmt: skip
    return [keys[one] for one in leaders]


def close_to(snapshot: Snapshot, image_ids: Sequence[str], *, most: int) -> tuple[str, ...]:
    """Ids of other images at least :func:`default_threshold` similar to these, nearest first.

    Args:
        snapshot: the version.
        image_ids: images to look around; unknown ones are passed over.
        most: how many of them are looked at.
    """
    names = np.array(contents(snapshot.table("images", ["image_id"])["image_id"]))
    ids = snapshot.row_ids(Modality.IMAGE)
    asked = np.isin(names, list(image_ids))
    wanted = np.unique(ids[asked])[:most]
    if not len(wanted):
        return ()
    searcher, vectors = Searcher(snapshot, Modality.IMAGE), snapshot.vectors(Modality.IMAGE)
    threshold = default_threshold(snapshot.encoder)
    pairs = [*_close_pairs(searcher, vectors, wanted, threshold, whole=True)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(-_cosines(vectors, left, right), kind="stable")
    rows_of = {one: np.flatnonzero(ids == one).tolist() for one in np.unique(right).tolist()}
    near = [row for one in right[order].tolist() for row in rows_of[one]]
    return tuple(dict.fromkeys(str(names[row]) for row in near if not asked[row]))


def _close_pairs(
    searcher: Searcher, vectors: Vectors, wanted: Int64, threshold: float, *, whole: bool = False
) -> Iterator[tuple[Int64, Int64]]:
    """Pairs of ids with at least ``threshold``, as two arrays at a time.

    Of each of ``wanted`` with another of them, or, with ``whole``, with any id of the index.
    """
    some = None if whole or len(wanted) == searcher.n else wanted
    most = searcher.n if whole else len(wanted)
    for start in range(0, len(wanted), _BLOCK_ROWS):
        open_ids = wanted[start : start + _BLOCK_ROWS]
        depth = min(_FIRST_DEPTH, most)
        while len(open_ids):
            again = []
            step = max(1, _ANSWERS // depth)
            for first in range(0, len(open_ids), step):
                asked = open_ids[first : first + step]
                queries = _unit(vectors.take(asked)).astype(np.float32)
                scores, found = searcher.search(queries, depth, some)
                near = (found >= 0) & (scores >= threshold - _SLACK)
                left, right = np.repeat(asked, near.sum(axis=1)), found[near]
                other = left != right
                yield _checked(vectors, left[other], right[other], threshold)
                # All that came back is close: there may be more behind it.
                again.append(asked[near.all(axis=1)])
            open_ids = np.concatenate(again) if depth < most else open_ids[:0]
            depth = min(depth * 4, most)


def _checked(vectors: Vectors, left: Int64, right: Int64, threshold: float) -> tuple[Int64, Int64]:
    """Those pairs whose exact cosine similarity reaches the threshold."""
    close = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        close[part] = _cosines(vectors, left[part], right[part]) >= threshold
    return left[close], right[close]


def _cosines(vectors: Vectors, left: Int64, right: Int64) -> Float64:
    products = _unit(vectors.take(left)) * _unit(vectors.take(right))
    cosines: Float64 = products.sum(axis=1)
    return cosines


def _unit(rows: NDArray[np.float16]) -> Float64:
    """float16 (n, dim) as float64 of length 1; storing them changed it by some 1e-4."""
    wide = rows.astype(np.float64)
    unit: Float64 = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _connected(n: int, pairs: Iterator[tuple[Int64, Int64]]) -> Int64:
    """The least id that each id is linked to, over any number of steps: int64 (n,)."""
    parents = np.arange(n, dtype=np.int64)
    for left, right in pairs:
        # Each round hooks every root to the least root it is linked with, until all are linked.
        first, second = parents[left], parents[right]
        while (apart := first != second).any():
            first, second = first[apart], second[apart]
            np.minimum.at(parents, np.maximum(first, second), np.minimum(first, second))
            while (higher := parents[parents]).tobytes() != parents.tobytes():
                parents = higher
            first, second = parents[first], parents[second]
    return parents


def _groups(snapshot: Snapshot, rows: Int64, ids: Int64, owner: Int64) -> tuple[Group, ...]:
    """Name the members of each group; ``rows`` ascend."""
    if not len(rows):
        return ()
    vectors = snapshot.vectors(Modality.IMAGE)
    columns = ["image_id", "uri", "width", "height", "size_bytes"]
    data = snapshot.take("images", columns, rows)
    facts = [_Facts(*values) for values in zip(*(contents(data[c]) for c in columns), strict=True)]
    order = np.argsort(owner[rows], kind="stable")
    starts = np.flatnonzero(np.diff(owner[rows][order], prepend=-1))
    parts = np.split(order, starts[1:])
    parts.sort(key=lambda part: int(rows[part[0]]))
    groups = [_group(vectors, [facts[n] for n in part.tolist()], ids[rows[part]]) for part in parts]
    return tuple(sorted(groups, key=lambda group: -group.spare_bytes))


def _group(vectors: Vectors, facts: list[_Facts], ids: Int64) -> Group:
    best = max(range(len(facts)), key=lambda n: (facts[n].pixels, facts[n].size_bytes, -n))
    cosines = _cosines(vectors, np.full(len(ids), ids[best]), ids)
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
        )
        for number, (fact, cosine) in enumerate(zip(facts, cosines, strict=True))
    ]
    return Group(tuple(sorted(members, key=lambda member: (not member.keep, -member.similarity))))
