"""The main job as users run it: build, query both ways, evaluate, build again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import mmindex, mmindex_json, write_coco

RECALL_KEYS = {"r@1", "r@5", "r@10", "medr"}


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_model):
    """A store with 60 drawn images and 120 captions."""
    root = tmp_path_factory.mktemp("job")
    corpus = write_coco(root / "coco", 60)
    done = mmindex(
        "build", "--store", root / "store", "--source", f"coco:{corpus}", "--model", tiny_model.name
    )
    assert "published version 1" in done.stdout
    return root / "store", corpus


def test_a_second_build_encodes_nothing_and_publishes_nothing(built):
    store, corpus = built
    before = sorted(path.name for path in (store / "objects").rglob("*"))
    for again in (
        ("build", "--store", store),
        ("build", "--store", store, "--source", f"coco:{corpus}", "--model", _model(store)),
    ):
        assert "nothing changed" in mmindex(*again).stdout
    assert (store / "CURRENT").read_text() == json.dumps(
        json.loads((store / "CURRENT").read_text()), separators=(",", ":")
    ) + "\n"
    assert json.loads((store / "CURRENT").read_text())["version"] == 1
    assert sorted(path.name for path in (store / "objects").rglob("*")) == before
    newest = sorted((store / "runs").iterdir())[-1]
    report = json.loads(newest.read_text())
    assert report["outcome"] == "unchanged"
    assert report["reports"]["encode"]["encoded_images"] == 0
    assert report["reports"]["encode"]["encoded_texts"] == 0


def _model(store):
    return json.loads(mmindex("status", "--store", store, "--format", "json").stdout)["encoder"][
        "model"
    ]


def test_an_image_finds_itself_first(built):
    store, corpus = built
    image = corpus / "val2017" / "000000000007.jpg"
    for asked in (image, "coco/val2017/000000000007"):
        (answer,) = mmindex_json("query", "--store", store, "--image", asked, "--to", "image")
        assert answer["hits"][0]["id"] == "coco/val2017/000000000007"
        assert answer["hits"][0]["score"] > 0.999


def test_query_json_has_one_object_per_line_in_the_documented_form(built):
    store, _ = built
    (answer,) = mmindex_json("query", "a red", "square", "--store", store, "-k", 3)
    assert list(answer) == ["query", "to", "version", "hits"]
    assert (answer["query"], answer["to"], answer["version"]) == ("a red square", "image", 1)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert {"rank", "score", "id", "uri", "caption"} <= set(answer["hits"][0])
    assert answer["hits"][0]["caption"] is None
    (texts,) = mmindex_json("query", "--image", "coco/val2017/000000000001", "--store", store)
    assert texts["to"] == "text"
    assert all(isinstance(hit["caption"], str) for hit in texts["hits"])


def test_a_large_k_returns_the_whole_corpus(built):
    store, _ = built
    (answer,) = mmindex_json("query", "anything", "--store", store, "-k", 1000)
    assert len(answer["hits"]) == 60
    assert len({hit["id"] for hit in answer["hits"]}) == 60


def test_evaluate_prints_every_field_and_publishes_nothing(built):
    store, _ = built
    (figures,) = mmindex_json("evaluate", "--store", store)
    assert {
        "version", "model", "images", "captions", "protocol", "text_to_image", "image_to_text",
        "text_to_image_index", "image_to_text_index", "index_recall@10",
    } <= set(figures)  # fmt: skip
    assert (figures["images"], figures["captions"], figures["protocol"]) == (60, 120, "hit@k")
    for block in ("text_to_image", "image_to_text", "text_to_image_index", "image_to_text_index"):
        assert set(figures[block]) == RECALL_KEYS
    assert set(figures["index_recall@10"]) == {"image", "text"}
    assert json.loads((store / "CURRENT").read_text())["version"] == 1


def test_another_model_is_refused(built, tmp_path):
    from support.models import save_tiny_model

    store, _ = built
    other = save_tiny_model(tmp_path, seed=5)
    inside = Path(_model(store).removeprefix("local-dir:")) / "open_clip_model.safetensors"
    original = inside.read_bytes()
    try:
        inside.write_bytes(other.weights.read_bytes())
        done = mmindex("query", "a red square", "--store", store, code=78)
    finally:
        inside.write_bytes(original)
    assert done.stderr.count("error: ") == 1
    assert "hint: " in done.stderr


def test_ivfpq_answers_like_exact_search_and_reports_its_recall(tmp_path, tiny_model):
    """The quantised index is built and used even with few vectors."""
    corpus = write_coco(tmp_path / "coco", 300)
    common = ("--source", f"coco:{corpus}", "--model", tiny_model.name)
    mmindex("build", "--store", tmp_path / "ivfpq", *common, "--index", "ivfpq")
    mmindex("build", "--store", tmp_path / "exact", *common)
    (status,) = mmindex_json("status", "--store", tmp_path / "ivfpq")
    assert "IVF" in status["indexes"]["image"]["factory"]
    assert "PQ" in status["indexes"]["image"]["factory"]
    (figures,) = mmindex_json("evaluate", "--store", tmp_path / "ivfpq")
    assert figures["index_recall@10"]["image"] >= 90
    asked = ("query", "a drawing with a square", "-k", 10, "--store")
    (approximate,) = mmindex_json(*asked, tmp_path / "ivfpq")
    (exact,) = mmindex_json(*asked, tmp_path / "exact")
    same = {hit["id"] for hit in approximate["hits"]} & {hit["id"] for hit in exact["hits"]}
    assert len(same) >= 9


def test_single_stages_make_the_same_version_as_build(built, tmp_path, tiny_model):
    store, corpus = built
    steps = tmp_path / "steps"
    mmindex("crawl", "--store", steps, "--source", f"coco:{corpus}")
    missing = mmindex("query", "a red square", "--store", steps, code=66)
    assert "encode" in missing.stderr
    assert "index" in missing.stderr
    mmindex("encode", "--store", steps, "--model", tiny_model.name)
    mmindex("index", "--store", steps)
    ours, theirs = (mmindex_json("status", "--store", place)[0] for place in (steps, store))
    for same in ("counts", "encoder", "indexes", "stages", "corpus_fingerprint"):
        assert ours[same] == theirs[same]
    assert [row["version"] for row in mmindex_json("versions", "--store", steps)] == [1, 2, 3]


def test_the_wheel_works_outside_the_checkout(tmp_path):
    """The wheel is built, installed elsewhere and run in an empty folder."""
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, root]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", site, wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    run = {"program": site / "bin" / "mmindex", "env": {"PYTHONPATH": str(site)}, "cwd": empty}
    where = subprocess.run(
        [sys.executable, "-c", "import mmindex; print(mmindex.__file__)"],
        env={"PYTHONPATH": str(site)}, cwd=empty, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site))
    store = tmp_path / "store"
    mmindex("build", "--store", store, "--source", "scenes:40@3", **run)
    (answer,) = mmindex_json("query", "a red boat", "--store", store, "-k", 2, **run)
    assert len(answer["hits"]) == 2
    assert "scenes" in json.dumps(answer)
    assert list(empty.iterdir()) == []
    shutil.rmtree(site)


def test_real_photographs_from_build_to_query(real_photos, tmp_path, tiny_model):
    """159 COCO photos with 795 captions, in the layout that users have."""
    corpus = real_photos / "coco_val2017"
    store = tmp_path / "store"
    mmindex(
        "build", "--store", store, "--source", f"coco:{corpus}", "--model", tiny_model.name,
        "--index", "ivfpq",
    )  # fmt: skip
    (status,) = mmindex_json("status", "--store", store)
    assert (status["counts"]["indexed"], status["counts"]["captions"]) == (159, 795)
    photo = sorted((corpus / "val2017").glob("*.jpg"))[7]
    (answer,) = mmindex_json("query", "--image", photo, "--to", "image", "--store", store)
    assert answer["hits"][0]["id"] == f"coco/val2017/{photo.stem}"
    assert answer["hits"][0]["score"] > 0.999
    assert "nothing changed" in mmindex("build", "--store", store).stdout


@pytest.mark.parametrize("name", ["embeddings/text/00000", "vectors/image/00000", "ids/text"])
def test_a_build_creates_damaged_objects_again(built, tmp_path, name):
    """The hint of every error says so; a damaged store must not be reported as unchanged."""
    store = tmp_path / "store"
    shutil.copytree(built[0], store)
    manifest = json.loads((store / "versions" / f"{1:020}.json").read_text())
    (sha256,) = [ref["sha256"] for ref in manifest["objects"] if ref["name"] == name]
    path = store / "objects" / sha256[:2] / sha256
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert name in mmindex("check", "--full", "--store", store, code=65).stdout
    mmindex("build", "--store", store)
    mmindex("check", "--full", "--store", store)
