"""What a store has published, opened for reading: where every query starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmindex.core.errors import NoInputError
from mmindex.core.modality import Modality
from mmindex.store import versions
from mmindex.store.holds import Hold, take_current
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo, Manifest
from mmindex.store.objects import Objects

_NEEDED = ("encode", "index")


@dataclass(frozen=True, slots=True)
class Published:
    """One version that has been encoded and indexed; later publishes do not change it.

    It is held, so that no collection takes it away: until this is gone, or the process.
    """

    layout: Layout
    objects: Objects
    manifest: Manifest
    encoder: EncoderInfo
    hold: Hold

    def require_index(self, side: Modality) -> None:
        """Check that there is something to search.

        Raises:
            NoInputError: that side of the corpus is empty.
        """
        if side not in self.manifest.indexes:
            what = "captions" if side is Modality.TEXT else "images"
            other = Modality.IMAGE if side is Modality.TEXT else Modality.TEXT
            raise NoInputError(
                f"version {self.manifest.version} has no {what} to search",
                f"search the other side with `to={other}`, or build from a source that has {what}",
            )


def open_published(root: Path) -> Published:
    """Open the current version of the store at ``root``, ready to be searched.

    Raises:
        NoInputError: there is no store, no version, or a stage that searching needs has not run;
            the message names the missing stages.
        DataError: the manifest is damaged.
    """
    layout = versions.open_layout(root)
    hold = take_current(layout)
    if hold is None:
        raise NoInputError(f"{root}: nothing is published yet", "run `mmindex build` first")
    manifest = hold.manifest
    missing = [stage for stage in _NEEDED if stage not in manifest.stages]
    if missing or manifest.encoder is None:
        raise NoInputError(
            f"{root}: version {manifest.version} cannot be searched yet, it lacks "
            + " and ".join(missing or _NEEDED),
            f"run {', then '.join(f'`mmindex {stage}`' for stage in missing or _NEEDED)}",
        )
    return Published(layout, Objects(layout), manifest, manifest.encoder, hold)
