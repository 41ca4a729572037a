"""The routes of all pages, and the login."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mmindex.pages.page import render_linked
from mmindex.serve.guard import COOKIE, Guard, caller_of
from mmindex.serve.search_pages import SearchPages
from mmindex.serve.service import Service
from mmindex.serve.site import Site
from mmindex.serve.store_pages import StorePages

_STYLES: Final = ("base.css", "cards.css", "tables.css", "controls.css", "serve.css")
SHEETS: Final = {
    "style": _STYLES,
    "duplicates": (*_STYLES, "duplicates.css"),
    "report": (*_STYLES, "report.css"),
}


def pages_routes(service: Service, guard: Guard) -> list[Route]:
    """Return the routes of all pages for a service."""
    site = Site(service)
    search, store, login = SearchPages(site), StorePages(site), _Login(service, guard)
    return [
        Route("/", search.search, name="page:search"),
        Route("/picture", search.send, methods=["POST"], name="page:send"),
        Route("/picture/{id:path}", search.image, name="page:picture"),
        Route("/duplicates", store.duplicates, name="page:duplicates"),
        Route("/report", store.report, name="page:report"),
        Route("/quarantine", store.quarantine, name="page:quarantine"),
        Route("/about", store.about, name="page:about"),
        Route("/login", login.login, methods=["GET", "POST"], name="page:login"),
    ]


@dataclass(frozen=True, slots=True)
class _Login:
    service: Service
    guard: Guard

    async def login(self, request: Request) -> Response:
        """Show the form for the token, or check the token and set the cookie."""
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
