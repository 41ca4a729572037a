"""The pages: search, image, duplicates, report, quarantine, store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mmindex.core.errors import MmindexError, UsageError
from mmindex.core.modality import Modality
from mmindex.insight.dedup import near_leaders
from mmindex.pages.controls import Action, Fact, Field, pager
from mmindex.pages.gallery import Request as Asked
from mmindex.pages.gallery import cards, found_text, nothing
from mmindex.pages.page import Thumb, render_linked, shown_model
from mmindex.pages.places import Place, place_of
from mmindex.pages.scale import full_bar
from mmindex.search.columns import image_columns, read_order, sorted_hits
from mmindex.search.condition import in_brackets
from mmindex.search.hits import Limit, captions_of
from mmindex.search.query import Answer
from mmindex.search.vectorize import warning_about
from mmindex.serve.address import address, image_id_of, parameters, quoted
from mmindex.serve.api import receive_image
from mmindex.serve.asks import Ask, Uploads, find, question, read_ask, read_number, without
from mmindex.serve.facets import Facets, facets
from mmindex.serve.guard import COOKIE, Guard, caller_of
from mmindex.serve.images import THUMB_PIXELS
from mmindex.serve.live import Served
from mmindex.serve.problems import status_of
from mmindex.serve.service import Service
from mmindex.serve.settings import PAGE_HITS
from mmindex.store.objects import contents
from mmindex.store.quarantine import read_entries
from mmindex.upkeep.listing import version_records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmindex.core.records import Hit, QuarantineEntry

STYLES: Final = ("base.css", "cards.css", "tables.css", "controls.css", "serve.css")
# Columns that are parameters under their own name; others are `is.COLUMN`.
_CHOICES: Final = ("folder", "split", "camera")
_FILTERS: Final = (*_CHOICES, "from", "to_date", "width")
_COLUMN: Final = "is."
_QUESTION: Final = ("image", "unlike", "minus", "picture")
_SORTED: Final = 300  # best hits to sort by a column; sorting more would be meaningless
_ROWS: Final = 100  # rows of a table per page
_VERSIONS: Final = 50  # number of newest versions in the list
_NEIGHBOURS: Final = 12
_SAMPLE: Final = 24  # number of images on the page without a query
_POLICY: Final = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')


@dataclass(frozen=True, slots=True)
class View:
    """The state of the search page in its URL."""

    params: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: Request) -> View:
        """Return the state in the URL of a request, without empty parameters."""
        return cls(tuple((k, v) for k, v in parameters(request).multi_items() if v))

    def get(self, name: str) -> str:
        """Return the value of a parameter; empty if it has none."""
        return dict(self.params).get(name, "")

    def address(self, path: str = "/", **changes: str) -> str:
        """Return the URL of the page with some parameters changed, without empty ones."""
        kept = [(name, value) for name, value in self.params if name not in changes]
        return address(path, [*kept, *((name, value) for name, value in changes.items() if value)])

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns that filters set to a value."""
        named = {name: name for name in _CHOICES}
        named |= {name: name.removeprefix(_COLUMN) for name, _ in self.params
                  if name.startswith(_COLUMN)}  # fmt: skip
        return {column: value for name, column in named.items() if (value := self.get(name))}


def condition(view: View, known: Facets) -> str | None:
    """Return the SQL condition of the form fields and ``where``.

    Raises:
        UsageError: the value of a field is invalid.
    """
    parts = [in_brackets(view.get("where"))] if view.get("where") else []
    parts += [known.condition(name, value) for name, value in view.columns.items()]
    for name, sign in (("from", ">="), ("to_date", "<=")):
        if value := view.get(name):
            try:
                day = date.fromisoformat(value)
            except ValueError:
                raise UsageError(f"{value[:20]!r} is not a date", "such as 2023-06-01") from None
            names = [name for name in ("taken", "modified") if known.has(name, "timestamp")]
            if not names:
                raise UsageError("this store contains no dates", "remove `from` and `to_date`")
            column = f"coalesce({', '.join(names)})"
            last = " 23:59:59.999999" if sign == "<=" else ""
            parts.append(f"{column} {sign} '{day.isoformat()}{last}'")
    if value := view.get("width"):
        parts.append(f"width >= {read_number('width', value, 0, 10**9)}")
    return " and ".join(parts) or None


