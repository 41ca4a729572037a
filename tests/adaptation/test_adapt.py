"""From a store to an adapted model and back, with a tiny model and drawn images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import mmindex
from mmindex.adaptation.adapt import AdaptReport
from mmindex.adaptation.folder import REPORT_FILE
from mmindex.adaptation.measure import Gain
from mmindex.core.config import Config
from mmindex.core.errors import (
    CannotCreateError,
    DataError,
    ModelMismatchError,
    NoInputError,
    StorageError,
    UsageError,
)
from mmindex.encode.stage import with_maps
from mmindex.encode.work import EncoderSource
from mmindex.models.adapted import MAPS_FILE, load_maps
from mmindex.models.fingerprint import fingerprint_of
from mmindex.models.resolve import CONFIG_FILE, resolve_model
from mmindex.search.vectorize import Vectorizer
from support.adapting import build_squares, coloured_squares
from support.models import TinyModel, save_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("corpus") / "squares")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, squares: Path, tiny_model: TinyModel) -> Path:
    """A store of drawn squares with captions; do not change it."""
    root = tmp_path_factory.mktemp("stores") / "store"
    build_squares(root, squares, tiny_model)
    return root


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, built: Path) -> AdaptReport:
    return mmindex.adapt(built, out=tmp_path_factory.mktemp("models") / "adapted")


def vectors(store: Path, side: str) -> dict[str, np.ndarray]:
    with mmindex.open(store) as index:
        ids, rows = index.vectors(side)
    return dict(zip(ids, np.asarray(rows, dtype=np.float64), strict=True))


def test_a_model_that_finds_more_is_written(adapted: AdaptReport, built: Path):
    assert adapted.adapted
    assert adapted.gain.both.low > 5
    assert (adapted.images, adapted.captions, adapted.tested) == (96, 96, 96)
    assert adapted.out is not None
    assert {path.name for path in adapted.out.iterdir()} == {
        CONFIG_FILE,
        MAPS_FILE,
        REPORT_FILE,
        "parent",
    }
    saved = json.loads((adapted.out / REPORT_FILE).read_text())
    assert saved["gain"]["both"]["value"] == adapted.gain.both.value
    assert saved["parent"]["fingerprint"] == adapted.parent.fingerprint
    with mmindex.open(built) as index:
        assert index.snapshot.encoder.fingerprint == adapted.parent.fingerprint


def test_build_maps_the_vectors_without_an_image_and_a_fresh_encoding_agrees(
    adapted: AdaptReport, built: Path, squares: Path, tmp_path: Path
):
    store, images = tmp_path / "store", tmp_path / "squares"
    shutil.copytree(built, store)
    shutil.copytree(squares, images)
    summary = mmindex.build(store, model=adapted.model)
    encode = summary.report.reports["encode"]
    assert (encode["mapped_images"], encode["mapped_texts"]) == (96, 64)
    assert (encode["encoded_images"], encode["encoded_texts"]) == (0, 0)
    encoder = summary.manifest.encoder
    assert encoder is not None
    assert encoder.fingerprint == adapted.fingerprint
    assert encoder.parent == adapted.parent.fingerprint
    assert not mmindex.build(store).published

    fresh = tmp_path / "fresh"
    mmindex.build(fresh, [images], model=adapted.model, workers=0)
    for side, count in (("image", 96), ("text", 64)):
        one, other = vectors(store, side), vectors(fresh, side)
        assert len(one) == count
        cosines = [
            float(row @ other[key] / np.linalg.norm(row) / np.linalg.norm(other[key]))
            for key, row in one.items()
        ]
        assert min(cosines) > 0.9999


def test_with_a_cluster_this_process_applies_the_maps(adapted: AdaptReport):
    info = fingerprint_of(resolve_model(adapted.model, None), "fp32")
    config = Config.model_validate({"model": {"name": adapted.model}})
    assert adapted.out is not None

    def elsewhere() -> NoReturn:
        raise AssertionError("the model is on the nodes")

    source = with_maps(EncoderSource(info, elsewhere, elsewhere), config)
    assert source.maps is not None
    known = load_maps(adapted.out / MAPS_FILE, info.dim)
    assert np.array_equal(source.maps().image.weight, known.image.weight)
    plain = EncoderSource(adapted.parent, elsewhere, elsewhere)
    assert with_maps(plain, config) is plain


def test_an_adapted_store_is_searched_and_grows(
    adapted: AdaptReport, built: Path, tmp_path: Path, squares: Path
):
    store = tmp_path / "store"
    shutil.copytree(built, store)
    mmindex.build(store, model=adapted.model)
    with mmindex.open(store) as index:
        with mmindex.open(built) as before:
            found = index.evaluate().text_to_image.r10 - before.evaluate().text_to_image.r10
        assert found > 10
        assert len(index.search("a red square on white ground")) == 10
        assert len(index.search(image=str(squares / "000.png"), to="image")) == 10


def test_a_list_of_captions_adapts_a_store_without_any(
    squares: Path, tiny_model: TinyModel, tmp_path: Path
):
    images = tmp_path / "squares"
    shutil.copytree(squares, images)
    captions = (images / "captions.csv").rename(tmp_path / "captions.csv")
    store = tmp_path / "store"
    build_squares(store, images, tiny_model)
    with pytest.raises(NoInputError, match="no captions to adapt to") as raised:
        mmindex.adapt(store, out=tmp_path / "model")
    assert "`captions`" in raised.value.hint
    shutil.rmtree(images)  # no image is opened
    with captions.open("a") as file:
        file.write('999.png,"a picture, which the store does not have"\n001.png,\n')
    report = mmindex.adapt(store, out=tmp_path / "model", captions=captions)
    assert report.adapted
    assert (report.images, report.captions, report.unknown) == (96, 96, 1)


def test_a_list_that_names_no_image_of_the_store_is_refused(built: Path, tmp_path: Path):
    captions = tmp_path / "captions.csv"
    captions.write_text("image,caption\nelsewhere.png,a cat\n")
    with pytest.raises(DataError, match="none of its 1 names is an image in this store"):
        mmindex.adapt(built, out=tmp_path / "model", captions=captions)
    captions.write_text("image,caption\n001.png,a red square\n002.png,a blue square\n")
    with pytest.raises(DataError, match="too few images with captions: 2, at least 50"):
        mmindex.adapt(built, out=tmp_path / "model", captions=captions)
    captions.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"captions\.csv"):
        mmindex.adapt(built, out=tmp_path / "model", captions=captions)
    with pytest.raises(NoInputError, match=r"missing\.csv"):
        mmindex.adapt(built, out=tmp_path / "model", captions=tmp_path / "missing.csv")
    assert not (tmp_path / "model").exists()


def test_unrelated_captions_write_nothing(built: Path, tmp_path: Path):
    rng = np.random.default_rng(0)
    lines = [f"{n:03d}.png,word{rng.integers(10**9)} word{rng.integers(10**9)}" for n in range(96)]
    captions = tmp_path / "captions.csv"
    captions.write_text("\n".join(["image,caption", *lines]))
    report = mmindex.adapt(built, out=tmp_path / "model", captions=captions)
    assert not report.adapted
    assert (report.out, report.model, report.fingerprint) == (None, None, "")
    assert not (tmp_path / "model").exists()


def test_existing_files_are_not_overwritten(adapted: AdaptReport, built: Path, tmp_path: Path):
    assert adapted.out is not None
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an adapted model"):
        mmindex.adapt(built, out=other, overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UsageError, match="not an adapted model"):
        mmindex.adapt(built, out=file)
    with pytest.raises(CannotCreateError, match="not a folder"):
        mmindex.adapt(built, out=file / "below" / "model")
    model = tmp_path / "model"
    shutil.copytree(adapted.out, model)
    with pytest.raises(UsageError, match="already contains a model") as raised:
        mmindex.adapt(built, out=model)
    assert "`overwrite`" in raised.value.hint
    report = mmindex.adapt(built, out=model, overwrite=True)
    assert report.fingerprint == adapted.fingerprint  # equal input gives equal maps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model", "other"]


def test_a_full_disk_leaves_nothing_behind(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmindex.adaptation.folder.save_maps", full)
    with pytest.raises(StorageError, match="No space left"):
        mmindex.adapt(built, out=tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_adapted_model_can_be_adapted_again(
    adapted: AdaptReport, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = tmp_path / "store"
    shutil.copytree(built, store)
    mmindex.build(store, model=adapted.model)
    monkeypatch.setattr(Gain, "real", True)  # there may be nothing left to gain
    report = mmindex.adapt(store, out=tmp_path / "again")
    assert report.parent.fingerprint == adapted.fingerprint
    summary = mmindex.build(store, model=report.model)
    assert summary.report.reports["encode"]["mapped_images"] == 96
    with mmindex.open(store) as index:
        assert len(index.search("a red square")) == 10


def test_a_store_whose_model_has_changed_is_refused(squares: Path, tmp_path: Path):
    model = save_tiny_model(tmp_path / "model")
    build_squares(tmp_path / "store", squares, model)
    other = save_tiny_model(tmp_path / "other", seed=1)
    shutil.copyfile(other.weights, model.folder / "open_clip_model.safetensors")
    with pytest.raises(ModelMismatchError):
        mmindex.adapt(tmp_path / "store", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_original_of_a_copied_parent_can_be_removed(squares: Path, tmp_path: Path):
    model = save_tiny_model(tmp_path / "model")
    build_squares(tmp_path / "store", squares, model)
    report = mmindex.adapt(tmp_path / "store", out=tmp_path / "out")
    assert report.adapted
    shutil.rmtree(tmp_path / "model")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    summary = mmindex.build(tmp_path / "store", model=f"local-dir:{moved}")
    assert summary.report.reports["encode"]["mapped_images"] == 96
    with mmindex.open(tmp_path / "store") as index:
        assert len(index.search("a red square")) == 10


def test_captions_without_a_vector_are_left_out_and_counted(
    built: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = Vectorizer.encode_texts

    def broken(self: Vectorizer, texts: list[str]) -> np.ndarray:
        found = real(self, texts)
        found[:3] = np.nan
        return found

    monkeypatch.setattr(Vectorizer, "encode_texts", broken)
    report = mmindex.adapt(built, out=tmp_path / "out", captions=squares / "captions.csv")
    assert (report.unusable, report.images) == (3, 93)


def test_arguments_of_other_types_are_type_errors(built: Path, tmp_path: Path):
    with pytest.raises(TypeError, match="captions"):
        mmindex.adapt(built, out=tmp_path / "out", captions=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed"):
        mmindex.adapt(built, out=tmp_path / "out", seed="x")  # type: ignore[arg-type]
