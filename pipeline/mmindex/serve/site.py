"""The frame of all pages of the service, and its error page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.responses import HTMLResponse, Response

from mmindex.core.errors import MmindexError
from mmindex.pages.page import render_linked, shown_model
from mmindex.search.vectorize import warning_about
from mmindex.serve.problems import status_of
from mmindex.serve.service import Service
from mmindex.serve.view import View


@dataclass(frozen=True, slots=True)
class Site:
    """Renders pages of a service."""

    service: Service

    def page(self, template: str, view: View, status: int = 200, **values: object) -> Response:
        """Render a template with the search form; ``values`` are its variables."""
        text = render_linked(template, "/static/style.css", **{**self._common(view), **values})
        return HTMLResponse(text, status)

    def framed(self, template: str, _styles: Sequence[str], /, **values: object) -> str:
        """Render a page that commands also write, with the search form and links of the service."""
        common = {**self._common(View(())), "frame": "serve_base.html"}
        return render_linked(template, f"/static/{Path(template).stem}.css", **{**common, **values})

    def _common(self, view: View) -> dict[str, object]:
        served = self.service.live.current
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