def fields(view: View, known: Facets) -> list[Field]:
    """Return the filter fields whose columns exist in the version."""
    found = []
    for column, values in known.values.items():
        name = column if column in _CHOICES else f"{_COLUMN}{column}"
        value = view.get(name)
        # A value in the URL that is not among the frequent ones stays selected.
        choices = list(dict.fromkeys(["", *values, value]))
        shown = [(one, one or "any") for one in choices]
        found.append(Field(name, _LABELS.get(column, column), value, "select", shown))
    if known.has("taken", "timestamp") or known.has("modified", "timestamp"):
        found.append(Field("from", "From", view.get("from"), "date"))
        found.append(Field("to_date", "To", view.get("to_date"), "date"))
    found.append(Field("width", "Minimum width", view.get("width"), "number", hint="in pixels"))
    sorts = [("", "best first")]
    if known.has("taken", "timestamp"):
        sorts += [("taken:desc", "newest first"), ("taken", "oldest first")]
    sorts += [("size_bytes:desc", "largest file first"), ("width:desc", "widest first")]
    found.append(Field("sort", "Order", view.get("sort"), "select", sorts))
    found.append(
        Field(
            "where", "Condition (SQL)", view.get("where"), hint="width > height and format = 'PNG'"
        )
    )
    return found


def pages_routes(service: Service, guard: Guard) -> list[Route]:
    """Return the routes of all pages for a service."""
    site = _Site(service, guard)
    return [
        Route("/", site.search, name="page:search"),
        Route("/picture", site.send, methods=["POST"], name="page:send"),
        Route("/picture/{id:path}", site.image, name="page:picture"),
        Route("/duplicates", site.duplicates, name="page:duplicates"),
        Route("/report", site.report, name="page:report"),
        Route("/quarantine", site.quarantine, name="page:quarantine"),
        Route("/about", site.about, name="page:about"),
        Route("/login", site.login, methods=["GET", "POST"], name="page:login"),
    ]


