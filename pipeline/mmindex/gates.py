"""When a run must stop although nothing failed: too much is unusable, or too much is gone."""

from __future__ import annotations

import pyarrow.compute as pc

from mmindex.errors import DataError
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects

QUARANTINE_FLOOR = 10  # a handful of bad files in a small folder is no reason to stop


def quarantine_gate(seen: int, quarantined: int, share: float) -> None:
    """Stop when more than ``share`` of the items seen (and more than the floor) are unusable.

    Raises:
        DataError: too many are.
    """
    allowed = max(QUARANTINE_FLOOR, int(share * seen))
    if quarantined > allowed:
        raise DataError(
            f"{quarantined} of {seen} items are unusable, at most {allowed} may be",
            "see `mmindex quarantine list`; raise --max-quarantine to go on without them",
        )


def removal_gate(objects: Objects, before: Manifest, images: ObjectRef, share: float) -> None:
    """Stop when more than ``share`` of the last version's images are gone.

    An unmounted folder must not empty the index.

    Args:
        objects: where the tables lie.
        before: the version as published.
        images: the newly crawled ``images`` table.
        share: what may vanish, 0 to 1.

    Raises:
        DataError: more is gone.
    """
    table = before.find("crawl/images")
    if table is None or not table.rows:
        return
    old = objects.read_table(table, ["image_id"])["image_id"]
    new = objects.read_table(images, ["image_id"])["image_id"]
    gone = len(old) - (pc.sum(pc.is_in(old, value_set=new)).as_py() or 0)
    if gone > share * len(old):
        raise DataError(
            f"{gone} of the last version's {len(old)} images are gone, at most "
            f"{int(share * len(old))} may be",
            "is a source unmounted or moved? if this is meant, pass --max-removed 1",
        )
