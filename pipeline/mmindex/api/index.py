"""A store that is open for search."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmindex.api.hits import Hits, Recommended, Side
from mmindex.api.writing import Writing
from mmindex.core.arguments import as_count, as_number, as_path, expect, expect_several
from mmindex.core.durable import check_target
from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.core.system import calm_openmp

if TYPE_CHECKING:
    from mmindex.api.asking import Form
    from mmindex.evaluate.contrast import Contrast
    from mmindex.evaluate.evaluation import Evaluation, JudgedFigures
    from mmindex.evaluate.stage import Measured
    from mmindex.export.export import ExportLayout, ExportReport
    from mmindex.insight.corpus_map import CorpusMap
    from mmindex.search.given import ImageLike
    from mmindex.search.hits import Limit
    from mmindex.search.query import Session
    from mmindex.search.sessions import Sessions
    from mmindex.search.vectorize import Vectorizer
    from mmindex.store.snapshot import Snapshot

_ROWS: Final = 65_536  # bytes per part of iter_vectors
_CONDITIONS: Final = 8  # conditions whose matching rows are cached, with 9 bytes per row


class Index(Writing):
    """The published version of a store, open for search; created by :func:`open`.

    It stays at this version when newer versions are published, and ``gc`` does not remove the
    version. You can call all methods from several threads. Use it as a context manager, or call
    :meth:`close`, to release the model. Hits stay usable afterwards.

    Attributes:
        path: the folder of the store.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, device: str = "auto", with_location: bool = False
    ) -> None:
        from mmindex.search.query import open_session
        from mmindex.search.sessions import Sessions

        super().__init__()
        expect(device, str, "device", "a str")
        self._with_location = expect(with_location, bool, "with_location", "a bool")
        self.path = as_path(path, "path")
        self._open: Sessions | None = Sessions(open_session(self.path, device), _CONDITIONS)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model and the version; safe to call twice."""
        sessions, self._open, self._writer = self._open, None, None
        if sessions is not None:
            sessions.close()

    def __len__(self) -> int:
        """Return the number of searchable images."""
        return self.snapshot.manifest.counts.indexed

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
    def snapshot(self) -> Snapshot:
        """The open version, for other modules of mmindex; its methods can change."""
        return self._session(None).snapshot

    @property
    def vectorizer(self) -> Vectorizer:
        """The encoder of query vectors, for other modules of mmindex; its methods can change."""
        return self._session(None).vectorizer

    @property
    def version(self) -> int:
        """The number of the open version."""
        return self.snapshot.manifest.version

    @property
    def captions(self) -> int:
        """The number of searchable captions."""
        return self.snapshot.manifest.counts.captions

    @property
    def model(self) -> str:
        """The model and weights that encoded the vectors."""
        encoder = self.snapshot.encoder
        return f"{encoder.model} {encoder.pretrained}".strip()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model: vectors of equal fingerprints can be compared."""
        return self.snapshot.encoder.fingerprint

    @property
    def dim(self) -> int:
        """The number of dimensions of a vector."""
        return self.snapshot.encoder.dim

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that you can use in ``where`` and ``sort``."""
        with self.snapshot.open_parquet("images") as file:
            return tuple(file.schema_arrow.names)

    def search(
        self,
        text: str | None = None,
        *,
        keywords: str | None = None,
        hybrid: bool = False,
        image: ImageLike | Sequence[ImageLike] | None = None,
        vector: ArrayLike | None = None,
        plus: ImageLike | Sequence[ImageLike] | None = None,
        minus: ImageLike | Sequence[ImageLike] | None = None,
        weights: Sequence[float] | None = None,
        others: bool = False,
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        sort: str | None = None,
        distinct: bool = False,
        good: bool = False,
        columns: Sequence[str] | None = None,
        to: Side | None = "image",
    ) -> Hits:
        """Search images or captions with a text, images, a vector, or a combination of them.

        Args:
            text: the text to search for.
            keywords: search images only by these words in captions, file names and metadata; the
                score of a hit is then BM25, not a cosine similarity.
            hybrid: rank images by the words of the text too; see docs/keywords.md.
            image: one or more query images: a file, the uri or id of an image in the corpus, an
                opened image (PIL), or an array, uint8 (h, w, 3) or (h, w).
            vector: a query vector, such as one from :meth:`embed`: (dim,), of any length.
            plus: parts to add to the query. A str that is an existing file, or an id or uri in the
                corpus, is an image; any other str is a text. To choose, use the prefix ``text:`` or
                ``image:``.
            minus: parts to subtract from the query; same values as ``plus``.
            weights: the weights of the parts: the text, each image, the vector, each ``plus``, then
                each ``minus`` (optional). By default, wanted parts have equal weights, and unwanted
                parts together a quarter of the total.
            others: leave out the query images.
            k: the number of hits.
            where: an SQL condition on the columns of the images, such as ``width >= 640``.
            min_score: leave out hits with a lower cosine similarity, -1 to 1.
            sort: sort the ``k`` hits by a column of the images, such as ``taken`` or
                ``taken:desc``. Hits without a value come last. Ranks are those by similarity.
            distinct: leave out near-duplicates of a better hit; their number is in
                :attr:`Hit.copies`.
            good: leave out weak hits; see :attr:`Hit.weak`. If nothing matches, there are no hits.
            columns: the image columns in :attr:`Hit.metadata` and tables; None: all.
            to: ``image``, or ``text`` for captions. None: captions for a single image if there are
                any, otherwise images, like the command.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: the query is empty, an argument is out of range, arguments cannot be
                combined, ``where`` is not a condition, or a column in ``sort`` or ``columns`` does
                not exist.
            NoInputError: there is no such file, uri or id, no captions to search, or no keyword
                index; with ``good``, the version has no calibration for the query.
            DataError: an image cannot be decoded, or the store is damaged.
            ModelMismatchError: the model is no longer the model of the index, or ``vector`` has
                other dimensions.
        """
        from mmindex.api.asking import question_of
        from mmindex.search.given import as_limit, check_alone, several

        limit = as_limit(k, min_score, distinct=distinct, good=good)
        form = self._form(limit, where, columns, sort=sort, to=to)
        expect(hybrid, bool, "hybrid", "a bool")
        if keywords is not None:
            parts = (text, vector, weights, *several(image), *several(plus), *several(minus))
            check_alone(keywords, parts, others=others or hybrid)
            return form.hits(form.session.keywords(keywords, form.to, form.limit))
        question = question_of(
            self.snapshot, text, image=image, vector=vector, plus=plus, minus=minus,
            weights=weights, others=others, hybrid=hybrid,
        )  # fmt: skip
        return form.hits(form.session.ask(question, form.to, form.limit))

    def search_many(
        self,
        texts: Iterable[str | bytes],
        *,
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        sort: str | None = None,
        distinct: bool = False,
        good: bool = False,
        columns: Sequence[str] | None = None,
        to: Side | None = "image",
        keywords: bool = False,
        hybrid: bool = False,
        errors: Literal["raise", "keep"] = "raise",
    ) -> Iterator[Hits]:
        """Search with many texts, faster than with :meth:`search`; yield the hits of each in order.

        Args:
            texts: the texts to search for; bytes are lines of a UTF-8 file.
            k, where, min_score, sort, distinct, good, columns, to, hybrid: as in :meth:`search`.
            keywords: search images only by the words of each text.
            errors: what to do with an invalid text (empty, not valid UTF-8): ``raise``, or ``keep``
                to return empty hits with the reason in :attr:`Hits.error`.

        Raises:
            TypeError, UsageError, NoInputError, DataError, ModelMismatchError: as :meth:`search`;
                errors of a text are raised when it is reached.
        """
        from mmindex.search.given import as_by, as_limit, as_texts

        if errors not in ("raise", "keep"):
            raise UsageError(f"`errors`: {errors!r} is not 'raise' or 'keep'")
        given = as_texts(texts, strict=errors == "raise")
        limit = as_limit(k, min_score, distinct=distinct, good=good)
        form = self._form(limit, where, columns, sort=sort, to=to)
        form.session.snapshot.index(form.to or Modality.IMAGE)
        by = as_by(keywords=keywords, hybrid=hybrid)
        return form.many(given, by, strict=errors == "raise")

    def recommend(
        self,
        history: str | os.PathLike[str] | Iterable[object],
        *,
        k: int = 10,
        half_life: float = 30.0,
        interests: int = 3,
        diversity: float = 0.2,
        where: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> Recommended:
        """Recommend images, based on the images that a person liked and disliked.

        Images of the history and near-duplicates of them are left out. No model is loaded.

        Args:
            history: a file (one id per line, or a .csv, .tsv or .jsonl file with the columns ``id``
                and optionally ``weight`` and ``time``), or ids, or mappings with these keys. A
                negative weight is a dislike; a time is a datetime, ISO 8601 or seconds since 1970.
            k: the number of images.
            half_life: days after which an entry counts half as much, if entries have times.
            interests: the largest number of interests into which the likes are grouped.
            diversity: 0 for the most similar images, up to 1 for the most different ones.
            where: an SQL condition on the columns of the images.
            columns: the image columns in :attr:`Hit.metadata` and tables; None: all.

        Returns:
            the images, best first, and what was used of the history in :attr:`Recommended.used`.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: an argument is out of range, or ``where`` is invalid.
            NoInputError: the file does not exist, or no image of the history is in the index.
            DataError: an entry is invalid, there is none, there are no likes, or the store is
                damaged.
        """
        from mmindex.api.recommending import recommended
        from mmindex.insight.recommend import Taste
        from mmindex.search.given import as_limit

        taste = Taste(
            as_number(half_life, "half_life"),
            as_count(interests, "interests"),
            as_number(diversity, "diversity"),
        )
        form = self._form(as_limit(k, None, distinct=False, good=False), where, columns)
        return recommended(form, history, taste)

    def map(
        self,
        html: str | os.PathLike[str] | None = None,
        *,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        where: str | None = None,
        seed: int = 0,
    ) -> CorpusMap:
        """Draw a map of the images: similar images are near each other, in named groups.

        Args:
            html: also write the map as an HTML page to this file.
            labels: names for the groups: a file of labels as for ``classify``, or the labels; None:
                the nearest captions. Only labels need the model.
            where: an SQL condition on the columns of the images.
            seed: the seed of the positions and groups; the same seed draws the same map.

        Returns:
            the positions, groups and outliers, with locations only if the store was opened with
            ``with_location``. More than 100,000 images are sampled.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: ``where`` is invalid, or ``seed`` is out of range.
            NoInputError: the file of labels does not exist, or there are no images.
            CannotCreateError: the page cannot be created.
            DataError: a label is invalid, or the store is damaged.
            ModelMismatchError: labels are given, and the model is no longer the model of the index.
        """
        from mmindex.insight.corpus_map import MapLabels, corpus_map
        from mmindex.insight.labels import given_labels
        from mmindex.pages.map import map_page
        from mmindex.pages.page import write_page
        from mmindex.search.filters import select_images

        page = None if html is None else as_path(html, "html")
        if page is not None:
            check_target(page)
        number = as_count(seed, "seed", least=0)
        rows = None
        if where is not None:
            rows = select_images(self.snapshot, expect(where, str, "where", "a str"))
        names = None if labels is None else MapLabels.of(given_labels(labels), self.vectorizer)
        found = corpus_map(
            self.snapshot, rows=rows, labels=names, seed=number, with_location=self._with_location
        )
        if page is not None:
            text = map_page(
                self.snapshot, found, where=where, labelled=labels is not None, page=page
            )
            write_page(page, text)
        return found

    def embed(
        self,
        *,
        texts: Sequence[str] | None = None,
        images: Sequence[ImageLike] | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts or images with the model of the index.

        Args:
            texts: any number of texts.
            images: any number of images, see :meth:`search`. Images in the corpus are not encoded
                again.

        Returns:
            float32 (n, dim), unit length, in the same order.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: neither or both are given, or a text is empty.
            NoInputError, DataError, ModelMismatchError: as :meth:`search`.
        """
        from mmindex.search.given import check_texts, image_part

        if (texts is None) == (images is None):
            raise UsageError("embed takes either texts or images", "embed(texts=[...])")
        vectorizer = self.vectorizer
        if texts is not None:
            expect_several(texts, "texts")
            texts = list(texts)
            check_texts(texts)
            return vectorizer.texts(texts) if texts else np.empty((0, self.dim), np.float32)
        expect_several(images, "images")
        found, _ = vectorizer.parts([image_part(one, "images") for one in images or ()])
        return found

    def vectors(self, side: Side = "image") -> tuple[NDArray[np.object_], NDArray[np.float16]]:
        """Return all vectors of the images or of the captions.

        Args:
            side: ``image`` or ``text``.

        Returns:
            ids, object (n,) of str, and vectors, float16 (n, dim), unit length up to rounding,
            read-only: a view of the file of the store if it has a single segment, otherwise a copy.
            There is one row for each distinct image or text, with its first id.

        Raises:
            NoInputError: there are none.
            DataError: the store is damaged.
        """
        from mmindex.search.export import named_vectors
        from mmindex.search.given import as_side

        return named_vectors(self.snapshot, as_side(side, "side"))

    def iter_vectors(
        self, side: Side = "image", *, rows: int = _ROWS
    ) -> Iterator[tuple[NDArray[np.object_], NDArray[np.float16]]]:
        """Yield :meth:`vectors` in parts of at most ``rows`` rows, with constant memory.

        Raises:
            NoInputError, DataError: as :meth:`vectors`.
            UsageError: ``rows`` is below 1.
        """
        from mmindex.search.export import iter_named_vectors
        from mmindex.search.given import as_side

        count = as_count(rows, "rows")
        modality = as_side(side, "side")
        self.snapshot.index(modality)
        return iter_named_vectors(self.snapshot, modality, count)

    def evaluate(self) -> Evaluation:
        """Measure recall@K in both directions, exactly and through the index. Writes nothing.

        Returns:
            the figures of ``mmindex evaluate --format json``, percentages from 0 to 100:
            ``evaluation.text_to_image.r1`` and so on.

        Raises:
            DataError: the store is damaged.
        """
        return self.measure().evaluation

    def judge(self, qrels: str | os.PathLike[str]) -> JudgedFigures:
        """Measure exact search with several right answers per query. Writes nothing.

        Args:
            qrels: a file in TREC form, see docs/evaluation.md, or for COCO's test split the name of
                a list of right answers: ``eccv-caption`` or ``cxc`` (the extra ``eccv``).

        Returns:
            the field ``judged`` of ``mmindex evaluate --qrels FILE --format json``:
            ``judged.text_to_image.figures["map@r"].value`` and so on, percentages from 0 to 100.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: the version has no captions, or the list is not about its corpus.
            NoInputError: there is no such file.
            MissingPackageError: the list needs a package that is not installed.
            DataError: the file is damaged or about another corpus, or the store is damaged.
        """
        from mmindex.evaluate.corpus import load_corpus
        from mmindex.evaluate.extended import EXTENDED
        from mmindex.evaluate.stage import judge_with, read_judgements, settings_of

        path = as_path(qrels, "qrels")
        named = isinstance(qrels, str) and qrels in EXTENDED
        answers = read_judgements(self.snapshot, str(qrels) if named else path)
        return judge_with(answers, load_corpus(self.snapshot), settings_of(self.snapshot))

    def measure(self) -> Measured:
        """Run :meth:`evaluate` and also return the ranks and answers of every query.

        Raises:
            DataError: the store is damaged.
        """
        from mmindex.evaluate.stage import measure, settings_of

        return measure(self.snapshot, settings_of(self.snapshot))

    def compare(self, other: str | int | os.PathLike[str]) -> Contrast:
        """Compare recall@K with another version of the same corpus, usually with another model.

        Args:
            other: the number of a version of this store, or the folder of another store.

        Returns:
            for each direction the differences of recall@K with 95 % intervals, McNemar's exact
            test, and the queries whose ranks changed most.

        Raises:
            NoInputError: there is no such version or store, or the corpus has no captions.
            UsageError: the other version has another corpus; the message names the difference.
        """
        from mmindex.evaluate.contrast import contrast, open_other

        there = open_other(self.snapshot, str(other))
        return contrast(self.snapshot, self.measure(), there)

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        layout: ExportLayout = "parquet",
        where: str | None = None,
        fuse_captions: bool = False,
    ) -> ExportReport:
        """Write images, captions and vectors to a new folder for other tools.

        Args:
            out: the folder; it must be new or empty.
            layout: ``parquet`` (a table of images and one of captions), ``clip-retrieval``
                (``.npy`` files with Parquet metadata, also for autofaiss) or ``hf`` (a Hugging Face
                dataset that contains the image files).
            where: an SQL condition on images; None exports all images.
            fuse_captions: whether to combine the vector of each image with those of its captions;
                their weight is fitted to the corpus and can be 0.

        The export contains locations only if the store was opened with ``with_location``.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: the layout is unknown, the folder is not empty, or ``where`` is invalid.
            NoInputError: there is nothing to export.
            DataError: the store is damaged.
            StorageError: the disk is full, or an I/O error occurs.
        """
        from mmindex.export.export import LAYOUTS, export

        folder = as_path(out, "out")
        if layout not in LAYOUTS:
            raise UsageError(f"`layout`: {layout!r} is not one of {', '.join(LAYOUTS)}")
        if where is not None:
            expect(where, str, "where", "a str")
        return export(
            self.snapshot,
            folder,
            layout,
            where,
            with_location=self._with_location,
            fuse_captions=expect(fuse_captions, bool, "fuse_captions", "a bool"),
        )

    def _form(
        self,
        limit: Limit,
        where: str | None,
        columns: Sequence[str] | None,
        *,
        sort: str | None = None,
        to: Side | None = "image",
    ) -> Form:
        """Check the arguments of all searches."""
        from mmindex.api.asking import form_of

        return form_of(
            self._session(where), limit, where=where, sort=sort, columns=columns, to=to,
            with_location=self._with_location,
        )  # fmt: skip

    def _session(self, where: str | None) -> Session:
        """Return a session with a condition."""
        if where is not None:
            expect(where, str, "where", "a str")
        if self._open is None:
            raise UsageError("the index is closed", "open it again with mmindex.open")
        return self._open.under(where)


def open(  # mmindex.open
    path: str | os.PathLike[str], *, device: str = "auto", with_location: bool = False
) -> Index:
    """Open the published version of a store for search.

    Args:
        path: the folder of the store.
        device: the device for the model, if a query needs it: ``auto``, ``cpu``, ``cuda:0`` ...
        with_location: include locations (``lat`` and ``lon``) in :attr:`Hit.metadata` and
            :meth:`Hits.to_arrow`. ``where`` can always use them.

    Raises:
        TypeError: an argument has the wrong type.
        NoInputError: there is no store, nothing is published, or a stage that search needs has not
            run; the message names it.
        DataError: the store is damaged.
        PermissionDeniedError, StorageError: the operating system reports an error.
    """
    calm_openmp()
    return Index(path, device=device, with_location=with_location)
