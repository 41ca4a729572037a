"""The Python API: open a store, search it, take its vectors out, build one.

Everything here is for programs: results are returned, errors are raised
(:mod:`mmindex.core.errors`), log events go to ``logging`` and nothing is printed.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmindex.core.arguments import as_count, as_path, expect, expect_several
from mmindex.core.errors import DataError, MissingPackageError, UsageError
from mmindex.core.modality import Modality
from mmindex.core.system import calm_openmp

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from PIL.Image import Image

    from mmindex.evaluate.evaluation import Evaluation
    from mmindex.runs.run import RunSummary
    from mmindex.search.columns import Order
    from mmindex.search.given import Picture
    from mmindex.search.hits import Limit
    from mmindex.search.query import Answer, Session
    from mmindex.store.snapshot import Snapshot

Side: TypeAlias = Literal["image", "text"]

_ROWS: Final = 65_536  # of vectors that iter_vectors yields at once: 64 MiB at 512 dimensions
_CONDITIONS: Final = 8  # conditions whose matching rows are kept, 9 bytes a row
_OWN: Final = ("image_id", "key", "uri")  # columns of the images table that are no metadata
_BATCH: Final = 256  # texts searched together


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
    """

    rank: int
    score: float
    id: str
    uri: str
    caption: str | None
    image_id: str
    _details: _Details = field(repr=False, compare=False)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else the store knows about the image: size, split, date, the source's columns.

        Where it was taken (``lat``, ``lon``) only if the store was opened with ``with_location``.
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


class _Details:
    """The rows of the images table that belong to some hits, read when first asked for."""

    def __init__(
        self, snapshot: Snapshot, image_ids: Sequence[str], *, with_location: bool
    ) -> None:
        self._snapshot = snapshot
        self._image_ids = image_ids
        self._with_location = with_location

    @cached_property
    def table(self) -> pa.Table:
        from mmindex.search.columns import image_rows

        return image_rows(self._snapshot, self._image_ids, with_location=self._with_location)

    @cached_property
    def _by_id(self) -> dict[str, Mapping[str, Any]]:
        from mmindex.store.objects import contents

        names = [name for name in self.table.column_names if name not in _OWN]
        columns = [contents(self.table[name]) for name in names]
        ids = contents(self.table["image_id"])
        return {
            image_id: MappingProxyType(dict(zip(names, values, strict=True)))
            for image_id, *values in zip(ids, *columns, strict=True)
        }

    def of(self, image_id: str) -> Mapping[str, Any]:
        return self._by_id[image_id]


class Hits(Sequence[Hit]):
    """The answer to one query, best first. In a notebook it shows the pictures.

    Attributes:
        query: the query in one line.
        to: ``image`` or ``text``: what was searched.
        version: the store's version that answered.
    """

    def __init__(self, query: str, to: Side, version: int, hits: Sequence[Hit]) -> None:
        self.query = query
        self.to = to
        self.version = version
        self._hits = tuple(hits)

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Hits: ...
    def __getitem__(self, place: int | slice) -> Hit | Hits:
        if isinstance(place, slice):
            return Hits(self.query, self.to, self.version, self._hits[place])
        return self._hits[place]

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

        details = self._hits[0]._details if self._hits else None
        return hits_table(self._hits, None if details is None else details.table, _OWN)

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

    def _repr_html_(self) -> str:
        return _html(self, self.query)


