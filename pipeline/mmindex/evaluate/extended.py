"""Known right answers of COCO's test split beyond a query's own: ECCV Caption and CxC.

COCO has five captions per image, and many of them also fit other images, which recall counts as
wrong. ECCV Caption (S. Chun et al., ECCV 2022: people verified answers of five models) and CxC
(Z. Parekh et al., EACL 2021: people rated similarities) list many of these right answers. Both are
in the package ``eccv-caption``, for Karpathy's test split of 5,000 images.

The lists name captions by their numbers in COCO, and stores by their positions below an image. The
package also has the numbers in the order of Karpathy's file, five for each image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from mmindex.core.errors import DataError, MissingPackageError, UsageError, os_errors
from mmindex.store.snapshot import Snapshot

EXTENDED: Final = {"eccv-caption": "eccv", "cxc": "cxc"}
"""The names of the lists, and the beginnings of their file names."""
_PACKAGE: Final = "eccv-caption"
_EACH: Final = 5  # captions per image in the lists; a few images have more
_NUMBER: Final = "coco_id"  # a column of coco-karpathy: sources

Pair = tuple[bytes, bytes]


def extended_pairs(snapshot: Snapshot, name: str) -> Iterator[Pair]:
    """Yield the right answers of a list as ids of queries and of answers, in both directions.

    Ids that are not in the version are named by their numbers in COCO, such as ``image 179765``.
    Captions outside the test split, of which ECCV Caption has some, are left out.

    Raises:
        UsageError: the version is not made from Karpathy's file.
        MissingPackageError: the package is not installed.
        DataError: the files of the package are damaged.
    """
    images = _images(snapshot)
    data = _data_folder()
    own = _read(data / "original_caption_to_image.json")
    captions = _captions(images, own, data / "coco_test_ids.npy")
    prefix = EXTENDED[name]
    for caption, found in _read(data / f"{prefix}_caption_to_image.json").items():
        for image in found:
            yield captions[caption], _image_id(images, image)
    for image, said in _read(data / f"{prefix}_image_to_caption.json").items():
        for caption in said:
            if caption in captions:
                yield _image_id(images, image), captions[caption]


def _images(snapshot: Snapshot) -> dict[int, bytes]:
    """Return the id of each image by its number in COCO."""
    with snapshot.open_parquet("images") as file:
        known = _NUMBER in file.schema_arrow.names
    if not known:
        raise UsageError(
            "this version has no numbers of COCO, so lists of right answers do not apply to it",
            "build from `coco-karpathy:PATH#test`, or name a file in TREC form",
        )
    table = snapshot.table("images", ["image_id", _NUMBER])
    ids = table["image_id"].cast(pa.binary()).to_pylist()
    return dict(zip(table[_NUMBER].to_pylist(), ids, strict=True))


def _captions(images: dict[int, bytes], own: dict[int, list[int]], order: Path) -> dict[int, bytes]:
    """Return the id of each caption of the test split by its number in COCO."""
    with os_errors(order):
        numbers = np.load(order, allow_pickle=False).reshape(-1, _EACH).tolist()
    return {
        number: _image_id(images, own[number][0]) + b"#%d" % place
        for five in numbers
        for place, number in enumerate(five)
    }


def _image_id(images: dict[int, bytes], number: int) -> bytes:
    return images.get(number, b"image %d" % number)


def _data_folder() -> Path:
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError as error:
        raise MissingPackageError(
            f"the lists of right answers are in the package {_PACKAGE}, which is not installed",
            "pip install 'mmindex[eccv]'",
        ) from error
    return Path(str(package.locate_file("eccv_caption/data")))


def _read(path: Path) -> dict[int, list[int]]:
    with os_errors(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}", "install the package eccv-caption again") from error
    return {int(number): found for number, found in content.items()}
