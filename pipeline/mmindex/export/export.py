"""Export a version to a new folder, completely or not at all."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import mmindex
from mmindex.core.config import LimitsConfig
from mmindex.core.errors import UsageError, os_errors
from mmindex.core.progress import get_logger
from mmindex.evaluate.fit_items import ItemFit
from mmindex.export import clip_retrieval, hugging_face, tables
from mmindex.export.rows import Rows
from mmindex.store.publish import filled_aside
from mmindex.store.snapshot import Snapshot

ExportLayout = Literal["parquet", "clip-retrieval", "hf"]
LAYOUTS: Final[tuple[ExportLayout, ...]] = get_args(ExportLayout)
NOTE: Final = "mmindex.json"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The result of an export.

    Attributes:
        folder: the folder of the export.
        layout: one of :data:`LAYOUTS`.
        version: the exported version of the store.
        images: number of images.
        captions: number of captions; for ``clip-retrieval``, the number of caption vectors.
        unreadable: number of images in the layout ``hf`` that are null, because their files could
            not be read.
        bytes: size of all files in bytes.
        fit: the weight of captions in the vectors of images; None without ``fuse_captions``.
    """

    folder: Path
    layout: ExportLayout
    version: int
    images: int
    captions: int
    unreadable: int
    bytes: int
    fit: ItemFit | None = None


def export(
    snapshot: Snapshot,
    folder: Path,
    layout: ExportLayout = "parquet",
    where: str | None = None,
    *,
    with_location: bool = False,
    fuse_captions: bool = False,
) -> ExportReport:
    """Write a version's images, captions and vectors to a new folder.

    The folder appears when it is complete; until then, its files are in a hidden folder next to it.

    Args:
        snapshot: the version.
        folder: a new or empty folder.
        layout: ``parquet``, ``clip-retrieval`` or ``hf``.
        where: an SQL condition on images; None exports all images.
        with_location: whether to export locations.
        fuse_captions: whether to combine the vectors of images with those of their captions.

    Raises:
        UsageError: the folder is not empty or inside the store, or ``where`` is invalid.
        NoInputError: there is nothing to export.
        DataError: the store is damaged.
        StorageError: the disk is full, or an I/O error occurs.
    """
    folder = folder.absolute()
    _check_target(folder, snapshot.layout.root.absolute())
    rows = Rows(snapshot, where, with_location=with_location, fuse_captions=fuse_captions)
    captions, unreadable = len(rows.caption_rows), 0
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with filled_aside(aside, folder):
        match layout:
            case "parquet":
                tables.write(rows, aside)
            case "clip-retrieval":
                captions = len(rows) if clip_retrieval.write(rows, aside) else 0
            case "hf":
                limits = LimitsConfig.model_validate(snapshot.manifest.config.get("limits", {}))
                written = hugging_face.write(rows, aside, limits, with_location=with_location)
                unreadable = written.unreadable
                _warn_of_unreadable(written)
        note = _note(snapshot, layout, len(rows), captions, where, with_location=with_location)
        if rows.fit is not None:
            note["caption_weight"] = rows.fit.weight
        with os_errors(aside):
            (aside / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
            size = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
    return ExportReport(
        folder, layout, snapshot.manifest.version, len(rows), captions, unreadable, size, rows.fit
    )


def _check_target(folder: Path, root: Path) -> None:
    if folder.is_relative_to(root):
        raise UsageError(f"{folder} is inside the store", "choose another folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "choose another one")
    with os_errors(folder):
        empty = next(folder.iterdir(), None) is None
    if not empty:
        raise UsageError(f"{folder} is not empty", "choose another folder, or remove this one")


def _note(
    snapshot: Snapshot,
    layout: ExportLayout,
    images: int,
    captions: int,
    where: str | None,
    *,
    with_location: bool,
) -> dict[str, Any]:
    """Return the content of ``mmindex.json``: the version, the model and the dimensions."""
    encoder = snapshot.encoder
    return {
        "mmindex": mmindex.__version__,
        "layout": layout,
        "version": snapshot.manifest.version,
        "created_at": snapshot.manifest.created_at,
        "model": encoder.model,
        "pretrained": encoder.pretrained,
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "images": images,
        "captions": captions,
        "where": where,
        "with_location": with_location,
    }


def _warn_of_unreadable(written: hugging_face.Written) -> None:
    if written.unreadable:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in written.reasons.items())
        get_logger("export").warning(
            "images that cannot be read are null", images=written.unreadable, reasons=reasons
        )
