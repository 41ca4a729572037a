"""Recall of the ways to combine images, captions and words, for captions that are not indexed.

    python benchmarks/bench_fusion.py [--photos COCO_DIR] [--count 1000] [--seed 4242]

The corpus consists of drawn scenes with the embedded model, or of COCO photographs with `photos`.
One caption of each image is the query. Of the other captions, four, one or none are indexed:

- vectors: the vectors of the images only;
- late: the query and a second caption as one composed query;
- early: a store of vectors that contain the captions (`export --fuse-captions`);
- hybrid: the vectors of the images, and the words of the captions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mmindex
from mmindex.scenes import captions, draw, encode, make_scene

INDEXED = (4, 1, 0)
K = 10


@dataclass(frozen=True)
class Item:
    """An image with its captions; the first one is the query."""

    name: str
    data: bytes
    captions: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, help="a folder with the layout of COCO val2017")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=4242)
    options = parser.parse_args()
    if options.photos is None:
        items, model = list(scenes(options.seed, options.count)), "embedded"
    else:
        items, model = list(photos(options.photos)), "photos"
    print(f"{len(items):,} images, model {model}: recall@1 / recall@{K} in percent")
    for indexed in INDEXED:
        with tempfile.TemporaryDirectory() as folder:
            measure(items, model, indexed, Path(folder))


def scenes(seed: int, count: int) -> Iterable[Item]:
    for number in range(count):
        scene = make_scene(seed, number)
        texts = tuple(caption.text for caption in captions(scene))
        yield Item(f"{number:06d}.jpg", encode(draw(scene)), texts)


def photos(root: Path) -> Iterable[Item]:
    found = json.loads((root / "annotations" / "captions_val2017.json").read_text("utf-8"))
    said: dict[int, list[str]] = {}
    for one in found["annotations"]:
        said.setdefault(one["image_id"], []).append(one["caption"].strip())
    for image in found["images"]:
        path = root / "val2017" / image["file_name"]
        if path.is_file() and len(said.get(image["id"], ())) >= 2:
            yield Item(image["file_name"], path.read_bytes(), tuple(said[image["id"]][:5]))


def measure(items: Sequence[Item], model: str, indexed: int, work: Path) -> None:
    images = work / "images"
    images.mkdir()
    with (images / "captions.jsonl").open("w", encoding="utf-8") as lines:
        for item in items:
            (images / item.name).write_bytes(item.data)
            record = {"file": item.name, "captions": item.captions[1 : 1 + indexed]}
            lines.write(json.dumps(record) + "\n")
    mmindex.build(work / "store", [images], model=model)
    names = [item.name for item in items]
    queries = [item.captions[0] for item in items]
    with mmindex.open(work / "store") as index:
        found = {
            "vectors": list(index.search_many(queries, k=K)),
            "late": [index.search(one.captions[0], plus=one.captions[1], k=K) for one in items],
            "hybrid": list(index.search_many(queries, k=K, hybrid=True)),
        }
        fit = index.export(work / "fused", fuse_captions=True).fit
    mmindex.build(work / "items", [f"embeddings:{work / 'fused'}"], model=model)
    with mmindex.open(work / "items") as index:
        found["early"] = list(index.search_many(queries, k=K))
    weight = 0.0 if fit is None else fit.weight
    shown = "  ".join(f"{name} {figures(names, hits)}" for name, hits in found.items())
    print(f"{indexed} captions indexed: {shown}  (weight of captions {weight:g})", flush=True)


def figures(names: Sequence[str], answers: Sequence[mmindex.Hits]) -> str:
    ranks = np.array([
        next((hit.rank for hit in hits if Path(hit.id).name == name), K + 1)
        for name, hits in zip(names, answers, strict=True)
    ])  # fmt: skip
    return f"{100 * np.mean(ranks <= 1):.1f} / {100 * np.mean(ranks <= K):.1f}"


if __name__ == "__main__":
    main()
