"""``scenes:COUNT[@SEED]``: drawn scenes, written once to the downloads of the store.

Scenes are written in parts of at most 10,000 in COCO layout with the images in a zip, so that
memory does not depend on the count. Existing parts are reused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mmindex.core.errors import UsageError
from mmindex.core.records import SourceEvent, SourceItem
from mmindex.media.places import require_place
from mmindex.scenes import SCENES_VERSION, SceneRange, write_coco
from mmindex.sources.annotations import read_bytes
from mmindex.sources.base import Kind, Needs, Place, Request, SourceSpec
from mmindex.sources.kinds.coco import CocoSplit, split_events
from mmindex.store.layout import Layout
from mmindex.store.publish import staged_directory

DEFAULT_SEED: Final = 0
PART_SCENES: Final = 10_000
_SPLIT: Final = "scenes"
_FORM: Final = re.compile(r"(?P<count>[0-9]{1,12})(?:@(?P<seed>[0-9]{1,19}))?")
# Below this, starting processes takes longer than drawing (about 1,000 scenes per second and core).
_PARALLEL_FROM: Final = 4_000
_MAX_WORKERS: Final = 8
# Bytes of image and captions, measured with 1,000 scenes.
_SCENE_BYTES: Final = 11_000
_SCENE_CAPTIONS: Final = 5


@dataclass(frozen=True, slots=True)
class ScenesSpec:
    """The number and the seed of the scenes."""

    count: int
    seed: int

    @property
    def parts(self) -> list[SceneRange]:
        """The ranges of scenes in the corpus."""
        starts = range(0, self.count, PART_SCENES)
        return [
            SceneRange(self.seed, min(PART_SCENES, self.count - start), start) for start in starts
        ]


def parse_scenes(where: str) -> ScenesSpec:
    """Parse ``COUNT[@SEED]``.

    Raises:
        UsageError: it has another form, the count is 0, or the seed is out of range.
    """
    match = _FORM.fullmatch(where)
    if match is None or not int(match["count"]):
        raise UsageError(
            f"scenes:{where}: expected COUNT or COUNT@SEED",
            "for example scenes:2000 or scenes:500@7",
        )
    spec = ScenesSpec(int(match["count"]), int(match["seed"] or DEFAULT_SEED))
    SceneRange(spec.seed, spec.count)  # raises an error for a seed that is out of range
    return spec


def read_scenes(request: Request) -> Iterator[SourceEvent]:
    """Stream drawn scenes and draw missing ones; requires the lock of the store.

    Raises:
        StorageError: the disk is full.
    """
    layout = request.options.layout
    for scenes in parse_scenes(request.spec.where).parts:
        folder = _part_folder(layout, scenes)
        if not folder.is_dir():
            parallel = scenes.count >= _PARALLEL_FROM
            workers = min(os.cpu_count() or 1, _MAX_WORKERS) if parallel else 1
            with staged_directory(layout, folder) as aside:
                write_coco(aside, scenes, split=_SPLIT, zipped=True, workers=workers)
        captions = folder / "annotations" / f"captions_{_SPLIT}.json"
        split = CocoSplit(
            name="all",
            id_prefix="",
            where=str(captions),
            captions=read_bytes(captions),
            images=require_place(folder, (_SPLIT,), request.options.max_bytes),
        )
        for event in split_events(split):  # the files do not belong to the user
            yield replace(event, name="") if isinstance(event, SourceItem) else event


def _needs(spec: SourceSpec, layout: Layout) -> Needs:
    scenes = parse_scenes(spec.where)
    missing = sum(part.count for part in scenes.parts if not _part_folder(layout, part).is_dir())
    return Needs(
        what=f"would draw {missing:,} scenes" if missing else "",
        bytes=missing * _SCENE_BYTES,
        images=scenes.count,
        captions=_SCENE_CAPTIONS * scenes.count,
    )


def _check(spec: SourceSpec) -> None:
    parse_scenes(spec.where)
    if spec.split:
        raise UsageError(f"{str(spec)!r}: scenes have no splits", "remove # and the text after it")


def _part_folder(layout: Layout, scenes: SceneRange) -> Path:
    """Return the folder of a part; the name of an incomplete part contains its count."""
    number = scenes.first // PART_SCENES
    short = "" if scenes.count == PART_SCENES else f"-{scenes.count}"
    corpus = f"scenes-v{SCENES_VERSION}-{scenes.seed}"
    return layout.downloads_dir / corpus / f"part-{number:05d}{short}"


KIND: Final = Kind(
    name="scenes",
    place=Place.NO_PATH,
    form="COUNT[@SEED]",
    example="scenes:2000@7",
    summary="drawn scenes with five captions each; any number, no download",
    read=read_scenes,
    label=lambda spec: str(parse_scenes(spec.where).seed),
    check=_check,
    needs=_needs,
)
