"""The results of a search: hits, and the metadata of their images."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, overload

from mmindex.core.arguments import as_path
from mmindex.core.errors import MissingPackageError
from mmindex.core.records import all_weak

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from PIL.Image import Image

    from mmindex.core.records import Hit as Found
    from mmindex.insight.recommend import Used
    from mmindex.search.query import Answer
    from mmindex.store.snapshot import Snapshot

Side: TypeAlias = Literal["image", "text"]

_OWN: Final = ("image_id", "key", "uri")  # columns of the images table that are not metadata


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit.

    Attributes:
        rank: 1 for the best.
        score: cosine similarity with the query.
        id: the id of the image, or of the caption if captions were searched.
        uri: the location of the image: a path, or ``archive.zip!member``.
        caption: the caption; None if images were searched.
        image_id: the id of the image in both cases.
        copies: the number of near-duplicates that were left out; None without ``distinct``.
        probability: the probability that the hit is right, 0 to 1; None if the version has no
            calibration for such queries.
        weak: whether the hit is no better than those of queries without an answer; None likewise.
    """

    rank: int
    score: float
    id: str
    uri: str
    caption: str | None
    image_id: str
    copies: int | None
    probability: float | None
    weak: bool | None
    _details: Details = field(repr=False, compare=False)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the image: size, split, date, columns of the source.

        If the search had ``columns``, only these. The location (``lat``, ``lon``) is included only
        if the store was opened with ``with_location``.
        """
        return self._details.of(self.image_id)

    def image(self) -> Image:
        """Read and return the image, RGB and upright.

        Raises:
            NoInputError: the file no longer exists.
            DataError: it cannot be decoded.
        """
        from mmindex.search.named import open_image

        return open_image(self.uri)

    def _repr_html_(self) -> str:
        return _html([self], "")


@dataclass(frozen=True, slots=True)
class Shown:
    """The settings of a search for the display of its hits.

    Attributes:
        columns: the image columns to include; None: all metadata columns.
        with_location: whether location columns can be included.
        where: the condition, or None.
        min_score: the lowest score, or None.
        good: whether weak hits were left out.
    """

    columns: tuple[str, ...] | None = None
    with_location: bool = False
    where: str | None = None
    min_score: float | None = None
    good: bool = False


class Details:
    """The rows of the images table for the hits, read on first use."""

    def __init__(self, snapshot: Snapshot, image_ids: Sequence[str], shown: Shown) -> None:
        self.snapshot = snapshot
        self.shown = shown
        self._image_ids = image_ids

    @cached_property
    def table(self) -> pa.Table:
        """The rows, with ``image_id``."""
        from mmindex.search.columns import image_rows

        shown = self.shown
        return image_rows(
            self.snapshot, self._image_ids, shown.columns, with_location=shown.with_location
        )

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns."""
        if self.shown.columns is not None:
            return self.shown.columns
        return [name for name in self.table.column_names if name not in _OWN]

    @cached_property
    def _by_id(self) -> dict[str, Mapping[str, Any]]:
        from mmindex.store.objects import contents

        names = self.names
        columns = [contents(self.table[name]) for name in names]
        ids = contents(self.table["image_id"])
        return {
            image_id: MappingProxyType(dict(zip(names, values, strict=True)))
            for image_id, *values in zip(ids, *columns, strict=True)
        }

    def of(self, image_id: str) -> Mapping[str, Any]:
        """Return the columns of one image by name."""
        return self._by_id[image_id]


def _public(hit: Found, details: Details) -> Hit:
    return Hit(
        rank=hit.rank,
        score=hit.score,
        id=hit.id,
        uri=hit.uri,
        caption=hit.caption,
        image_id=hit.image_id,
        copies=hit.copies,
        probability=hit.probability,
        weak=hit.weak,
        _details=details,
    )


class Hits(Sequence[Hit]):
    """The hits of one query, best first. In a notebook, it displays the images."""

    def __init__(self, answer: Answer, details: Details) -> None:
        self._answer = answer
        self._details = details
        self._hits = tuple(_public(hit, details) for hit in answer.hits)

    @property
    def query(self) -> str:
        """The query in one line."""
        return self._answer.query

    @property
    def to(self) -> Side:
        """The side that was searched: ``image`` or ``text``."""
        return self._answer.to.value

    @property
    def version(self) -> int:
        """The version of the store."""
        return self._answer.version

    @property
    def nothing_good(self) -> bool:
        """Whether hits can be judged and there is no good one: all are weak, or left out."""
        left_out = self._details.shown.good and not self._hits and self.error is None
        return left_out or all_weak(self._hits)

    @property
    def error(self) -> str | None:
        """Why the query failed (see :meth:`Index.search_many`), or None."""
        return self._answer.error

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Hits: ...
    def __getitem__(self, place: int | slice) -> Hit | Hits:
        if isinstance(place, slice):
            return Hits(replace(self._answer, hits=self._answer.hits[place]), self._details)
        return self._hits[place]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hits):
            return NotImplemented
        return (self.to, self._hits) == (other.to, other._hits)

    __hash__ = None  # type: ignore[assignment]  # as lists are: compared by content

    def __repr__(self) -> str:
        lines = [f"<{len(self)} hits of {self.query!r}>"]
        lines += [f"{hit.rank:>4}  {hit.score:.4f}  {hit.caption or hit.id!r}" for hit in self[:10]]
        return "\n".join(lines + ([f"      and {len(self) - 10} more"] if len(self) > 10 else []))

    def to_arrow(self) -> pa.Table:
        """Return the hits as a table with one row per hit.

        The columns are ``rank``, ``score``, ``id``, ``uri``, ``caption`` and ``image_id``, then
        ``probability`` and ``weak`` if they are known, followed by the metadata columns. A metadata
        column with one of these names is called ``metadata.<name>``. Text that is not valid UTF-8
        (such as some file names) contains U+FFFD.
        """
        from mmindex.search.hits import hits_table

        return hits_table(self._hits, self._details.table, self._details.names)

    def to_pandas(self) -> pd.DataFrame:
        """Return :meth:`to_arrow` as a DataFrame.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise MissingPackageError(
                "to_pandas needs pandas", "pip install 'mmindex[pandas]', or use to_arrow()"
            )
        return self.to_arrow().to_pandas()

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the hits as an HTML page with images, like ``mmindex query --html``.

        Raises:
            CannotCreateError, PermissionDeniedError, StorageError: the file cannot be written.
            DataError: the store is damaged.
        """
        from mmindex.pages.gallery import Request, gallery_page
        from mmindex.pages.page import write_page

        page, shown = as_path(path, "path"), self._details.shown
        request = Request(shown.min_score, shown.where, page, shown.good)
        write_page(page, gallery_page(self._details.snapshot, self._answer, request))

    def _repr_html_(self) -> str:
        return _html(self, self.query)


class Recommended(Hits):
    """Recommended images, see :meth:`Index.recommend`.

    Attributes:
        used: what was used of the history: ``likes``, ``dislikes``, ``unknown`` and ``future``.
    """

    def __init__(self, answer: Answer, details: Details, used: Used) -> None:
        super().__init__(answer, details)
        self.used = used


def _html(hits: Sequence[Hit], query: str) -> str:
    from mmindex.pages.gallery import hits_fragment

    return hits_fragment(hits, query)