class Index:
    """The published version of a store, open for search; made by :func:`open`.

    It stays at that version while others publish newer ones, and keeps it from being collected.
    All methods may be called from several threads. Use it as a context manager, or call
    :meth:`close`, to let go of the model; hits can be used afterwards.

    Attributes:
        path: the store's folder.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, device: str = "auto", with_location: bool = False
    ) -> None:
        from mmindex.search.query import open_session

        expect(device, str, "device", "a str")
        self._with_location = expect(with_location, bool, "with_location", "a bool")
        self.path = as_path(path, "path")
        self._open: Session | None = open_session(self.path, device)
        self._filtered: OrderedDict[str, Session] = OrderedDict()
        self._lock = RLock()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model and of the version; safe to call twice."""
        with self._lock:
            session, self._open = self._open, None
            self._filtered.clear()
        if session is not None:
            session.vectorizer.close()

    def __len__(self) -> int:
        """How many images can be found."""
        return self._snapshot.manifest.counts.indexed

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        if self._open is None:
            return f"<mmindex.Index of {str(self.path)!r}, closed>"
        return (
            f"<mmindex.Index of {str(self.path)!r}, version {self.version}: "
            f"{len(self):,} images, {self.captions:,} captions, {self.model}>"
        )

    @property
    def version(self) -> int:
        """The version that is open."""
        return self._snapshot.manifest.version

    @property
    def captions(self) -> int:
        """How many captions can be found."""
        return self._snapshot.manifest.counts.captions

    @property
    def model(self) -> str:
        """The model that made the vectors, and its weights."""
        encoder = self._snapshot.encoder
        return f"{encoder.model} {encoder.pretrained}".strip()

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._snapshot.encoder.dim

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that ``where`` and ``sort`` can name."""
        with self._snapshot.open_parquet("images") as file:
            return tuple(file.schema_arrow.names)

    def search(
        self,
        text: str | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        vector: ArrayLike | None = None,
        plus: Picture | Sequence[Picture] | None = None,
        minus: Picture | Sequence[Picture] | None = None,
        weights: Sequence[float] | None = None,
        others: bool = False,
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        sort: str | None = None,
        to: Side = "image",
    ) -> Hits:
        """Find images or captions by a text, pictures, a vector, or several of them together.

        Args:
            text: what to look for.
            image: a picture like those wanted, or several: a file, the uri or id of an image of
                the corpus, an opened picture (PIL), or an array, uint8 (h, w, 3) or (h, w).
            vector: a query made elsewhere, such as by :meth:`embed`: (dim,), of any length.
            plus: also wanted. Of a str, an existing file and an id or uri of the corpus is a
                picture, everything else a text; ``text:...`` and ``image:...`` say which.
            minus: not wanted; otherwise as ``plus``.
            weights: how much each part counts: the text, each image, the vector, each ``plus``,
                then each ``minus`` (those may be left out). By default wanted parts count alike,
                and unwanted ones together a quarter as much.
            others: leave out the pictures asked with themselves.
            k: hits wanted.
            where: an SQL condition on the images' columns, such as ``width >= 640``.
            min_score: leave out hits with a lower cosine similarity, -1 to 1.
            sort: put the ``k`` hits into the order of a column of the images, such as ``taken``
                or ``taken:desc``; those without a value come last. Ranks stay those of similarity.
            to: what to find: ``image``, or ``text`` for captions.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: nothing is asked, an argument is out of range, ``where`` is no condition,
                ``sort`` names no column.
            NoInputError: there is no such file, uri or id, or no captions to search.
            DataError: a picture cannot be decoded, or the store is damaged.
            ModelMismatchError: the model is no longer the one that made the index, or ``vector``
                has other dimensions.
        """
        from mmindex.search.given import (
            as_limit,
            as_side,
            as_weights,
            either_part,
            picture_part,
            several,
            text_part,
            unit_vector,
        )
        from mmindex.search.parts import Part, Question

        session, side, limit = self._session(where), as_side(to), as_limit(k, min_score)
        wanted = [] if text is None else [text_part(text)]
        wanted += [picture_part(one, "image") for one in several(image)]
        if vector is not None:
            wanted.append(Part(Modality.IMAGE, "a vector", unit_vector(vector, self.dim)))
        wanted += [either_part(one, "plus", session.snapshot) for one in several(plus)]
        unwanted = [either_part(one, "minus", session.snapshot) for one in several(minus)]
        if not wanted:
            raise UsageError("nothing is asked", "search with a text, `image`, `vector` or `plus`")
        question = Question(
            tuple(wanted),
            tuple(unwanted),
            as_weights(weights),
            expect(others, bool, "others", "a bool"),
        )
        order = self._order(sort)
        return self._hits(session.snapshot, session.ask(question, side, limit), order)

    def search_many(
        self,
        texts: Iterable[str],
        *,
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        sort: str | None = None,
        to: Side = "image",
    ) -> Iterator[Hits]:
        """:meth:`search` for many texts, faster than one by one: one answer each, in order.

        Raises:
            TypeError, UsageError, NoInputError, DataError, ModelMismatchError: as :meth:`search`;
                for a text when its turn comes.
        """
        from mmindex.search.given import as_limit, as_side

        expect_several(texts, "texts")
        session, side, limit = self._session(where), as_side(to), as_limit(k, min_score)
        session.snapshot.index(side)
        return self._many(iter(texts), session, side, limit, self._order(sort))

    def _many(
        self,
        texts: Iterator[str],
        session: Session,
        side: Modality,
        limit: Limit,
        order: Order | None,
    ) -> Iterator[Hits]:
        from mmindex.search.given import check_texts

        while batch := [text for _, text in zip(range(_BATCH), texts, strict=False)]:
            check_texts(batch)
            for answer in session.texts(batch, side, limit):
                if answer.error is not None:
                    raise DataError(f"{answer.query[:80]!r}: {answer.error}")
                yield self._hits(session.snapshot, answer, order)

    def _order(self, sort: str | None) -> Order | None:
        from mmindex.search.columns import read_order

        if sort is None:
            return None
        return read_order(self._snapshot, expect(sort, str, "sort", "a str"))

    def _hits(self, snapshot: Snapshot, answer: Answer, order: Order | None) -> Hits:
        from mmindex.search.columns import sorted_hits

        hits = answer.hits if order is None else sorted_hits(snapshot, answer.hits, order)
        details = _Details(
            snapshot, [hit.image_id for hit in hits], with_location=self._with_location
        )
        found = [
            Hit(hit.rank, hit.score, hit.id, hit.uri, hit.caption, hit.image_id, details)
            for hit in hits
        ]
        return Hits(answer.query, answer.to.value, answer.version, found)

    def embed(
        self,
        *,
        texts: Sequence[str] | None = None,
        images: Sequence[Picture] | None = None,
    ) -> NDArray[np.float32]:
        """The vectors of texts or of images, by the model that made the index.

        Args:
            texts: any number of texts.
            images: any number of pictures, see :meth:`search`. Those of the corpus are not
                encoded again.

        Returns:
            float32 (n, dim), unit length, in the order given.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: neither or both are given, or a text is empty.
            NoInputError, DataError, ModelMismatchError: as :meth:`search`.
        """
        from mmindex.search.given import check_texts, picture_part

        if (texts is None) == (images is None):
            raise UsageError("embed takes texts or images, one of the two", "embed(texts=[...])")
        vectorizer = self._session(None).vectorizer
        if texts is not None:
            expect_several(texts, "texts")
            texts = list(texts)
            check_texts(texts)
            return vectorizer.texts(texts) if texts else np.empty((0, self.dim), np.float32)
        expect_several(images, "images")
        parts = [picture_part(one, "images") for one in images or ()]
        out = np.empty((len(parts), self.dim), dtype=np.float32)
        given = [part.given for part in parts if part.given is not None]
        opened = iter(vectorizer.images(given) if given else ())  # type: ignore[arg-type]  # pictures
        named = vectorizer.pictures([part.value for part in parts if part.given is None])
        for row, part in enumerate(parts):
            found = next(named) if part.given is None else next(opened)
            if isinstance(found, Exception):
                raise found
            out[row] = found if isinstance(found, np.ndarray) else found.vector
        return out

    def vectors(self, side: Side = "image") -> tuple[NDArray[np.object_], NDArray[np.float16]]:
        """All vectors of the images or of the captions.

        Args:
            side: ``image`` or ``text``.

        Returns:
            ids, object (n,) of str, and vectors, float16 (n, dim), unit length up to rounding,
            read-only: a view of the store's file where one segment holds them all, else a copy.
            There is one row for each distinct picture or text, under the first id that it has.

        Raises:
            NoInputError: there are none.
            DataError: the store is damaged.
        """
        from mmindex.search.export import named_vectors
        from mmindex.search.given import as_side

        return named_vectors(self._snapshot, as_side(side, "side"))

    def iter_vectors(
        self, side: Side = "image", *, rows: int = _ROWS
    ) -> Iterator[tuple[NDArray[np.object_], NDArray[np.float16]]]:
        """:meth:`vectors` in parts of at most ``rows`` rows, in memory that does not grow.

        Raises:
            NoInputError, DataError: as :meth:`vectors`.
            UsageError: ``rows`` is below 1.
        """
        from mmindex.search.export import iter_named_vectors
        from mmindex.search.given import as_side

        count = as_count(rows, "rows")
        modality = as_side(side, "side")
        self._snapshot.index(modality)
        return iter_named_vectors(self._snapshot, modality, count)

    def evaluate(self) -> Evaluation:
        """Measure recall@K both ways, exactly and through the index; nothing is written.

        Returns:
            the figures of ``mmindex evaluate --format json``, percentages from 0 to 100:
            ``evaluation.text_to_image.r1`` and so on.

        Raises:
            DataError: the store is damaged.
        """
        from mmindex.core.config import EvaluateConfig
        from mmindex.evaluate.stage import evaluate

        config = EvaluateConfig.model_validate(self._snapshot.manifest.config.get("evaluate", {}))
        return evaluate(self._snapshot, config)

    @property
    def _snapshot(self) -> Snapshot:
        return self._session(None).snapshot

    def _session(self, where: str | None) -> Session:
        """The session that answers under a condition."""
        if where is not None:
            expect(where, str, "where", "a str")
        with self._lock:
            if self._open is None:
                raise UsageError("the index is closed", "open it again with mmindex.open")
            if where is None:
                return self._open
            session = self._filtered.pop(where, None) or self._open.filtered(where)
            self._filtered[where] = session
            if len(self._filtered) > _CONDITIONS:
                self._filtered.popitem(last=False)
            return session


def open(  # mmindex.open
    path: str | os.PathLike[str], *, device: str = "auto", with_location: bool = False
) -> Index:
    """Open the published version of a store for search.

    Args:
        path: the store's folder.
        device: where the model runs, should a query need it: ``auto``, ``cpu``, ``cuda:0`` ...
        with_location: hits also tell where images were taken: ``lat`` and ``lon`` in
            :attr:`Hit.metadata` and :meth:`Hits.to_arrow`. ``where`` may always use them.

    Raises:
        TypeError: an argument has the wrong type.
        NoInputError: there is no store, nothing published, or a stage that search needs has not
            run; the message names it.
        DataError: the store is damaged.
        PermissionDeniedError, StorageError: the operating system refuses.
    """
    calm_openmp()
    return Index(path, device=device, with_location=with_location)


def build(
    store: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]] | None = None,
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    fresh_settings: bool = False,
    progress: bool = False,
    **settings: Any,
) -> RunSummary:
    """Crawl, encode, index, evaluate and publish.

    What is there already is used again: unchanged pictures are not encoded, and where nothing has
    changed nothing is published. Decode workers are processes of their own; a script needs no
    ``if __name__ == "__main__"`` for them.

    Args:
        store: the store's folder; made where it does not exist.
        sources: what to index, each ``KIND:WHERE``, such as ``folder:~/Pictures``,
            ``coco:val2017``, ``scenes:2000``; a Path is a folder of pictures. None: what the store
            was built from; in a new store, drawn scenes.
        model: which model encodes; None: that of the store, or the default for the sources.
        config: a TOML file with settings; arguments win over it.
        fresh_settings: start from the defaults, not from the settings that the store remembers.
        progress: draw progress bars on stderr where a terminal watches.
        **settings: any setting of the configuration file by its own name (``batch_size=32``,
            ``recall_target=0.98``, ``max_removed=1.0``), or one of its sections as a mapping
            (``index={"kind": "exact", "seed": 1}``); ``index="exact"`` is ``index.kind``. None
            leaves a setting as it is.

    Returns:
        what the run did: ``manifest`` (the version that the store shows now), ``published``
        (whether this run made it), ``report`` (counts, seconds, what was kept out and why).

    Raises:
        TypeError: an argument has the wrong type, or there is no such setting.
        UsageError: a setting is out of range, or a source is unknown.
        BusyError: another run writes to this store.
        DataError: too much was quarantined or removed, or the input is damaged.
        NetworkError: something must be fetched and cannot be.
        MmindexError: see :mod:`mmindex.core.errors`; the published version stays as it was.
    """
    calm_openmp()
    from mmindex.core.progress import bars, new_run_id
    from mmindex.runs.run import run
    from mmindex.runs.settings import settings as read_settings
    from mmindex.store.place import require_writable

    root = as_path(store, "store")
    values = _values(settings)
    if model is not None:
        values["model.name"] = expect(model, str, "model", "a str")
    if sources is not None:
        values["source"] = _sources(sources)
    require_writable(root)
    path = None if config is None else as_path(config, "config")
    with bars(progress):
        return run(root, read_settings(root, path, values, fresh=fresh_settings), new_run_id())


def _sources(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    expect_several(sources, "sources")
    found = []
    for source in sources:
        path = isinstance(source, os.PathLike)
        spec = f"folder:{as_path(source, 'sources')}" if path else source
        found.append(expect(spec, str, "sources", "a str"))
    if not found:
        raise UsageError("sources is empty", "leave it out to go on with the store's own sources")
    return found


def _values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as given to :func:`build`, by dotted name.

    Raises:
        TypeError: a name is unknown or ambiguous, or a value has the wrong type.
    """
    from mmindex.core.config import check_type, setting_names

    names = setting_names()
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            values |= {f"{name}.{key}": one for key, one in value.items() if one is not None}
        elif name in names:
            values[names[name]] = value
        else:
            near = difflib.get_close_matches(name, names, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"build() got an unexpected keyword argument {name!r}{guess}")
    for dotted, value in values.items():
        check_type(dotted, value)
    return values


def _html(hits: Sequence[Hit], query: str) -> str:
    from mmindex.pages.gallery import hits_fragment

    return hits_fragment(hits, query)
