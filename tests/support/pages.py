"""Parsed pages, and texts that try to be active."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</bdi></ol><h1>mine now</h1>",
    "{{ 7 * 7 }} {% raw %}",
    "javascript:alert(3)",
    "&lt;b&gt; is not bold",
    "right\u202eto left \u2066 isolated",
    "bell\x07 escape\x1b[2J null\x00 line\nbreak",
    "half \ud83d of a face",
    "عربي نص",
    "一只猫坐在窗台上",
]


# Elements without content; a name that contains <wbr> is one text.
VOID = {"img", "link", "meta", "wbr", "input"}


class Page(HTMLParser):
    """The tags of a page with their attributes, and its texts by tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_self_contained(page: str) -> None:
    """Check that images are embedded, the style is known, and nothing is fetched or run.

    Links lead only to files next to the page.
    """
    seen = Page(page)
    [style] = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [tag["content"] for tag in seen.named("meta") if tag.get("http-equiv")]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert all((one["src"] or "").startswith("data:image/jpeg;") for one in seen.named("img"))
    assert "script" not in {tag for tag, _ in seen.tags}
    for _, attributes in seen.tags:
        assert "style" not in attributes
        # Links are paths relative to the page, without a scheme or the author's folders.
        assert (attributes.get("href") or "./").startswith("./")
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in style
    assert "@import" not in style
