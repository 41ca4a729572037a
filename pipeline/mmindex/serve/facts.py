"""The facts about an image on its page: columns with their labels, in readable form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mmindex.pages.controls import Fact
from mmindex.serve.address import address

LABELS: Final = {
    "image_id": "Id", "taken": "Taken", "camera": "Camera", "lens": "Lens", "iso": "ISO",
    "exposure": "Exposure", "aperture": "Aperture", "focal_mm": "Focal length",
    "size_bytes": "File size", "format": "Format", "folder": "Folder", "split": "Split",
    "source": "Source", "rating": "Rating", "keywords": "Keywords", "title": "Title",
    "description": "Description", "modified": "Modified",
}  # fmt: skip
_UNSHOWN: Final = frozenset({"key", "uri", "filename", "width", "height", "taken_offset"})


def image_facts(values: Mapping[str, Any]) -> list[Fact]:
    """Return the columns of an image, the most useful ones first."""
    found = [Fact("Size", f"{values['width']} × {values['height']} pixels")]
    names = [
        *(name for name in LABELS if name in values),
        *(n for n in values if n not in LABELS),
    ]
    for name in names:
        value = values[name]
        if name in _UNSHOWN or value is None or value in ("", []):
            continue
        found.append(Fact(LABELS.get(name, name), _shown(name, value), _way(name, value)))
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
