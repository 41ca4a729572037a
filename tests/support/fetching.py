"""Builds from downloaded images, as users run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.command import mmindex, mmindex_json
from support.models import TinyModel


def build(store: Path, *args: object, model: TinyModel, **options: Any) -> str:
    return mmindex("build", "--store", store, "--model", model.name, *args, **options).stdout


def finds_itself(store: Path, image: bytes, scratch: Path) -> str:
    """Return the id of the best hit for an image."""
    (scratch / "asked.png").write_bytes(image)
    (answer,) = mmindex_json(
        "query", "--store", store, "--image", scratch / "asked.png", "--to", "image"
    )
    best = answer["hits"][0]
    assert best["score"] > 0.999
    return str(best["id"])
