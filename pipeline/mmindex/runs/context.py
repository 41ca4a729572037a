"""What the stages of one run share, and when a run must stop although nothing failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmindex.core.config import Config
from mmindex.core.errors import DataError
from mmindex.encode.work import EncoderSource
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

QUARANTINE_FLOOR = 10  # a handful of bad files in a small folder is no reason to stop


@dataclass(slots=True)
class Context:
    """What every stage of one run shares.

    Attributes:
        layout, objects: the store.
        config: the run's settings.
        run_id: its name.
        parent: the published version.
        encoder: the model, once it is known.
        retry: try again what earlier runs could not encode, instead of believing them.
        reports: collects the stages' own numbers.
    """

    layout: Layout
    objects: Objects
    config: Config
    run_id: str
    parent: Manifest | None
    encoder: EncoderSource | None = None
    retry: bool = False
    reports: dict[str, Any] = field(default_factory=dict)

    def snapshot(self, draft: Manifest) -> Snapshot:
        """A draft with the store's objects."""
        return Snapshot(self.objects, draft)


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


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds as reports show them."""
    return {name: round(value, 3) for name, value in seconds.items()}


def survivors(images: ObjectRef, captions: ObjectRef, kept_out: ObjectRef) -> tuple[ObjectRef, ...]:
    """The tables that search and evaluation read."""
    return images.named("images"), captions.named("captions"), kept_out.named("quarantine")


def after_change(draft: Manifest, **changes: Any) -> Manifest:
    """A draft whose later stages no longer hold."""
    return msgspec.structs.replace(
        draft, indexes={}, evaluation=None, evaluation_inputs="", **changes
    )
