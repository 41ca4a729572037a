"""The file of learned labels: what is written is read, and anything else is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmindex.core.errors import (
    CannotCreateError,
    DataError,
    ModelMismatchError,
    NoInputError,
    UsageError,
)
from mmindex.insight.classify import Cache, Classifier
from mmindex.insight.learned import check_learned_target, load_learned, save_learned
from mmindex.models.fingerprint import _in_precision
from support.models import fake_info

INFO = fake_info()
HOSTILE = "blue \x1b[2J \u202e <b>"


def classifier(*, cached: bool) -> Classifier:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, INFO.dim)).astype(np.float32)
    images = np.eye(4, INFO.dim, dtype=np.float32)
    cache = Cache(images, np.array([0, 1, 2, 2]), 2.0, 5.0) if cached else None
    return Classifier(("a", HOSTILE, "狗"), vectors, 20.0, cache)


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_written_is_read(tmp_path: Path, cached: bool) -> None:
    path, saved = tmp_path / "l.safetensors", classifier(cached=cached)
    save_learned(path, saved, "probe", INFO)
    found = load_learned(path, INFO)
    images = np.eye(INFO.dim, dtype=np.float32)
    assert found.labels == saved.labels
    assert np.array_equal(found.logits(images), saved.logits(images))
    first = path.read_bytes()
    save_learned(path, saved, "probe", INFO)
    assert path.read_bytes() == first


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    save_learned(path, classifier(cached=False), "probe", INFO)
    with pytest.raises(ModelMismatchError, match="not with") as error:
        load_learned(path, fake_info(seed=1))
    assert "`learn`" in error.value.hint


def cut(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["labels"] = card["labels"][:2]


def twice(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["labels"][1] = "a"


def numbers(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["labels"] = [1, 2, 3]


def no_scale(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["scale"] = float("nan")


def bad_cache(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["cache"] = [1.0]


def huge_scale(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["scale"] = 10**400


def absurd_scale(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["scale"] = 1e308


def negative_scale(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["scale"] = -1.0


def blunt_cache(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["cache"] = [2.0, -1e300]


def heavy_cache(card: dict[str, Any], _: dict[str, Any]) -> None:
    card["cache"] = [65.0, 5.0]


def long_vectors(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["vectors"][:] = 3e38


def long_images(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["cache.images"][:] = 10.0


def many_images(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["cache.labels"] = np.zeros(10_001, dtype=np.int64)
    tensors["cache.images"] = np.zeros((10_001, INFO.dim), dtype=np.float32)


def infinite(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["vectors"][0, 0] = np.inf


def half(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["vectors"] = tensors["vectors"].astype(np.float16)


def no_vectors(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    del tensors["vectors"]


def wrong_label(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["cache.labels"][0] = 3


def no_cache(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    del tensors["cache.labels"]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        twice,
        numbers,
        no_scale,
        huge_scale,
        absurd_scale,
        negative_scale,
        bad_cache,
        blunt_cache,
        heavy_cache,
        long_vectors,
        long_images,
        many_images,
        infinite,
        half,
        no_vectors,
        wrong_label,
        no_cache,
    ],
)
def test_a_damaged_file_is_an_error(
    tmp_path: Path, damage: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    from safetensors import safe_open

    path = tmp_path / "l.safetensors"
    save_learned(path, classifier(cached=True), "tip-adapter", INFO)
    with safe_open(path, framework="np") as file:
        card = json.loads(file.metadata()["mmindex.labels"])
    tensors = load_file(path)
    damage(card, tensors)
    save_file(tensors, path, metadata={"mmindex.labels": json.dumps(card)})
    with pytest.raises(DataError, match="damaged") as error:
        load_learned(path, INFO)
    assert "`learn`" in error.value.hint


def test_a_type_that_numpy_lacks_is_an_error_only_where_it_matters(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    save_learned(path, classifier(cached=False), "probe", INFO)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header, data = json.loads(path.read_bytes()[8 : 8 + length]), path.read_bytes()[8 + length :]

    def write(name: str) -> None:
        odd = {"dtype": "F8_E4M3", "shape": [3, INFO.dim]}
        end = len(data) + 3 * INFO.dim
        tensors = {**header, name: odd | {"data_offsets": [len(data), end]}}
        if name == "vectors":
            tensors |= {"rest": {**header["vectors"]}}
        text = json.dumps(tensors).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data + bytes(3 * INFO.dim))

    write("further")
    assert load_learned(path, INFO).labels == ("a", HOSTILE, "狗")
    write("vectors")
    with pytest.raises(DataError, match="vectors has the type F8_E4M3"):
        load_learned(path, INFO)


def test_another_precision_of_the_model_is_accepted(tmp_path: Path) -> None:
    path, saved = tmp_path / "l.safetensors", classifier(cached=False)
    full, half = (
        msgspec.structs.replace(INFO, precision=one, fingerprint=_in_precision(INFO, one))
        for one in ("fp32", "bf16")
    )
    save_learned(path, saved, "probe", full)
    assert load_learned(path, half).labels == saved.labels


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64])
def test_another_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "l.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError):
        load_learned(path, INFO)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(DataError, match="no learned labels"):
        load_learned(path, INFO)
    with pytest.raises(NoInputError):
        load_learned(tmp_path / "none.safetensors", INFO)


def test_the_target_is_checked_before_learning(tmp_path: Path) -> None:
    check_learned_target(tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="extension"):
        check_learned_target(tmp_path / "x.json")
    with pytest.raises(CannotCreateError):
        check_learned_target(tmp_path / "none" / "x.safetensors")
