"""Check pages for accessibility with axe-core."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# The worst two of axe's grades: minor, moderate, serious, critical.
_GRAVE = {"serious", "critical"}


@contextmanager
def opened(page: Path | str) -> Iterator[Any]:
    """Open a file or URL in headless chromium with Playwright.

    Skips the test if one of them is missing.
    """
    driver = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with driver.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page if isinstance(page, str) else page.as_uri())
        yield tab
        browser.close()


def grave_faults(tab: Any) -> list[str]:
    """Return serious and critical faults of the page in a tab, each with its element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found: Mapping[str, Any] = axe.Axe().run(tab).response
    return [
        f"{fault['id']}: {node['html'][:200]}: {node.get('failureSummary', '')}"
        for fault in found["violations"]
        if fault["impact"] in _GRAVE
        for node in fault["nodes"]
    ]
