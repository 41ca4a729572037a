"""The pages of a search: hits, images without a query, one image, and uploads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mmindex.core.errors import MmindexError
from mmindex.core.modality import Modality
from mmindex.core.records import all_weak
from mmindex.insight.dedup import near_leaders
from mmindex.pages.controls import pager
from mmindex.pages.gallery import Request as Asked
from mmindex.pages.gallery import cards, found_text, nothing
from mmindex.pages.page import Thumb
from mmindex.pages.places import Place, place_of
from mmindex.pages.scale import full_bar, full_of
from mmindex.search.columns import image_columns, read_order, sorted_hits
from mmindex.search.hits import Limit, captions_of
from mmindex.search.query import Answer
from mmindex.serve.address import image_id_of, parameters, quoted
from mmindex.serve.api import receive_image
from mmindex.serve.asks import Ask, Uploads, find, question, read_ask, without
from mmindex.serve.facets import facets
from mmindex.serve.facts import image_facts
from mmindex.serve.images import THUMB_PIXELS
from mmindex.serve.live import Served
from mmindex.serve.settings import PAGE_HITS
from mmindex.serve.site import Site
from mmindex.serve.view import (
    View,
    condition,
    explanation_address,
    fields,
    image_actions,
    query_images,
)
from mmindex.store.objects import contents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmindex.core.records import Hit

_SORTED: Final = 300  # best hits to sort by a column; sorting more would be meaningless
_NEIGHBOURS: Final = 12
_SAMPLE: Final = 24  # number of images on the page without a query


@dataclass(frozen=True, slots=True)
class SearchPages:
    """The pages of a search."""

    site: Site

    async def search(self, request: Request) -> Response:
        """Return the hits of the query in the URL, or images if there is none."""
        served, view = self.site.service.live.current, View.of(request)
        known = await self.site.service.desk.run(lambda: facets(served))
        filters = fields(view, known, served.manifest)
        shown: dict[str, Any] = {"fields": filters, "clear": view.cleared}
        shown["kept"] = view.query
        try:
            ask = replace(
                read_ask(parameters(request), view.filters),
                where=condition(view, known),
                k=PAGE_HITS,
                others=bool(view.get("image")),
            )
            # Links to images keep `good`, which needs a single text. With `by=words`, it fails.
            ask = replace(ask, good=ask.good and bool(ask.text) and not ask.has_more)
            if ask.is_empty:
                return await self._browse(served, view, ask, shown)
            # One more than fits on the page shows whether there is another page.
            wanted = replace(ask, k=PAGE_HITS + 1)
            if ask.sort is not None:
                wanted = replace(ask, offset=0, k=_SORTED)
            found = await self.site.service.search(served, wanted)
            return await self.site.service.desk.run(
                lambda: self._hits(served, view, ask, found, shown)
            )
        except MmindexError as error:
            return self.site.error(view, error, **shown)

    async def _browse(
        self, served: Served, view: View, ask: Ask, shown: Mapping[str, Any]
    ) -> Response:
        """Return the page without a query: images that match the filters, or a sample of all."""
        session = await self.site.service.desk.under(served, ask.where, Modality.IMAGE)

        def sample() -> Response:
            count, pages = served.manifest.counts.indexed, None
            if session.rows is None:
                rows = np.unique(np.linspace(0, count - 1, _SAMPLE, dtype=np.int64))
            else:
                found = np.flatnonzero(session.rows)
                rows = found[ask.offset : ask.offset + PAGE_HITS]
                pages = pager(
                    ask.offset, len(rows), PAGE_HITS, len(found),
                    lambda offset: view.address(offset=str(offset) if offset else ""),
                )  # fmt: skip
            tiles = self._tiles(served, view, rows)
            return self.site.page("serve_browse.html", view, tiles=tiles, pages=pages, **shown)

        return await self.site.service.desk.run(sample)

    @staticmethod
    def _tiles(served: Served, view: View, rows: NDArray[np.int64]) -> list[tuple[Place, Thumb]]:
        columns = ["image_id", "uri", "width", "height"]
        table = served.snapshot.take("images", columns, rows)
        served.finder.get_all(contents(table["image_id"]))  # their thumbnails are requested next
        tiles = []
        for name, uri, width, height in zip(*(contents(table[c]) for c in columns), strict=True):
            place = replace(place_of(uri, name), href=view.address(f"/picture/{quoted(name)}"))
            tiles.append((place, _thumb(name, width, height)))
        return tiles

    def _hits(
        self, served: Served, view: View, ask: Ask, found: Answer, shown: Mapping[str, Any]
    ) -> Response:
        in_order = found.hits
        if ask.sort is not None:
            in_order = sorted_hits(served.snapshot, in_order, read_order(served.snapshot, ask.sort))
        more = len(in_order) > ask.offset + PAGE_HITS
        hits = in_order[ask.offset : ask.offset + PAGE_HITS]
        answer = replace(found, hits=hits)
        asked = Modality.IMAGE if ask.images or ask.upload else Modality.TEXT
        full = full_of(served.snapshot.encoder, asked, answer)
        show = _shown_by(
            served, hits, lambda name: view.address(f"/picture/{quoted(name)}", explain="")
        )
        drawn = cards(served.snapshot, answer, full, show, partial(near_leaders, served.snapshot))
        empty = None
        if not hits:
            session = None if ask.where is None else served.under(ask.where, ask.to)
            rows = None if session is None else session.rows
            left = None if rows is None else int(rows.sum())
            empty = nothing(served.snapshot, Asked(ask.min_score, ask.where, good=ask.good), left)
        total = None if more else ask.offset + len(hits)
        pages = pager(
            ask.offset, len(hits), PAGE_HITS, total,
            lambda offset: view.address(offset=str(offset) if offset else ""),
        )  # fmt: skip
        return self.site.page(
            "serve_search.html",
            view,
            cards=drawn,
            found=found_text(answer, drawn),
            all_weak=all_weak(found.hits),
            nothing=empty,
            pages=pages,
            parts_shown=query_images(view),
            full=full,
            **shown,
        )

    async def send(self, request: Request) -> Response:
        """Store an uploaded image and redirect to its search."""
        view = View.of(request)
        try:
            upload = await receive_image(self.site.service, self.site.service.live.current, request)
        except MmindexError as error:
            return self.site.error(view, error)
        return RedirectResponse(view.address(picture=upload.key, offset=""), 303)

    async def image(self, request: Request) -> Response:
        """Return the page of an image."""
        served, view = self.site.service.live.current, View.of(request)
        image_id = image_id_of(request)
        try:
            return await self.site.service.desk.run(lambda: self._image(served, view, image_id))
        except MmindexError as error:
            return self.site.error(view, error)

    def _image(self, served: Served, view: View, image_id: str) -> Response:
        found = find(served, image_id)
        values = self.site.service.row(served, image_id)
        captions = captions_of(served.snapshot, [image_id]).get(image_id, [])
        place = place_of(found.uri, image_id)
        asked = question(served, Ask(images=(image_id,)), Uploads())
        near = served.session.ask(asked, Modality.IMAGE, Limit(_NEIGHBOURS + 1))
        near = replace(near, hits=without(near, {image_id})[:_NEIGHBOURS])
        full = full_bar(served.snapshot.encoder, Modality.IMAGE, Modality.IMAGE)
        show = _shown_by(served, near.hits, lambda name: f"/picture/{quoted(name)}")
        base = f"/api/v1/images/{quoted(image_id)}"
        large = Thumb(f"{base}/file", values["width"], values["height"])
        return self.site.page(
            "serve_image.html",
            view,
            thumb=large,
            alt=captions[0] if captions else place.name,
            place=place,
            captions=captions,
            facts=image_facts(values),
            actions=image_actions(view, image_id),
            uri=found.uri,
            explained=explanation_address(base, view),
            neighbours=cards(served.snapshot, near, full, show),
        )


def _thumb(image_id: str, width: int, height: int) -> Thumb:
    scale = min(1.0, THUMB_PIXELS / max(width, height))
    return Thumb(
        f"/api/v1/images/{quoted(image_id)}/thumbnail",
        max(1, round(width * scale)),
        max(1, round(height * scale)),
    )


def _shown_by(
    served: Served, hits: Sequence[Hit], way: Callable[[str], str]
) -> Callable[[Hit], tuple[Place, Thumb]]:
    """Return a hit with a thumbnail URL; ``way``: the link for its id."""
    served.finder.get_all(hit.image_id for hit in hits)  # their thumbnails are requested next
    sizes = image_columns(served.snapshot, [hit.image_id for hit in hits], ["width", "height"])

    def show(hit: Hit) -> tuple[Place, Thumb]:
        size = sizes[hit.image_id]
        place = replace(place_of(hit.uri, hit.image_id), href=way(hit.image_id))
        return place, _thumb(hit.image_id, size["width"], size["height"])

    return show
