"""The best recall that any model could reach, where the corpus's truth is known: drawn scenes.

Captions are short and scenes alike, so one caption may truly fit several pictures. No model can
tell those apart by the caption: recall has a ceiling, see :mod:`mmindex.scenes.ceiling`.
"""

from __future__ import annotations

from mmindex.evaluate.evaluation import Ceiling, CeilingBlock
from mmindex.scenes import ceiling
from mmindex.scenes.ceiling import Recalls
from mmindex.sources.kinds.scenes import parse_scenes
from mmindex.store.manifest import Manifest

# The work grows with the square; so many scenes take some ten seconds.
MAX_SCENES = 5_000


def scenes_ceiling(manifest: Manifest) -> Ceiling | None:
    """The ceiling of a version that holds one scenes corpus whole; None for every other."""
    if len(manifest.sources) != 1 or manifest.counts.quarantined:
        return None
    kind, _, where = manifest.sources[0].spec.partition(":")
    if kind != "scenes":
        return None
    scenes = parse_scenes(where)
    if scenes.count > MAX_SCENES:
        return None
    best = ceiling(scenes.seed, scenes.count)
    return Ceiling(
        text_to_image=_block(best.text_to_image), image_to_text=_block(best.image_to_text)
    )


def _block(best: Recalls) -> CeilingBlock:
    return CeilingBlock(r1=round(best.at_1, 4), r5=round(best.at_5, 4), r10=round(best.at_10, 4))
