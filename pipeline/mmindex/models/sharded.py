"""Weights in several safetensors files with an index, as transformers saves large models.

Format: https://huggingface.co/docs/huggingface_hub/package_reference/serialization
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.models.resolve import INDEX, read_config

_AGAIN: Final = "copy the whole folder again"


def is_index(path: Path) -> bool:
    """Return whether a weights file is the index of several files."""
    return path.name.endswith(INDEX)


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the weights files: the file itself and, for an index, its shards.

    Raises:
        DataError: the index does not list the shard of each tensor.
        NoInputError: a shard is missing.
    """
    return (path, *dict.fromkeys(_places(path).values())) if is_index(path) else (path,)


def shard_names(index: Path) -> Sequence[str]:
    """Return the sorted file names in an index.

    Raises:
        DataError: as :func:`weight_files`.
    """
    return sorted(set(_weight_map(index).values()))


@contextmanager
def as_one_file(path: Path) -> Iterator[Path]:
    """Yield the weights as one safetensors file; shards are joined in a temporary folder.

    This takes memory and space in the temporary folder of the size of the weights.

    Raises:
        DataError: a tensor in the index is missing from its shard, or a shard is damaged.
        NoInputError: a shard is missing.
        StorageError: the temporary folder is full.
    """
    if not is_index(path):
        yield path
        return
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    places, tensors = _places(path), {}
    for shard in dict.fromkeys(places.values()):
        try:
            with safe_open(shard, framework="pt") as file:
                there = set(file.keys())
                for name in (name for name, place in places.items() if place == shard):
                    if name not in there:
                        raise DataError(f"weights {shard}: {name} is missing, {path} names it")
                    tensors[name] = file.get_tensor(name)
        except SafetensorError as error:
            raise DataError(f"weights {shard}: damaged: {error}", _AGAIN) from error
    with tempfile.TemporaryDirectory(prefix="mmindex-weights-") as folder:
        joined = Path(folder) / "open_clip_model.safetensors"
        with os_errors(joined):
            save_file(tensors, joined)
        tensors.clear()
        yield joined


def _places(index: Path) -> dict[str, Path]:
    """Return the shard of each tensor."""
    places = {name: index.parent / shard for name, shard in _weight_map(index).items()}
    for shard in dict.fromkeys(places.values()):
        if not shard.is_file():
            raise NoInputError(f"weights {shard}: no such file, {index.name} names it", _AGAIN)
    return places


def _weight_map(index: Path) -> dict[str, str]:
    found = read_config(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise DataError(f"{index}: no weight_map that names the shards of the tensors")
    for shard in found.values():
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard:
            raise DataError(f"{index}: {shard!r} is not the name of a file next to it")
        if not shard.endswith(".safetensors"):
            raise DataError(f"{index}: {shard!r} is not a .safetensors file")
    return found
