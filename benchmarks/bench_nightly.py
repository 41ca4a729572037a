"""A nightly job over a corpus in which 1 % has changed, compared with a new build.

    bench_nightly.py [--images 50000] [--index auto]

The scenes are drawn into a folder with the layout of COCO. A third of the changed images is
removed, a third is replaced under the same name, and a third is new. The job is compared with a
build of the changed corpus in an empty store, and with a run in which nothing has changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchkit.process import MMINDEX, Ran, run
from benchkit.report import Report, options_of

SEED = 4_242
_SHARE = 0.01


def draw(folder: Path, images: int, spare: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw scenes 0 .. images-1 into ``folder``, ``spare`` more next to it, and the annotations."""
    from mmindex.scenes import SceneRange, write_coco

    write_coco(folder, SceneRange(SEED, images, 0), split="val2017", workers=2)
    more = folder.with_name("spare")
    write_coco(more, SceneRange(SEED, spare, images), split="val2017")
    path = Path("annotations", "captions_val2017.json")
    first, second = (json.loads((root / path).read_text()) for root in (folder, more))
    return first, second


def change(folder: Path, corpus: dict[str, Any], spare: dict[str, Any]) -> None:
    """Remove, replace and add images: one third of the number of spare scenes each."""
    third = len(spare["images"]) // 3
    images, more = folder / "val2017", folder.with_name("spare") / "val2017"
    step = len(corpus["images"]) // (2 * third)
    gone = [image["id"] for image in corpus["images"][::step][:third]]
    other = list(corpus["images"][1::step][:third])
    texts: dict[int, list[str]] = {}
    for note in spare["annotations"]:
        texts.setdefault(note["image_id"], []).append(note["caption"])
    for image, donor in zip(other, spare["images"][:third], strict=True):
        shutil.copyfile(more / donor["file_name"], images / image["file_name"])
        own = [note for note in corpus["annotations"] if note["image_id"] == image["id"]]
        for note, text in zip(own, texts[donor["id"]], strict=False):
            note["caption"] = text
    for image in spare["images"][third:]:
        shutil.copyfile(more / image["file_name"], images / image["file_name"])
    new = {image["id"] for image in spare["images"][third:]}
    left = set(gone)
    corpus["images"] = [i for i in corpus["images"] if i["id"] not in left]
    corpus["annotations"] = [n for n in corpus["annotations"] if n["image_id"] not in left]
    corpus["images"] += spare["images"][third:]
    first = 1 + max(note["id"] for note in corpus["annotations"])
    added = [note for note in spare["annotations"] if note["image_id"] in new]
    corpus["annotations"] += [{**note, "id": first + n} for n, note in enumerate(added)]
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(corpus))


def files(store: Path) -> dict[Path, tuple[int, int]]:
    """Return the inode and size of every file of a store."""
    paths = (path for path in store.rglob("*") if path.is_file())
    return {path: ((stat := path.stat()).st_ino, stat.st_size) for path in paths}


def build(store: Path, folder: Path, index: str) -> tuple[Ran, int]:
    """Build, and return how many bytes of the store are new."""
    before = files(store)
    ran = run(
        [
            *(*MMINDEX, "build", "--store", store, "--model", "embedded", "--index", index),
            *("--source", f"coco:{folder}#val2017"),
        ]
    )
    new = sum(entry[1] for path, entry in files(store).items() if before.get(path) != entry)
    return ran, new


def row(name: str, ran: Ran, written: int, store: Path) -> dict[str, Any]:
    status = run([*MMINDEX, "status", "--store", store, "--format", "json"]).json()
    evaluation = status["evaluation"]
    newest = max((store / "runs").glob("*.json"))
    seconds = json.loads(newest.read_text())["seconds"]
    return {
        "job": name,
        "seconds": ran.wall_s,
        **{f"{stage} s": seconds.get(stage) for stage in ("crawl", "encode", "index", "evaluate")},
        "MB written": written / 1e6,
        "peak MB": ran.peak_mb,
        "t2i r@10 index": evaluation["text_to_image_index"]["r@10"],
        "i2t r@10 index": evaluation["image_to_text_index"]["r@10"],
        "index recall image": evaluation["index_recall@10"]["image"],
        "index recall text": evaluation["index_recall@10"]["text"],
    }


def measure(root: Path, options: argparse.Namespace) -> None:
    report = Report("nightly", options)
    folder, store, fresh = root / "corpus", root / "store", root / "fresh"
    corpus, spare = draw(folder, options.images, round(options.images * _SHARE))
    rows = [row("first build", *build(store, folder, options.index), store)]
    change(folder, corpus, spare)
    rows.append(row("1 % changed", *build(store, folder, options.index), store))
    rows.append(row("nothing changed", *build(store, folder, options.index), store))
    rows.append(row("the same corpus, new store", *build(fresh, folder, options.index), fresh))
    report.table("nightly job", rows)
    night, full = rows[1], rows[3]
    report.table(
        "nightly job compared with a full build",
        [
            {
                "seconds": night["seconds"] / full["seconds"],
                "bytes": night["MB written"] / full["MB written"],
                "points of recall lost, t2i": full["t2i r@10 index"] - night["t2i r@10 index"],
                "i2t": full["i2t r@10 index"] - night["i2t r@10 index"],
            }
        ],
    )


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--images", type=int, help="[default: 5,000; with --full 50,000]")
    parser.add_argument("--index", default="auto", help="as in mmindex build")
    parser.add_argument("--folder", type=Path, help="default: the temporary folder")
    options = parser.parse_args()
    options.images = options.images or (50_000 if options.full else 5_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options)


if __name__ == "__main__":
    main()