@dataclass(frozen=True, slots=True)
class _Site:
    service: Service
    guard: Guard

    def page(self, template: str, view: View, status: int = 200, **values: object) -> Response:
        served = self.service.live.current
        common = {
            "query": view.get("q"),
            "warnings": [warning_about(served.snapshot), self.service.live.problem],
            "manifest": served.manifest,
            "model": shown_model(served.snapshot.encoder),
            "send_to": view.address("/picture", offset="", picture=""),
            "fields": (),
            "clear": "/",
            "kept": (),
            "version": served.number,
        }
        text = render_linked(template, "/static/style.css", **{**common, **values})
        return HTMLResponse(text, status)

    def error(self, view: View, error: MmindexError, **values: object) -> Response:
        status = status_of(error)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            raise error
        reasons = [error.message, *([error.hint] if error.hint else [])]
        return self.page("serve_error.html", view, int(status), reasons=reasons, **values)

    async def search(self, request: Request) -> Response:
        served, view = self.service.live.current, View.of(request)
        known = await self.service.desk.run(lambda: facets(served))
        shown: dict[str, Any] = {"fields": fields(view, known), "clear": _cleared(view)}
        shown["kept"] = [pair for pair in view.params if pair[0] in _QUESTION]
        try:
            more = [*_FILTERS, *(name for name, _ in view.params if name.startswith(_COLUMN))]
            ask = replace(
                read_ask(parameters(request), more),
                where=condition(view, known),
                k=PAGE_HITS,
                others=bool(view.get("image")),
            )
            if ask.is_empty:
                return await self._browse(served, view, ask, shown)
            # One more than fits on the page shows whether there is another page.
            wanted = replace(ask, k=PAGE_HITS + 1)
            if ask.sort is not None:
                wanted = replace(ask, offset=0, k=_SORTED)
            found = await self.service.search(served, wanted)
            return await self.service.desk.run(lambda: self._hits(served, view, ask, found, shown))
        except MmindexError as error:
            return self.error(view, error, **shown)

    async def _browse(
        self, served: Served, view: View, ask: Ask, shown: Mapping[str, Any]
    ) -> Response:
        """Return the page without a query: images that match the filters, or a sample of all."""
        session = await self.service.desk.under(served, ask.where, Modality.IMAGE)

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
            return self.page("serve_browse.html", view, tiles=tiles, pages=pages, **shown)

        return await self.service.desk.run(sample)

    @staticmethod
    def _tiles(served: Served, view: View, rows: NDArray[np.int64]) -> list[tuple[Place, Thumb]]:
        columns = ["image_id", "uri", "width", "height"]
        table = served.snapshot.take("images", columns, rows)
        served.finder.get_all(contents(table["image_id"]))  # their thumbnails are asked for next
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
        full = full_bar(served.snapshot.encoder, asked, answer.to)
        show = _shown_by(
            served, hits, lambda name: view.address(f"/picture/{quoted(name)}", explain="")
        )
        drawn = cards(served.snapshot, answer, full, show, partial(near_leaders, served.snapshot))
        empty = None
        if not hits:
            session = None if ask.where is None else served.under(ask.where, ask.to)
            rows = None if session is None else session.rows
            left = None if rows is None else int(rows.sum())
            empty = nothing(served.snapshot, Asked(ask.min_score, ask.where), left)
        total = None if more else ask.offset + len(hits)
        pages = pager(
            ask.offset, len(hits), PAGE_HITS, total,
            lambda offset: view.address(offset=str(offset) if offset else ""),
        )  # fmt: skip
        return self.page(
            "serve_search.html",
            view,
            cards=drawn,
            found=found_text(answer, drawn),
            nothing=empty,
            pages=pages,
            parts_shown=_parts(view),
            full=full,
            **shown,
        )

    async def send(self, request: Request) -> Response:
        view = View.of(request)
        try:
            upload = await receive_image(self.service, self.service.live.current, request)
        except MmindexError as error:
            return self.error(view, error)
        return RedirectResponse(view.address(picture=upload.key, offset=""), 303)

    async def image(self, request: Request) -> Response:
        served, view = self.service.live.current, View.of(request)
        image_id = image_id_of(request)
        try:
            return await self.service.desk.run(lambda: self._image(served, view, image_id))
        except MmindexError as error:
            return self.error(view, error)

    def _image(self, served: Served, view: View, image_id: str) -> Response:
        found = find(served, image_id)
        values = self.service.row(served, image_id)
        captions = captions_of(served.snapshot, [image_id]).get(image_id, [])
        place = place_of(found.uri, image_id)
        asked = question(served, Ask(images=(image_id,)), Uploads())
        near = served.session.ask(asked, Modality.IMAGE, Limit(_NEIGHBOURS + 1))
        near = replace(near, hits=without(near, {image_id})[:_NEIGHBOURS])
        full = full_bar(served.snapshot.encoder, Modality.IMAGE, Modality.IMAGE)
        show = _shown_by(served, near.hits, lambda name: f"/picture/{quoted(name)}")
        base = f"/api/v1/images/{quoted(image_id)}"
        large = Thumb(f"{base}/file", values["width"], values["height"])
        return self.page(
            "serve_image.html",
            view,
            thumb=large,
            alt=captions[0] if captions else place.name,
            place=place,
            captions=captions,
            facts=_facts(values),
            actions=_actions(view, image_id),
            uri=found.uri,
            explained=_explained(base, view),
            neighbours=cards(served.snapshot, near, full, show),
        )

    async def duplicates(self, request: Request) -> Response:
        served = self.service.live.current

        def make() -> str:
            from mmindex.insight.dedup import near_duplicates
            from mmindex.pages.duplicates import dedup_page
            from mmindex.search.near import default_threshold

            threshold = default_threshold(served.snapshot.encoder)
            groups = near_duplicates(served.snapshot, threshold)
            return dedup_page(served.snapshot, groups, threshold)

        return await self._made(served, View.of(request), "duplicates", make)

    async def report(self, request: Request) -> Response:
        served = self.service.live.current

        def make() -> str:
            from mmindex.evaluate.stage import measure, settings_of
            from mmindex.pages.report import report_page

            config = settings_of(served.snapshot)
            return report_page(served.snapshot, measure(served.snapshot, config), config, None)

        return await self._made(served, View.of(request), "report", make)

    async def _made(
        self, served: Served, view: View, name: str, make: Callable[[], str]
    ) -> Response:
        """Return a page that is created once per version, or a waiting page until it is ready."""
        try:
            text = await self.service.desk.slow(served, name, make)
        except MmindexError as error:
            return self.error(view, error)
        if text is None:
            waiting = self.page("serve_wait.html", view, name=name)
            waiting.headers["Refresh"] = "2"
            return waiting
        policy = _POLICY.search(text)
        headers = {"Content-Security-Policy": policy[1].replace("&#39;", "'")} if policy else {}
        return HTMLResponse(text, headers=headers)

    async def quarantine(self, request: Request) -> Response:
        served, view = self.service.live.current, View.of(request)
        reason = view.get("reason")
        try:
            start = read_number("offset", view.get("offset") or "0", 0, 10**11)
        except MmindexError as error:
            return self.error(view, error)

        def entries() -> list[QuarantineEntry]:
            ref = served.manifest.find("quarantine")
            everything: list[QuarantineEntry] = read_entries(served.snapshot.objects, ref)
            return [one for one in everything if not reason or one.reason == reason]

        found = await self.service.desk.run(entries)
        shown = found[start : start + _ROWS]
        pages = pager(
            start, len(shown), _ROWS, len(found),
            lambda at: view.address("/quarantine", offset=str(at) if at else ""),
        )  # fmt: skip
        reasons = sorted(served.manifest.counts.reasons.items())
        return self.page(
            "serve_quarantine.html",
            view,
            entries=shown,
            pages=pages,
            reasons=reasons,
            reason=reason,
        )

    async def about(self, request: Request) -> Response:
        served, view = self.service.live.current, View.of(request)
        manifest = served.manifest
        layout = served.snapshot.layout
        try:
            versions = await self.service.desk.run(lambda: version_records(layout))
        except MmindexError as error:
            return self.error(view, error)
        facts = [
            Fact("Version", f"{manifest.version}, created {manifest.created_at}"),
            Fact("Images", f"{manifest.counts.indexed:,}"),
            Fact("Captions", f"{manifest.counts.captions:,}"),
            Fact("In quarantine", f"{manifest.counts.quarantined:,}", "/quarantine"),
            Fact("Model", shown_model(served.snapshot.encoder)),
            Fact("Index", manifest.indexes[Modality.IMAGE].factory or "exact search"),
            Fact("Size", f"{manifest.size_bytes / 1e6:,.1f} MB"),
            Fact("Health", self.service.live.problem or "OK"),
        ]
        sources = [(source.name, source.images, source.captions) for source in manifest.sources]
        return self.page(
            "serve_about.html",
            view,
            facts=facts,
            sources=sources,
            versions=versions[: -_VERSIONS - 1 : -1],
        )

    async def login(self, request: Request) -> Response:
        if self.service.settings.token is None:
            return RedirectResponse("/", 303)
        wrong = False
        if request.method == "POST":
            try:
                async with request.form(max_files=0, max_fields=2, max_part_size=4096) as form:
                    given = form.get("token")
            except HTTPException:
                given = None
            caller = caller_of(request.scope)
            if isinstance(given, str) and self.guard.is_token(given.strip(), caller):
                answer = RedirectResponse("/", 303)
                answer.set_cookie(
                    COOKIE,
                    self.guard.cookie_value(),
                    httponly=True,
                    samesite="strict",
                    secure=self.service.settings.certfile is not None,
                )
                return answer
            wrong = True
        text = render_linked("serve_login.html", "/static/style.css", wrong=wrong)
        return HTMLResponse(text, 401 if wrong else 200)


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
    served.finder.get_all(hit.image_id for hit in hits)  # their thumbnails are asked for next
    sizes = image_columns(served.snapshot, [hit.image_id for hit in hits], ["width", "height"])

    def show(hit: Hit) -> tuple[Place, Thumb]:
        size = sizes[hit.image_id]
        place = replace(place_of(hit.uri, hit.image_id), href=way(hit.image_id))
        return place, _thumb(hit.image_id, size["width"], size["height"])

    return show


