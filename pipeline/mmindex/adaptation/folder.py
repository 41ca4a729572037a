"""Write an adapted model's folder, completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mmindex.core.durable import sync_path
from mmindex.core.errors import CannotCreateError, UsageError, os_errors
from mmindex.models.adapted import (
    MAPS_FILE,
    PARENT_FOLDER,
    Maps,
    config_text,
    parent_card,
    save_maps,
)
from mmindex.models.files import ModelFiles, is_adapted
from mmindex.models.resolve import CONFIG_FILE, LOCAL_DIR, ModelRequest
from mmindex.models.sharded import weight_files
from mmindex.store.manifest import EncoderInfo

REPORT_FILE: Final = "adapt.report.json"
_LATER: Final = ("fingerprint", "seconds")
# Files in a model's folder in addition to its weights: configurations and tokenizers.
_PARTS: Final = frozenset({".json", ".txt", ".gz", ".model"})
_PARTIAL: Final = ".partial"
_OLD: Final = ".old"


def check_free(out: Path, *, overwrite: bool) -> None:
    """Check that a folder can be created, is empty, or contains a model that can be replaced.

    Raises:
        UsageError: the folder is not empty.
        CannotCreateError: one of its parents is a file.
        PermissionDeniedError: there is no permission to create it.
        MmindexError: it cannot be read.
    """
    with os_errors(out):
        above = next(folder for folder in out.parents if folder.exists())
        if not above.is_dir():
            raise CannotCreateError(f"{above}: not a folder", "choose another `out`")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        adapted = out.is_dir() and (out / CONFIG_FILE).is_file()
    if not (adapted and is_adapted(out)):
        raise UsageError(f"{out} exists and is not an adapted model", "choose another `out`")
    if not overwrite:
        raise UsageError(f"{out} already contains a model", "set `overwrite`, or another `out`")


def write_folder(
    out: Path,
    parent: tuple[ModelRequest, ModelFiles, EncoderInfo],
    maps: Maps,
    report: Mapping[str, Any],
) -> None:
    """Write a folder next to the destination, sync it to disk, and rename it.

    A parent model that is found by name is referenced; one in a folder or file is copied, so that
    the new model still works after the original has moved or changed.

    Args:
        out: the destination; an existing adapted model is replaced.
        parent: the request for the parent, its files, and its identity.
        maps: the maps.
        report: the report of the run, without the values that are known only afterwards.

    Raises:
        MmindexError: something cannot be read or written.
    """
    request, files, info = parent
    partial = out.with_name(out.name + _PARTIAL)
    with os_errors(out):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            card = parent_card(_copied(request, files, partial / PARENT_FOLDER), info)
            save_maps(maps, partial / MAPS_FILE)
            known = {key: one for key, one in report.items() if key not in _LATER}
            text = json.dumps(known, indent=2) + "\n"
            (partial / REPORT_FILE).write_text(text, encoding="utf-8")
            (partial / CONFIG_FILE).write_text(config_text(card), encoding="utf-8")
            for path in (*partial.rglob("*"), partial):
                sync_path(path)
            _replace(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _replace(partial: Path, out: Path) -> None:
    old = out.with_name(out.name + _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    sync_path(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _copied(request: ModelRequest, files: ModelFiles, folder: Path) -> ModelRequest:
    """Return the request for the parent from the new folder; its own files are copied there."""
    if request.name.startswith(LOCAL_DIR) and request.folder is not None:
        chosen = {path.absolute() for path in files.inputs}
        for path in sorted(request.folder.rglob("*")):
            if path.is_file() and (path.absolute() in chosen or path.suffix in _PARTS):
                target = folder / path.relative_to(request.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        return ModelRequest(f"{LOCAL_DIR}{PARENT_FOLDER}", request.pretrained)
    if request.weights_path is not None:
        folder.mkdir(parents=True)
        for path in weight_files(request.weights_path):
            shutil.copyfile(path, folder / path.name)
        return ModelRequest(request.name, f"{PARENT_FOLDER}/{request.weights_path.name}")
    return request
