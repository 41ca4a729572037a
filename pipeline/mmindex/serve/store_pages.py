"""The pages about a store: duplicates, report, quarantine, versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mmindex.core.errors import MmindexError
from mmindex.core.modality import Modality
from mmindex.pages.controls import Fact, pager
from mmindex.pages.page import shown_model
from mmindex.serve.address import quoted
from mmindex.serve.asks import read_number
from mmindex.serve.live import Served
from mmindex.serve.site import Site
from mmindex.serve.view import View
from mmindex.store.quarantine import read_entries
from mmindex.upkeep.listing import version_records

if TYPE_CHECKING:
    from mmindex.core.records import QuarantineEntry

_ROWS: Final = 100  # rows of a table per page
_VERSIONS: Final = 50  # number of newest versions in the list


@dataclass(frozen=True, slots=True)
class StorePages:
    """The pages about a store."""

    site: Site

    async def duplicates(self, request: Request) -> Response:
        """Return the near-duplicates, computed once per version."""
        served = self.site.service.live.current

        def make() -> str:
            from mmindex.insight.dedup import near_duplicates
            from mmindex.pages.duplicates import dedup_page
            from mmindex.search.near import default_threshold

            threshold = default_threshold(served.snapshot.encoder)
            groups = near_duplicates(served.snapshot, threshold)
            return dedup_page(
                served.snapshot,
                groups,
                threshold,
                render=self.site.framed(served),
                link=lambda name: f"/picture/{quoted(name)}",
            )

        return await self._made(served, View.of(request), "duplicates", make)

    async def report(self, request: Request) -> Response:
        """Return the evaluation report, computed once per version."""
        served = self.site.service.live.current

        def make() -> str:
            from mmindex.evaluate.stage import measure, settings_of
            from mmindex.pages.report import report_page

            config = settings_of(served.snapshot)
            measured = measure(served.snapshot, config)
            return report_page(served.snapshot, measured, config, render=self.site.framed(served))

        return await self._made(served, View.of(request), "report", make)

    async def _made(
        self, served: Served, view: View, name: str, make: Callable[[], str]
    ) -> Response:
        """Return a page that is created once per version, or a waiting page until it is ready."""
        try:
            text = await self.site.service.desk.slow(served, name, make)
        except MmindexError as error:
            return self.site.error(view, error)
        if text is None:
            waiting = self.site.page("serve_wait.html", view, name=name)
            waiting.headers["Refresh"] = "2"
            return waiting
        return HTMLResponse(text)

    async def quarantine(self, request: Request) -> Response:
        """Return the items in quarantine, filtered by reason."""
        served, view = self.site.service.live.current, View.of(request)
        reason = view.get("reason")
        try:
            start = read_number("offset", view.get("offset") or "0", 0, 10**11)
        except MmindexError as error:
            return self.site.error(view, error)

        def entries() -> list[QuarantineEntry]:
            ref = served.manifest.find("quarantine")
            everything: list[QuarantineEntry] = read_entries(served.snapshot.objects, ref)
            return [one for one in everything if not reason or one.reason == reason]

        found = await self.site.service.desk.run(entries)
        shown = found[start : start + _ROWS]
        pages = pager(
            start, len(shown), _ROWS, len(found),
            lambda at: view.address("/quarantine", offset=str(at) if at else ""),
        )  # fmt: skip
        reasons = sorted(served.manifest.counts.reasons.items())
        return self.site.page(
            "serve_quarantine.html",
            view,
            entries=shown,
            pages=pages,
            reasons=reasons,
            reason=reason,
        )

    async def about(self, request: Request) -> Response:
        """Return the state, the sources and the versions of the store."""
        served, view = self.site.service.live.current, View.of(request)
        manifest = served.manifest
        layout = served.snapshot.layout
        try:
            versions = await self.site.service.desk.run(lambda: version_records(layout))
        except MmindexError as error:
            return self.site.error(view, error)
        facts = [
            Fact("Version", f"{manifest.version}, created {manifest.created_at}"),
            Fact("Images", f"{manifest.counts.indexed:,}"),
            Fact("Captions", f"{manifest.counts.captions:,}"),
            Fact("In quarantine", f"{manifest.counts.quarantined:,}", "/quarantine"),
            Fact("Model", shown_model(served.snapshot.encoder)),
            Fact("Index", manifest.indexes[Modality.IMAGE].factory or "exact search"),
            Fact("Size", f"{manifest.size_bytes / 1e6:,.1f} MB"),
            Fact("Health", self.site.service.live.problem or "OK"),
        ]
        sources = [(source.name, source.images, source.captions) for source in manifest.sources]
        return self.site.page(
            "serve_about.html",
            view,
            facts=facts,
            sources=sources,
            versions=versions[: -_VERSIONS - 1 : -1],
        )