def _actions(view: View, image_id: str) -> list[Action]:
    """Return the actions for an image and for the query that found it."""
    actions = [Action("More like this", view.address(q="", image=image_id, offset="", picture=""))]
    if view.get("q") or view.get("image"):
        actions.append(Action("Not like this", view.address(unlike=image_id, offset="")))
    if view.get("q"):
        drawn = view.get("explain")
        label = "Show the image only" if drawn else "Show where it matches"
        way = view.address(f"/picture/{quoted(image_id)}", explain="" if drawn else "1")
        actions.append(Action(label, way))
    actions.append(Action("Open the file", f"/api/v1/images/{quoted(image_id)}/file"))
    if view.get("q") or view.get("image"):
        actions.append(Action("Back to the results", view.address(explain="")))
    return actions


def _explained(base: str, view: View) -> str:
    """Return the URL of the explanation overlay; empty if it is not requested."""
    if not (view.get("explain") and view.get("q")):
        return ""
    return address(f"{base}/explanation", [("q", view.get("q"))])


def _cleared(view: View) -> str:
    columns = [name for name, _ in view.params if name.startswith(_COLUMN)]
    return view.address(**dict.fromkeys((*_FILTERS, *columns, "where", "sort", "offset"), ""))


def _parts(view: View) -> list[tuple[str, str, str]]:
    """Return the images of a query: their role, thumbnail, and the link that removes them."""
    parts = []
    for name, label in (("image", "like this"), ("unlike", "not like this")):
        for key, value in view.params:
            if key == name:
                rest = tuple(pair for pair in view.params if pair != (name, value))
                thumb = f"/api/v1/images/{quoted(value)}/thumbnail"
                parts.append((label, thumb, View(rest).address(offset="")))
    if key := view.get("picture"):
        parts.append(
            ("like your image", f"/api/v1/pictures/{quote(key)}", view.address(picture=""))
        )
    return parts


