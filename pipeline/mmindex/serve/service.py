"""Shared state of the routes: the served version, the workers and the caches."""

from __future__ import annotations

import asyncio
import hashlib
import io
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.config import LimitsConfig
from mmindex.core.display import answer_fields
from mmindex.core.errors import DataError, MmindexError, NoVectorError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.media.plain import Plain
from mmindex.models.encoder import good_rows
from mmindex.search.answer import Answer
from mmindex.search.columns import image_columns, image_rows, read_order, sorted_hits
from mmindex.serve.asks import (
    Ask,
    Upload,
    Uploads,
    answer,
    find,
)
from mmindex.serve.images import ImageWorkers
from mmindex.serve.live import Live, Served
from mmindex.serve.metrics import Metrics
from mmindex.serve.problems import ImageError, UploadError, status_of
from mmindex.serve.settings import ServeSettings
from mmindex.serve.thumbs import ThumbCache, default_cache
from mmindex.serve.work import Desk, TextBatcher, TextQuery
from mmindex.store.objects import contents

if TYPE_CHECKING:
    from mmindex.search.hits import IndexedImage

_UPLOADS_AT_ONCE: Final = 8  # 32 MiB each while they are received


@dataclass(slots=True)
class Service:
    """A store that is being served."""

    settings: ServeSettings
    live: Live
    desk: Desk
    texts: TextBatcher
    workers: ImageWorkers
    uploads: Uploads
    thumbs: ThumbCache
    metrics: Metrics
    with_location: bool
    receiving: asyncio.Semaphore

    @classmethod
    def open(cls, settings: ServeSettings) -> Service:
        """Open the store, load the model, and watch for new versions.

        Raises:
            NoInputError: there is no store, or no searchable version.
            MmindexError: the model is not available, or the store is damaged.
        """
        folder = settings.cache or default_cache(settings.store)
        thumbs = ThumbCache(folder, settings.cache_bytes)
        live = Live(settings.store, settings.device)
        desk = Desk(settings.queue)
        limits = LimitsConfig.model_validate(live.current.manifest.config.get("limits", {}))
        service = cls(
            settings=settings,
            live=live,
            desk=desk,
            texts=TextBatcher(desk),
            workers=ImageWorkers(limits),
            uploads=Uploads(),
            thumbs=thumbs,
            metrics=Metrics(
                lambda: desk.waiting, lambda: live.current.number, lambda: thumbs.bytes
            ),
            with_location=settings.with_location,
            receiving=asyncio.Semaphore(_UPLOADS_AT_ONCE),
        )
        live.on_change = service.drop_old_thumbs
        service.drop_old_thumbs(live.current)
        live.watch()
        return service

    def close(self) -> None:
        """Complete active work and stop everything."""
        self.texts.close()
        self.desk.close()
        self.workers.close()
        self.live.close()

    def drop_old_thumbs(self, served: Served) -> None:
        """Remove the thumbnails of images that are not in a version, including forgotten ones."""
        kept = self.thumbs.keys()
        if not kept:
            return
        try:
            keys = served.snapshot.keys(Modality.IMAGE)
        except MmindexError as error:
            self.note(error)
            return
        there = set(keys.filter(pc.is_in(keys, value_set=pa.array(kept, keys.type))).to_pylist())
        self.thumbs.drop(key for key in kept if key not in there)

    def note(self, error: MmindexError) -> None:
        """Log an internal failure; if the store is damaged, ``/healthz`` reports it."""
        if status_of(error) is not HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        if isinstance(error, DataError):
            self.live.damaged(error)
        get_logger("serve").error("a request failed", why=error.message)

    async def search(self, served: Served, ask: Ask) -> Answer:
        """Answer a request with all hits up to the last one requested.

        Raises:
            BusyError: too many requests are waiting.
            MmindexError: the request fails.
        """
        session = await self.desk.under(served, ask.where, ask.to)
        if ask.is_plain_text:
            found = await self.texts.ask(TextQuery(session, ask.text, ask.to, ask.limit))
            if found.error is not None:
                raise NoVectorError(found.error)
            return found
        run = self.texts.run if ask.needs_model else self.desk.run  # the model has one thread
        return await run(lambda: answer(served, session, ask, self.uploads))

    def record(self, served: Served, ask: Ask, found: Answer) -> dict[str, Any]:
        """Return one page of hits in the format of ``mmindex query --format json``."""
        hits = found.hits[ask.offset :]
        if ask.sort is not None:
            hits = sorted_hits(served.snapshot, hits, read_order(served.snapshot, ask.sort))
        columns = None
        if ask.columns:
            values = image_columns(
                served.snapshot,
                [hit.image_id for hit in hits],
                ask.columns,
                with_location=self.with_location,
            )
            columns = [values[hit.image_id] for hit in hits]
        return answer_fields(found.query, found.to, found.version, hits, columns)

    def row(self, served: Served, image_id: str) -> dict[str, Any]:
        """Return the allowed columns of an image with their values."""
        row = image_rows(served.snapshot, [image_id], with_location=self.with_location)
        return {name: contents(row[name])[0] for name in row.column_names}

    async def add_upload(self, served: Served, data: bytes) -> Upload:
        """Store an uploaded image.

        Raises:
            UploadError: it cannot be decoded.
            MmindexError: it cannot be encoded now.
        """
        encoder = await self.desk.run(lambda: served.session.vectorizer.encoder)
        try:
            pixels, thumbnail = await self.workers.upload(data, encoder.preprocess)
        except ImageError as error:
            raise UploadError(f"the uploaded image: {error.message}") from error
        vectors = await self.texts.run(lambda: encoder.encode_images(pixels[None]))
        if not good_rows(vectors).all():
            raise UploadError("the model returns no usable vector for the uploaded image")
        key = hashlib.sha256(data).hexdigest()
        upload = Upload(key, vectors[0], encoder.info.fingerprint, thumbnail)
        self.uploads.add(upload)
        return upload

    async def thumbnail(self, served: Served, image_id: str) -> tuple[IndexedImage, bytes]:
        """Return the thumbnail of an image, created once.

        Raises:
            NoInputError: the served version has no such image.
            ImageError: its file cannot be decoded any more.
        """

        def look() -> tuple[IndexedImage, bytes | None]:
            image = find(served, image_id)
            return image, self.thumbs.get(image.key)

        image, data = await self.desk.run(look)
        if data is None:
            with self.desk.place():
                data = await self.workers.thumbnail(image)
            await self.desk.run(partial(self._keep_thumb, served, image.key, data))
        return image, data

    def _keep_thumb(self, served: Served, key: str, data: bytes) -> None:
        self.thumbs.put(key, data)
        if self.live.current is not served:  # which may no longer contain this image
            self.drop_old_thumbs(self.live.current)

    async def file(self, served: Served, image_id: str) -> tuple[IndexedImage, Plain]:
        """Return an image file without metadata, or a JPEG if browsers do not support the format.

        Raises:
            NoInputError: the served version has no such image.
            ImageError: its file cannot be read any more.
        """

        def look() -> tuple[IndexedImage, str]:
            image = find(served, image_id)
            columns = image_columns(served.snapshot, [image_id], ["format"])
            return image, columns[image_id]["format"]

        image, form = await self.desk.run(look)
        with self.desk.place():
            return image, await self.workers.plain(image, form)

    async def explanation(self, served: Served, image_id: str, text: str) -> bytes:
        """Return the parts of an image that match a text as a PNG.

        Raises:
            UsageError: the text is empty.
            NoInputError: the served version has no such image.
            ImageError: its file cannot be decoded any more.
        """
        indexed = await self.desk.run(lambda: find(served, image_id))
        data = await self.workers.jpeg(indexed)

        def draw() -> bytes:
            from PIL import Image

            from mmindex.insight.overlay import draw_match

            with Image.open(io.BytesIO(data)) as image:
                _, shown = draw_match(served.session.vectorizer, image.convert("RGB"), text)
            buffer = io.BytesIO()
            shown.save(buffer, "PNG")
            return buffer.getvalue()

        return await self.texts.run(draw)
