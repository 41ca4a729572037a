"""Captioned scenes: drawn images with five captions each, made from (seed, number) alone.

`make_scene(seed, number)` returns the ground truth, `draw` its image, `captions` five sentences
with their assertions, `fits` whether an assertion is true of a scene, and `ceiling` the best
possible recall; `write_coco` and `write_webdataset` write a range of scenes to disk.
"""

from mmindex.scenes.captions import Caption, captions, complete
from mmindex.scenes.ceiling import Ceiling, Recalls, ceiling
from mmindex.scenes.claims import Claim, Mention, Relation, fits
from mmindex.scenes.draw import draw, encode
from mmindex.scenes.scene import Scene, Spot, Thing, make_scene
from mmindex.scenes.vocabulary import LAST_SEED, RESERVED_SEED, SCENES_VERSION
from mmindex.scenes.write import SceneRange, file_name, number_of, write_coco, write_webdataset

__all__ = [
    "LAST_SEED",
    "RESERVED_SEED",
    "SCENES_VERSION",
    "Caption",
    "Ceiling",
    "Claim",
    "Mention",
    "Recalls",
    "Relation",
    "Scene",
    "SceneRange",
    "Spot",
    "Thing",
    "captions",
    "ceiling",
    "complete",
    "draw",
    "encode",
    "file_name",
    "fits",
    "make_scene",
    "number_of",
    "write_coco",
    "write_webdataset",
]
