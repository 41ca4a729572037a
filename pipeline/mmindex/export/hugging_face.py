"""The layout ``hf``: a Hugging Face dataset, with Parquet files that contain the image files.

``datasets.load_dataset(FOLDER)`` reads it, with one split for each value of the column ``split``
and the images as an ``Image`` feature. The metadata of the schema describes the features under
``huggingface``: https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa

from mmindex.core.config import LimitsConfig
from mmindex.core.errors import UsageError, os_errors
from mmindex.core.progress import counter
from mmindex.core.records import ItemError
from mmindex.core.system import usable_cores
from mmindex.encode.decoding import DecodePool, Failure, worker_bytes
from mmindex.export.files import TableFile, with_column
from mmindex.export.rows import Rows, vector_column
from mmindex.export.tables import VECTOR
from mmindex.media.images import ImageLimits
from mmindex.media.plain import Plain, plain_file
from mmindex.media.uris import read_indexed
from mmindex.media.video import split_frame
from mmindex.store.objects import contents

_GROUP_ROWS: Final = 100  # rows per row group, as the hub recommends for its viewer
_FILE_BYTES: Final = 500_000_000  # bytes of images per file, as the hub recommends
_MOST_SPLITS: Final = 100
_IMAGE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ONLY_SPLIT: Final = "train"  # the usual name for a single split; datasets reserves `all`
_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


@dataclass(frozen=True, slots=True)
class Written:
    """The number of images that cannot be read, in total and by reason."""

    unreadable: int
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Task:
    uri: str
    key: str
    form: str


@dataclass(frozen=True, slots=True)
class _Reader:
    """Read an image file in a worker, unchanged or without its metadata."""

    limits: ImageLimits
    as_it_is: bool

    def __call__(self, task: _Task) -> Plain | Failure:
        try:
            if self.as_it_is and split_frame(task.uri)[1] is None:
                data = read_indexed(task.uri, task.key, self.limits)
                return Plain(data, "")
            return plain_file(task.uri, task.key, task.form, self.limits)
        except ItemError as error:
            return Failure(error.reason, error.detail)


def write(rows: Rows, folder: Path, limits: LimitsConfig, *, with_location: bool) -> Written:
    """Write all rows with their image files.

    Image files are written without their metadata, which can contain locations. With
    ``with_location``, they are written unchanged. An image that cannot be read is null.

    Raises:
        UsageError: there are more splits than a dataset can have.
        DataError: the store is damaged.
        StorageError: the disk is full, or an I/O error occurs.
        InternalError: worker processes cannot be started.
    """
    with os_errors(folder):
        (folder / "data").mkdir()
    images = ImageLimits.of(limits)
    reasons: Counter[str] = Counter()
    splits: dict[str, _Split] = {}
    pool = DecodePool(
        _Reader(images, with_location),
        usable_cores(),
        limits.decode_timeout_s,
        worker_bytes(images.max_pixels),
    )
    with pool, ExitStack() as stack, counter(total=len(rows), label="export", unit="image") as bar:
        for table in _groups(rows):
            for split, part in _by_split(table):
                if split not in splits:
                    if len(splits) == _MOST_SPLITS:
                        raise UsageError(
                            f"the images have more than {_MOST_SPLITS} different splits",
                            "export fewer images with `where`, or choose `layout=parquet`",
                        )
                    splits[split] = stack.enter_context(closing(_Split(folder / "data", split)))
                files, failed = _files(pool, part)
                reasons.update(failed)
                splits[split].write(_described(with_column(part, "image", files)), files.nbytes)
                bar.update(len(part))
    card = _card(sorted(splits))
    with os_errors(folder):
        (folder / "README.md").write_text(card, encoding="utf-8")
    return Written(reasons.total(), dict(reasons.most_common()))


class _Split:
    """The files of one split."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._number = 0
        self._bytes = 0
        self._file: TableFile | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, table: pa.Table, image_bytes: int) -> None:
        """Append rows, to a new file if the last one is full."""
        if self._file is None or self._bytes >= _FILE_BYTES:
            self.close()
            self._file = TableFile(self._folder / f"{self._name}-{self._number:05d}.parquet")
            self._number, self._bytes = self._number + 1, 0
        self._file.write(table)
        self._bytes += image_bytes


def _groups(rows: Rows) -> Iterator[pa.Table]:
    """Yield the rows in small tables, because the images of a table are in memory together."""
    for block in rows.blocks():
        table = with_column(block.images, "captions", block.captions)
        table = with_column(table, VECTOR, vector_column(block.vectors))
        for start in range(0, table.num_rows, _GROUP_ROWS):
            yield table.slice(start, _GROUP_ROWS)


def _by_split(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    names = [_split_name(value) for value in contents(table["split"])]
    for name in dict.fromkeys(names):
        yield name, table.filter(pa.array([one == name for one in names]))


def _split_name(value: str | None) -> str:
    """Return a split name that datasets allows: letters, digits and underscores."""
    return _ONLY_SPLIT if not value or value == "all" else re.sub(r"\W", "_", value)


def _files(
    pool: DecodePool[_Task, Plain | Failure], table: pa.Table
) -> tuple[pa.StructArray, Counter[str]]:
    columns = (contents(table[name]) for name in ("uri", "key", "format"))
    tasks = [_Task(*values) for values in zip(*columns, strict=True)]
    reasons: Counter[str] = Counter()
    files: list[dict[str, object] | None] = []
    for task, found in pool.results(tasks, 2 * usable_cores()):
        if isinstance(found, Failure):
            reasons[str(found.reason)] += 1
            files.append(None)
            continue
        name = PurePosixPath(re.split(r"[!#]", task.uri)[0]).name
        if found.media_type:
            name = PurePosixPath(name).stem + _SUFFIXES[found.media_type]
        files.append({"bytes": found.data, "path": name})
    return pa.array(files, _IMAGE), reasons


def _described(table: pa.Table) -> pa.Table:
    features = {field.name: _feature(field.type) for field in table.schema}
    described = {"info": {"features": features}}
    return table.replace_schema_metadata({"huggingface": json.dumps(described)})


def _feature(kind: pa.DataType) -> Any:
    """Return the feature description of datasets for an Arrow type."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    name = {"double": "float64", "float": "float32"}.get(str(kind), str(kind))
    return {"dtype": name, "_type": "Value"}


def _card(splits: list[str]) -> str:
    """Return a dataset card that lists the files of each split."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---", "", "# Images exported by mmindex", ""])
