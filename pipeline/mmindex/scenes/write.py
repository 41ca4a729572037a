"""Write scenes in COCO's layout or as webdataset shards, streamed in constant memory.

The bytes of every file depend only on the scenes (and on Pillow's JPEG encoder), not on time, file
owner or order of work. The caller passes a new folder and publishes it: nothing is renamed here.
"""

import io
import json
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.core.errors import UsageError, os_errors
from mmindex.core.system import die_with_parent
from mmindex.core.workers import WORKERS
from mmindex.scenes.captions import CAPTIONS_PER_SCENE, captions
from mmindex.scenes.draw import draw, encode
from mmindex.scenes.scene import make_scene
from mmindex.scenes.stored_zip import StoredZip
from mmindex.scenes.vocabulary import LAST_SEED, SCENES_VERSION, SIZE_PX

DEFAULT_SPLIT: Final = "scenes"
_CHUNK: Final = 64  # scenes that a worker makes at a time: 0.7 MB of JPEG
_AHEAD: Final = 3  # chunks in progress per worker, so that a slow disk does not fill the memory


@dataclass(frozen=True, slots=True)
class SceneRange:
    """The scenes `first` to `first + count - 1` of `seed`.

    Raises UsageError unless 0 <= seed < 2**63, count >= 1 and first >= 0.
    """

    seed: int
    count: int
    first: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LAST_SEED or self.count < 1 or self.first < 0:
            raise UsageError(
                f"no scenes {self.first} to {self.first + self.count - 1} of seed {self.seed}",
                "give at least one scene, and a seed from 0 to 2**63 - 1 (users: below 2**32)",
            )

    @property
    def numbers(self) -> range:
        """The numbers of its scenes."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True)
class Example:
    """One scene, ready to be written."""

    number: int
    jpeg: bytes
    captions: tuple[str, ...]


def file_name(number: int) -> str:
    """Return the name of scene `number`'s image, in COCO's form."""
    return f"{number:012d}.jpg"


def number_of(name: str) -> int:
    """Return a scene's number from an image name, path or id ("scenes/000000000012.jpg": 12)."""
    return int(name.rsplit("/", 1)[-1].split(".", 1)[0])


def examples(scenes: SceneRange, workers: int = 1) -> Iterator[Example]:
    """Yield the scenes in order, drawn by `workers` processes (1: this process)."""
    if workers <= 1:
        for number in scenes.numbers:
            yield _example(scenes.seed, number)
        return
    numbers = scenes.numbers
    chunks = (numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK))
    with ProcessPoolExecutor(workers, WORKERS, die_with_parent) as pool:
        waiting: deque[Future[list[Example]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_examples, scenes.seed, chunk))
            if len(waiting) >= workers * _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def write_coco(
    folder: Path,
    scenes: SceneRange,
    split: str = DEFAULT_SPLIT,
    zipped: bool = False,
    workers: int = 1,
) -> None:
    """Write `annotations/captions_SPLIT.json` and `SPLIT/*.jpg`, or `SPLIT.zip`, into `folder`.

    An image's id is its scene's number, also in its file name. Raises StorageError and related
    errors of the file system, also if a file with that name already exists.
    """
    with os_errors(folder):
        annotations = folder / "annotations"
        annotations.mkdir(parents=True, exist_ok=True)
        with (
            (annotations / f"captions_{split}.json").open("x", encoding="utf-8") as out,
            _image_sink(folder, split, zipped) as put,
        ):
            out.write(f'{{"info": {json.dumps(_info(scenes))}, "licenses": [], "images": [')
            for number in scenes.numbers:
                image = {"id": number, "file_name": file_name(number), **_SQUARE}
                out.write(_separator(number, scenes) + json.dumps(image))
            out.write('\n], "annotations": [')
            for example in examples(scenes, workers):
                put(file_name(example.number), example.jpeg)
                out.write(_separator(example.number, scenes) + ",\n".join(_annotations(example)))
            out.write("\n]}\n")


def write_webdataset(
    folder: Path, scenes: SceneRange, shard_size: int = 1000, workers: int = 1
) -> list[Path]:
    """Write `scenes-000000.tar`, ... of `shard_size` scenes each into `folder`; return their paths.

    Members of one scene are NUMBER.jpg, NUMBER.txt (the first caption) and NUMBER.json (all five
    under "captions", with "seed", "number", "width" and "height"). Raises UsageError if
    `shard_size` is below 1, StorageError and related errors of the file system.
    """
    if shard_size < 1:
        raise UsageError(f"a shard of {shard_size} scenes", "give a shard size of 1 or more")
    paths: list[Path] = []
    stream = examples(scenes, workers)
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for shard, start in enumerate(range(0, scenes.count, shard_size)):
            path = folder / f"scenes-{shard:06d}.tar"
            with path.open("xb") as out, tarfile.open(fileobj=out, mode="w") as tar:
                for _ in range(min(shard_size, scenes.count - start)):
                    _add_example(tar, next(stream), scenes.seed)
            paths.append(path)
    return paths


_SQUARE: Final = {"width": SIZE_PX, "height": SIZE_PX}


def _example(seed: int, number: int) -> Example:
    scene = make_scene(seed, number)
    texts = tuple(caption.text for caption in captions(scene))
    return Example(number, encode(draw(scene)), texts)


def _examples(seed: int, numbers: range) -> list[Example]:
    return [_example(seed, number) for number in numbers]


def _info(scenes: SceneRange) -> dict[str, object]:
    return {
        "description": f"mmindex scenes, seed {scenes.seed}",
        "version": str(SCENES_VERSION),
        "seed": scenes.seed,
        "first": scenes.first,
        "count": scenes.count,
    }


def _separator(number: int, scenes: SceneRange) -> str:
    return "\n" if number == scenes.first else ",\n"


def _annotations(example: Example) -> list[str]:
    start = example.number * CAPTIONS_PER_SCENE
    return [
        json.dumps({"id": start + place, "image_id": example.number, "caption": text})
        for place, text in enumerate(example.captions)
    ]


@contextmanager
def _image_sink(folder: Path, split: str, zipped: bool) -> Iterator[Callable[[str, bytes], object]]:
    if zipped:
        with StoredZip(folder / f"{split}.zip") as archive:
            yield lambda name, data: archive.add(f"{split}/{name}", data)
        return
    images = folder / split
    images.mkdir()
    yield lambda name, data: (images / name).write_bytes(data)


def _add_example(tar: tarfile.TarFile, example: Example, seed: int) -> None:
    about = {"captions": example.captions, "seed": seed, "number": example.number, **_SQUARE}
    key = file_name(example.number).removesuffix(".jpg")
    members = {
        "jpg": example.jpeg,
        "txt": example.captions[0].encode(),
        "json": json.dumps(about).encode(),
    }
    for extension, data in members.items():
        member = tarfile.TarInfo(f"{key}.{extension}")  # time 0, no owner, mode 0644
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
