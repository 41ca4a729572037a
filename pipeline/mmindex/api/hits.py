"""What a search returns: hits, and what the store knows about their images."""

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

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from PIL.Image import Image

    from mmindex.search.query import Answer
    from mmindex.store.snapshot import Snapshot

Side: TypeAlias = Literal["image", "text"]

_OWN: Final = ("image_id", "key", "uri")  # columns of the images table that are no metadata


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer.

    Attributes:
        rank: 1 for the best.
        score: cosine similarity with the query.
        id: the image's id, or the caption's where captions were searched.
        uri: where the image's bytes are: a path, or ``archive.zip!member``.
        caption: the caption found; None where images were searched.
        image_id: the image's id, in both cases.
        copies: how many near-duplicates were left out for it; None: the search was not `distinct`.
    """

    rank: int
    score: float
    id: str
    uri: str
    caption: str | None
    image_id: str
    copies: int | None
    _details: Details = field(repr=False, compare=False)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else the store knows about the image: size, split, date, the source's columns.

        Only the ``columns`` of the search, where it named some. Where the image was taken
        (``lat``, ``lon``) only if the store was opened with ``with_location``.
        """
        return self._details.of(self.image_id)

    def image(self) -> Image:
        """The image itself, RGB and upright, read from where it lies.

        Raises:
            NoInputError: it is not there any more.
            DataError: it cannot be decoded.
        """
        from mmindex.search.named import open_image

        return open_image(self.uri)

    def _repr_html_(self) -> str:
        return _html([self], "")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a search shows beside its hits.

    Attributes:
        columns: of the images; None: all that are metadata.
        with_location: whether those that tell a place may be among them.
        where: the condition that the hits fulfil; None: none.
        min_score: the least score asked for; None: any.
    """

    columns: tuple[str, ...] | None = None
    with_location: bool = False
    where: str | None = None
    min_score: float | None = None


class Details:
    """The rows of the images table that belong to some hits, read when first asked for."""

    def __init__(self, snapshot: Snapshot, image_ids: Sequence[str], shown: Shown) -> None:
        self.snapshot = snapshot
        self.shown = shown
        self._image_ids = image_ids

    @cached_property
    def table(self) -> pa.Table:
        """The rows, with their ``image_id``."""
        from mmindex.search.columns import image_rows

        shown = self.shown
        return image_rows(
            self.snapshot, self._image_ids, shown.columns, with_location=shown.with_location
        )

    @property
    def names(self) -> Sequence[str]:
        """The columns that are shown."""
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
        """The columns of one image, by name."""
        return self._by_id[image_id]


class Hits(Sequence[Hit]):
    """The answer to one query, best first. In a notebook it shows the pictures."""

    def __init__(self, answer: Answer, details: Details) -> None:
        self._answer = answer
        self._details = details
        self._hits = tuple(
            Hit(
                hit.rank, hit.score, hit.id, hit.uri, hit.caption, hit.image_id, hit.copies, details
            )
            for hit in answer.hits
        )

    @property
    def query(self) -> str:
        """The query in one line."""
        return self._answer.query

    @property
    def to(self) -> Side:
        """What was searched: ``image`` or ``text``."""
        return self._answer.to.value

    @property
    def version(self) -> int:
        """The store's version that answered."""
        return self._answer.version

    @property
    def error(self) -> str | None:
        """Why there is no answer, see :meth:`Index.search_many`; None where there is one."""
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
        """The hits as a table, one row each.

        Columns ``rank``, ``score``, ``id``, ``uri``, ``caption``, ``image_id``, then those of the
        metadata; one of these that has a name of the first six is called ``metadata.<name>``.
        Text that is not valid UTF-8 (file names may be anything) has U+FFFD in its place.
        """
        from mmindex.search.hits import hits_table

        return hits_table(self._hits, self._details.table, self._details.names)

    def to_pandas(self) -> pd.DataFrame:
        """:meth:`to_arrow` as a DataFrame.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise MissingPackageError(
                "to_pandas needs pandas", "pip install 'mmindex[pandas]', or use to_arrow()"
            )
        return self.to_arrow().to_pandas()

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the hits as a web page with their pictures, the page of ``mmindex query --html``.

        Raises:
            CannotCreateError, PermissionDeniedError, StorageError: the file cannot be written.
            DataError: the store is damaged.
        """
        from mmindex.pages.gallery import Request, gallery_page
        from mmindex.pages.page import write_page

        page, shown = as_path(path, "path"), self._details.shown
        request = Request(shown.min_score, shown.where, page)
        write_page(page, gallery_page(self._details.snapshot, self._answer, request))

    def _repr_html_(self) -> str:
        return _html(self, self.query)


def _html(hits: Sequence[Hit], query: str) -> str:
    from mmindex.pages.gallery import hits_fragment

    return hits_fragment(hits, query)
