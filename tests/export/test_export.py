"""Exports for other tools: complete, in order, without locations."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import NoInputError, UsageError
from mmindex.evaluate.fit_items import ItemFit
from mmindex.export import clip_retrieval, export, rows
from mmindex.export.export import ExportReport
from mmindex_cli.app import app
from support.fakestore import fake_model
from support.images import png
from support.models import FakeEncoder
from support.photo_files import photograph

LAYOUTS = ("parquet", "clip-retrieval", "hf")
CAPTIONS = {
    "a.jpg": ["a red boat", "on the sea"],
    "sub/b.png": ["a tree"],
    "c.jpg": [],
    "d.png": ["a house in the snow"],
}


def write_corpus(folder: Path, captions: dict[str, list[str]]) -> Path:
    """Photos with a location and drawings without; with several captions, one or none."""
    for number, name in enumerate(captions):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(number) if name.endswith(".jpg") else png(number))
    lines = [{"file": name, "captions": texts} for name, texts in captions.items()]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "photos", CAPTIONS)


@pytest.fixture
def store(tmp_path: Path, photos: Path) -> Path:
    with fake_model(FakeEncoder()):
        mmindex.build(tmp_path / "store", [photos], workers=0)
    return tmp_path / "store"


def exported(
    store: Path, layout: str, *, with_location: bool = False, **options: object
) -> tuple[Path, ExportReport]:
    out = store.with_name(f"out-{layout}-{with_location}")
    with mmindex.open(store, with_location=with_location) as index:
        return out, index.export(out, layout=layout, **options)


def vectors_of(store: Path, side: str) -> dict[str, np.ndarray]:
    with mmindex.open(store) as index:
        ids, vectors = index.vectors(side)
        return dict(zip(ids, vectors, strict=True))


def test_parquet_has_a_row_for_each_image_and_each_caption(store: Path) -> None:
    out, report = exported(store, "parquet")
    images = pq.read_table(out / "images.parquet").to_pylist()
    captions = pq.read_table(out / "captions.parquet").to_pylist()
    assert (report.images, report.captions, report.unreadable) == (4, 4, 0)
    known, known_texts = vectors_of(store, "image"), vectors_of(store, "text")
    assert {row["image_id"] for row in images} == known.keys()
    for row in images:
        np.testing.assert_array_equal(np.float16(row["vector"]), known[row["image_id"]])
    for row in captions:
        np.testing.assert_array_equal(np.float16(row["vector"]), known_texts[row["caption_id"]])
    texts = {Path(row["image_id"]).name: row["text"] for row in captions}
    assert texts["d.png"] == "a house in the snow"
    assert report.bytes == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def test_a_condition_exports_only_captions_of_its_images(store: Path) -> None:
    out, report = exported(store, "parquet", where="format = 'PNG'")
    captions = pq.read_table(out / "captions.parquet")["text"].to_pylist()
    assert (report.images, sorted(captions)) == (2, ["a house in the snow", "a tree"])


def test_npy_files_have_the_rows_of_the_metadata(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK_ROWS", 2)
    monkeypatch.setattr(clip_retrieval, "BLOCK_ROWS", 2)
    monkeypatch.setattr(clip_retrieval, "PART_ROWS", 2)
    out, report = exported(store, "clip-retrieval", where="filename <> 'c.jpg'")
    known = vectors_of(store, "image")
    names = []
    for number, count in enumerate((2, 1)):
        metadata = pq.read_table(out / "metadata" / f"metadata_{number}.parquet").to_pylist()
        images = np.load(out / "img_emb" / f"img_emb_{number}.npy")
        texts = np.load(out / "text_emb" / f"text_emb_{number}.npy")
        assert len(metadata) == len(images) == len(texts) == count
        assert images.dtype == texts.dtype == np.float16
        for row, image, text in zip(metadata, images, texts, strict=True):
            names.append(Path(row["image_path"]).name)
            np.testing.assert_array_equal(image, known[row["image_id"]])
            name = row["image_id"].removeprefix("folder/photos/")
            assert row["captions"] == CAPTIONS[name]
            assert row["caption"] == CAPTIONS[name][0]
            expected = FakeEncoder().encode_texts([row["caption"]])[0]
            np.testing.assert_allclose(text, expected, atol=1e-3)
    assert sorted(names) == ["a.jpg", "b.png", "d.png"]
    assert report.captions == 3


def test_texts_are_left_out_if_an_image_has_no_caption(store: Path) -> None:
    """The files of texts and of images must have the same rows."""
    out, report = exported(store, "clip-retrieval")
    assert not (out / "text_emb").exists()
    assert (report.images, report.captions) == (4, 0)
    metadata = pq.read_table(out / "metadata" / "metadata_0.parquet").to_pylist()
    assert {Path(row["image_path"]).name: row["caption"] for row in metadata}["c.jpg"] is None


def test_a_dataset_contains_the_image_files(store: Path) -> None:
    out, report = exported(store, "hf")
    [file] = (out / "data").iterdir()
    table = pq.read_table(file)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert list(features) == table.column_names
    assert "- split: train\n    path: data/train-*.parquet\n" in (out / "README.md").read_text()
    assert file.name == "train-00000.parquet"
    for row in table.to_pylist():
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert (image.width, image.height) == (row["width"], row["height"])
    assert report.unreadable == 0


def test_a_missing_file_is_null_and_counted(
    store: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "a.jpg").unlink()
    (photos / "d.png").write_bytes(png(9))
    out, report = exported(store, "hf")
    [file] = (out / "data").iterdir()
    found = {row["filename"]: row["image"] for row in pq.read_table(file).to_pylist()}
    assert [name for name, image in found.items() if image is None] == ["a.jpg", "d.png"]
    assert report.unreadable == 2
    assert "changed 1" in caplog.text
    assert "missing 1" in caplog.text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_places_stay_in_the_store_unless_requested(store: Path, layout: str) -> None:
    out, _ = exported(store, layout)
    open_out, _ = exported(store, layout, with_location=True)
    for folder, told in ((out, False), (open_out, True)):
        for path in folder.rglob("*.parquet"):
            if path.name == "captions.parquet":
                continue
            table = pq.read_table(path)
            assert ({"lat", "lon"} <= set(table.column_names)) is told
            for row in table.to_pylist() if "image" in table.column_names else ():
                with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                    has_place = bool(image.getexif().get_ifd(0x8825))
                assert has_place is (told and row["format"] == "JPEG")


def test_text_that_is_not_utf_8_is_readable_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "plain.png").write_bytes(png(1))
    Path(f"{folder}/\udcff.png").write_bytes(png(2))
    with fake_model(FakeEncoder()):
        mmindex.build(tmp_path / "store", [folder], workers=0)
    for layout in LAYOUTS:
        out, _ = exported(tmp_path / "store", layout)
        for path in out.rglob("*.parquet"):
            pq.read_table(path).to_pylist()


def test_the_folder_appears_completely_or_not_at_all(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.tables, "write", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space"):
        exported(store, "parquet")
    assert sorted(tmp_path.iterdir()) == before


def test_folders_that_are_not_empty_are_refused(store: Path, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with mmindex.open(store) as index:
        for out, words in (
            (photos, "not empty"),
            (store / "export", "inside the store"),
            (store, "inside the store"),
            (file, "not a folder"),
        ):
            with pytest.raises(UsageError, match=words):
                index.export(out)
        (tmp_path / "empty").mkdir()
        assert index.export(tmp_path / "empty").images == 4
        with pytest.raises(UsageError, match="not one of"):
            index.export(tmp_path / "other", layout="csv")
        with pytest.raises(NoInputError, match="nothing was exported"):
            index.export(tmp_path / "other", where="width > 10000")
        with pytest.raises(TypeError):
            index.export(3)
    assert not (tmp_path / "other").exists()


def test_the_command_reports_what_it_wrote(store: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app, ["export", "--store", str(store), "--out", str(tmp_path / "x"), "--format", "json"]
    )
    assert told.exit_code == 0
    record = json.loads(told.stdout)
    assert record["images"] == 4
    assert record["folder"] == str(tmp_path / "x")
    note = json.loads((tmp_path / "x" / "mmindex.json").read_text())
    assert note["fingerprint"] == FakeEncoder().info.fingerprint
    again = CliRunner().invoke(app, ["export", "--store", str(store), "--out", str(tmp_path / "x")])
    assert again.exit_code == 2
    assert "not empty" in again.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
def test_captions_are_fused_only_if_they_help(store: Path, layout: str) -> None:
    """Four captions are too few to fit a weight."""
    plain, _ = exported(store, layout)
    with mmindex.open(store) as index:
        report = index.export(plain.with_name("fused"), layout=layout, fuse_captions=True)  # type: ignore[arg-type]
    assert report.fit is not None
    assert report.fit.weight == 0
    note = json.loads((plain.with_name("fused") / "mmindex.json").read_text())
    assert note["caption_weight"] == 0
    assert "caption_weight" not in json.loads((plain / "mmindex.json").read_text())


def test_fused_vectors_contain_the_captions(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fit = ItemFit(1.0, 100, {"r@1": 50.0}, {"r@1": 60.0})
    monkeypatch.setattr(rows, "fit_items", lambda _snapshot: fit)
    out = tmp_path / "fused"
    done = CliRunner().invoke(app, ["export", "--store", str(store), "--out", str(out),
                                    "--fuse-captions"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "weight of captions: 1 (fitted with 100 captions)" in done.stdout
    assert "50.0 -> 60.0 %" in done.stdout
    images = pq.read_table(out / "images.parquet").to_pylist()
    captions = pq.read_table(out / "captions.parquet").to_pylist()
    plain = vectors_of(store, "image")
    for image in images:
        own = [row["vector"] for row in captions if row["image_id"] == image["image_id"]]
        expected = plain[image["image_id"]] + (np.mean(own, axis=0) if own else np.float32(0))
        expected = expected / np.linalg.norm(expected)
        assert image["vector"] == pytest.approx(expected, abs=2e-3)
