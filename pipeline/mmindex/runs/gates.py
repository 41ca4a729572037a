"""When a run must stop although nothing failed: too much is unusable, or too much is gone."""

from __future__ import annotations

from mmindex.core.errors import DataError

QUARANTINE_FLOOR = 10  # a handful of bad files in a small folder is no reason to stop


def quarantine_gate(seen: int, quarantined: int, share: float) -> DataError | None:
    """The error when more than ``share`` of the items seen (and of the floor) are unusable."""
    allowed = max(QUARANTINE_FLOOR, int(share * seen))
    if quarantined <= allowed:
        return None
    return DataError(
        f"{quarantined} of {seen} items are unusable, at most {allowed} may be",
        "see `mmindex quarantine list`; raise `max_quarantine` to go on without them",
    )


def removal_gate(before: int, gone: int, share: float) -> DataError | None:
    """The error when more than ``share`` of the last version's images are gone.

    An unmounted folder must not empty the index.

    Args:
        before: how many images there were.
        gone: how many of them are not there any more.
        share: what may vanish, 0 to 1.
    """
    if gone <= share * before:
        return None
    return DataError(
        f"{gone} of the last version's {before} images are gone, at most "
        f"{int(share * before)} may be",
        "is a source unmounted or moved? if this is meant, pass `max_removed=1`",
    )
