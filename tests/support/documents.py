"""The content of README and docs/: console examples, other code blocks, options, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "benchmarks" / "README.md",
        *sorted((ROOT / "data" / "models").glob("*/README.md")),
    ]
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Example:
    """A command in a console block.

    Attributes:
        line: the text after the prompt, without a comment at its end.
        output: the lines that are shown below it.
    """

    line: str
    output: tuple[str, ...]


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Return language and content of each code block of a page."""
    return ((found[1], found[2]) for found in _FENCE.finditer(PAGES[page]))


def examples(block: str) -> Iterator[Example]:
    """Return the commands in a console block."""
    whole = re.sub(r"\\\n\s*", "", block)
    for part in re.split(r"^\$ ", whole, flags=re.MULTILINE)[1:]:
        line, *output = part.rstrip("\n").split("\n")
        yield Example(re.sub(r"\s{2,}# .*$", "", line), tuple(output))


def prose(page: str) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", PAGES[page])


def spans(page: str) -> list[str]:
    """Return the inline code of a page."""
    return _SPAN.findall(prose(page))


def links(page: str) -> list[str]:
    """Return the links of a page to files, and to places in them."""
    return [link for link in _LINK.findall(prose(page)) if "://" not in link]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub creates for the headings of a Markdown text."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {heading.replace(" ", "-") for heading in plain}
