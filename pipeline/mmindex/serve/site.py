"""The frame of all pages of the service, and its error page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.responses import HTMLResponse, Response

from mmindex.core.errors import MmindexError
from mmindex.pages.page import Renderer, render_linked, shown_model
from mmindex.search.vectorize import warning_about
from mmindex.serve.live import Served
from mmindex.serve.problems import status_of
from mmindex.serve.service import Service
from mmindex.serve.view import View


@dataclass(frozen=True, slots=True)
class Site:
    """Renders pages of a service."""

    service: Service

    def page(self, template: str, view: View, status: int = 200, **values: object) -> Response:
        """Render a template with the search form; ``values`` are its variables."""
        common = self._common(self.service.live.current, view)
        text = render_linked(template, "/static/style.css", **{**common, **values})
        return HTMLResponse(text, status)

    def framed(self, served: Served) -> Renderer:
        """Return what renders pages of the commands with the search form and the links."""
        common = {**self._common(served, View(())), "frame": "serve_base.html"}

        def render(template: str, _styles: Sequence[str], /, **values: object) -> str:
            sheet = f"/static/{Path(template).stem}.css"
            return render_linked(template, sheet, **{**common, **values})

        return render

    def _common(self, served: Served, view: View) -> dict[str, object]:
        return {
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

    def error(self, view: View, error: MmindexError, **values: object) -> Response:
        """Return the page of an error with its remedy.

        Raises:
            MmindexError: the error, if it is a failure of the service.
        """
        status = status_of(error)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            raise error
        reasons = [error.message, *([error.hint] if error.hint else [])]
        return self.page("serve_error.html", view, int(status), reasons=reasons, **values)