_LABELS: Final = {
    "image_id": "Id", "taken": "Taken", "camera": "Camera", "lens": "Lens", "iso": "ISO",
    "exposure": "Exposure", "aperture": "Aperture", "focal_mm": "Focal length",
    "size_bytes": "File size", "format": "Format", "folder": "Folder", "split": "Split",
    "source": "Source", "rating": "Rating", "keywords": "Keywords", "title": "Title",
    "description": "Description", "modified": "Modified",
}  # fmt: skip
_UNSHOWN: Final = frozenset({"key", "uri", "filename", "width", "height", "taken_offset"})


def _facts(values: Mapping[str, Any]) -> list[Fact]:
    """Return the columns of an image, the most useful ones first."""
    found = [Fact("Size", f"{values['width']} × {values['height']} pixels")]
    names = [
        *(name for name in _LABELS if name in values),
        *(n for n in values if n not in _LABELS),
    ]
    for name in names:
        value = values[name]
        if name in _UNSHOWN or value is None or value in ("", []):
            continue
        found.append(Fact(_LABELS.get(name, name), _shown(name, value), _way(name, value)))
    return found


def _shown(name: str, value: Any) -> str:
    if name == "size_bytes":
        return f"{value / 1e6:,.2f} MB" if value >= 1e6 else f"{value / 1e3:,.1f} kB"
    if name == "exposure" and 0 < value < 0.5:
        return f"1/{round(1 / value)} s"
    if name in ("exposure", "aperture", "focal_mm"):
        unit = {"exposure": " s", "aperture": "", "focal_mm": " mm"}[name]
        return f"{'f/' if name == 'aperture' else ''}{value:g}{unit}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _way(name: str, value: Any) -> str:
    """Return the link of a value: folders and cameras link to filters."""
    if name in ("folder", "camera") and isinstance(value, str):
        return address("/", [(name, value)])
    return ""
