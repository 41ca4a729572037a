"""The contents of a store and the outcome of its last runs, in JSON form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mmindex.keywords.names import keyword_facts
from mmindex.runs.report import RunReport
from mmindex.store.manifest import Manifest


def status_record(
    root: Path, manifest: Manifest, last: RunReport | None, success: RunReport | None
) -> dict[str, Any]:
    """Return the record that ``mmindex status --format json`` prints.

    Args:
        root: the store.
        manifest: the version.
        last: the newest run, if any is recorded.
        success: the newest successful run, if any is recorded.
    """
    shown = msgspec.structs.asdict(manifest)
    del shown["objects"]
    runs = {"last_run": run_record(last), "last_success": run_record(success)}
    extra = {
        "store": str(root),
        "bytes": manifest.size_bytes,
        "keywords": keyword_facts(manifest),
        **runs,
    }
    record: dict[str, Any] = msgspec.to_builtins({**shown, **extra})
    return record


def run_record(report: RunReport | None) -> dict[str, Any] | None:
    """Return the main facts of a run; None if there is none."""
    if report is None:
        return None
    names = ("run_id", "outcome", "exit_code", "started_at", "ended_at", "version", "error")
    return {name: getattr(report, name) for name in names}
