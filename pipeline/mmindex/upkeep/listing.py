"""List the versions in a store with the reasons why gc keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.leftovers import read_versions
from mmindex.upkeep.gc import Retention, plan


def version_records(layout: Layout) -> list[dict[str, Any]]:
    """Return the records of ``mmindex versions --format json``, oldest version first.

    Raises:
        DataError: CURRENT is damaged. A damaged version is marked in its record.
    """
    current = versions.read_current(layout)
    found = read_versions(layout)
    created = {n: "" if isinstance(made, str) else made.created_at for n, made in found.items()}
    reasons = plan(created, current, Retention(), datetime.now(UTC))
    rows: list[dict[str, Any]] = []
    for number, made in found.items():
        published = current is not None and number == current.version
        if isinstance(made, str):
            rows.append({"version": number, "current": published, "damaged": made})
            continue
        rows.append(
            {
                "version": number,
                "current": published,
                "created_at": made.created_at,
                "images": made.counts.indexed,
                "captions": made.counts.captions,
                "model": made.encoder.model if made.encoder else None,
                "stages": made.stages,
                "restored_from": made.restored_from,
                "bytes": made.size_bytes,
                "kept_as": reasons[number],
            }
        )
    return rows
