"""Load pages in headless chromium: what it draws, runs and requests."""

from __future__ import annotations

import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from support.pages import Page

_CONSOLE = re.compile(r":CONSOLE[:(]\d+\)?\] (.*)")
# Elements that an HTML parser adds if they are missing.
_IMPLIED = {"html", "head", "body", "tbody"}


@dataclass(frozen=True)
class Seen:
    """A page after it was loaded and had two seconds to run.

    Attributes:
        dom: the document at that time, as HTML.
        console: everything written to the console by the page, or by the browser about it.
        asked: everything that was sent to the network, completely.
        screenshot: RGB, the content of the window.
    """

    dom: str
    console: tuple[str, ...]
    asked: bytes
    screenshot: Image.Image

    def pixels(self, colour: str) -> int:
        """Return the number of pixels with a colour, ``#rrggbb``."""
        wanted = tuple(bytes.fromhex(colour.removeprefix("#")))
        counts = self.screenshot.getcolors(1 << 24) or []
        return sum(count for count, found in counts if found == wanted)


def browse(page: Path, *, dark: bool = False, width: int = 1280, height: int = 2000) -> Seen:
    """Open a page from disk. Skips the test if chromium is not installed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    shot = page.with_suffix(".png")
    with _network() as (port, asked):
        done = subprocess.run(
            [
                chromium,
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--disable-quic", "--enable-logging=stderr"),
                *("--hide-scrollbars", f"--window-size={width},{height}"),
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                # All requests, including those to this machine, go to our proxy.
                f"--proxy-server=127.0.0.1:{port}",
                "--proxy-bypass-list=<-loopback>",
                f"--user-data-dir={page.parent / 'profile'}",
                *("--virtual-time-budget=2000", "--dump-dom", f"--screenshot={shot}"),
                page.as_uri(),
            ],
            capture_output=True,
            encoding="utf-8",
            timeout=200,
        )
    assert done.returncode == 0, done.stderr
    with Image.open(shot) as drawn:
        return Seen(
            dom=done.stdout,
            console=tuple(_CONSOLE.findall(done.stderr)),
            asked=bytes(asked),
            screenshot=drawn.convert("RGB"),
        )


def assert_inert(seen: Seen, source: str) -> None:
    """Check that the browser ran nothing, blocked nothing, and found the elements that we wrote."""
    assert seen.console == ()
    # The browser itself can send requests, but nothing on the page can.
    assert b"leak" not in seen.asked
    assert _tags(seen.dom) == _tags(source)
    titles = [Page(text).texts["title"] for text in (seen.dom, source)]
    assert titles[0] == titles[1]


def _tags(page: str) -> list[str]:
    return [tag for tag, _ in Page(page).tags if tag not in _IMPLIED]


@contextmanager
def _network() -> Iterator[tuple[int, bytearray]]:
    """Record requests without answering them."""
    asked = bytearray()

    class Door(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.extend(self.request.recv(65_536))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Door) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()
