"""A build from an object store with the command, and everything that opens its images later."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from support.bucketing import BUCKET, CREDENTIALS, S3, SECRET, parquet_of, s3_server, tar_of
from support.command import mmindex, mmindex_json
from support.corpora import jpeg
from support.models import TinyModel
from support.serving import serving_store

WITHOUT = "import sys; sys.modules['obstore'] = None; from mmindex_cli.app import main; main()"
SOURCES = ("webdataset:s3://photos/shards/{00..01}.tar", "parquet:s3://photos/tables",
           "folder:s3://photos/loose")  # fmt: skip


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as server:
        files = {
            f"shards/{shard:02}.tar": tar_of({f"{n}.jpg": jpeg(n) for n in range(first, first + 6)})
            for shard, first in enumerate((0, 6))
        }
        files["tables/a.parquet"] = parquet_of({str(n): jpeg(n) for n in range(12, 18)})
        files |= {f"loose/{n}.jpg": jpeg(n) for n in range(18, 24)}
        files["loose/captions.txt"] = b"18.jpg\ta loose one\n"
        server.put(files)
        yield server


@pytest.fixture
def config(s3: S3, tiny_model: TinyModel, tmp_path: Path) -> Path:
    sources = "".join(f'[[source]]\nspec = "{spec}"\n' for spec in SOURCES)
    path = tmp_path / "config.toml"
    path.write_text(
        f'{sources}[model]\nname = "{tiny_model.name}"\n[fetch]\ns3_endpoint = "{s3.endpoint}"\n'
    )
    return path


@pytest.mark.slow
def test_everything_that_opens_an_image_opens_it_in_the_bucket(
    s3: S3, config: Path, tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "store")
    done = mmindex("build", *store, "--config", config)
    assert "24 images" in done.stdout
    s3.take()
    # The store remembers sources and endpoint.
    assert "nothing changed" in mmindex("build", *store).stdout
    assert all(one.is_listing for one in s3.take())
    mmindex("build", *store, "--dry-run")
    assert all(one.is_listing for one in s3.take())

    [answer] = mmindex_json(
        "query", *store, "--image", "webdataset/shards/01/7", "--to", "image", "-k", "24"
    )
    hits = {hit["id"]: hit["uri"] for hit in answer["hits"]}
    assert len(hits) == 24
    [by_uri] = mmindex_json(
        "query", *store, "--image", "s3://photos/loose/20.jpg", "--to", "image", "-k", "1"
    )
    assert by_uri["hits"][0]["id"] == "folder/loose/20.jpg"

    page = tmp_path / "page.html"
    mmindex(
        "query",
        *store,
        "--image",
        "folder/loose/20.jpg",
        "--to",
        "image",
        "--html",
        page,
        "-k",
        "24",
    )
    text = page.read_text()
    assert text.count("data:image/jpeg;base64") >= 24
    assert "no such" not in text
    mmindex(
        "explain", *store, "--image", "parquet/tables/a/13", "--text", "red",
        "--method", "occlusion", "--out", tmp_path / "e.png",
    )  # fmt: skip
    mmindex("export", *store, "--out", tmp_path / "hf", "--layout", "hf")
    table = pq.read_table(next((tmp_path / "hf" / "data").glob("*.parquet")))
    assert all(image["bytes"] for image in table["image"].to_pylist())
    mmindex("forget", *store, "s3://photos/loose/18.jpg")
    [left] = mmindex_json(
        "query", *store, "--image", "folder/loose/20.jpg", "--to", "image", "-k", "24"
    )
    assert {hit["id"] for hit in left["hits"]} == hits.keys() - {"folder/loose/18.jpg"}
    with serving_store(tmp_path / "store", tmp_path / "cache") as served:
        for image_id in ("webdataset/shards/00/3", "parquet/tables/a/13", "folder/loose/20.jpg"):
            for what in ("file", "thumbnail"):
                found = served.get(f"/api/v1/images/{quote(image_id, safe='')}/{what}")
                assert found.status_code == 200, found.text

    everything = b"".join(
        path.read_bytes()
        for path in (tmp_path / "store").rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", ".sqlite", "")
    )
    assert SECRET.encode() not in everything
    assert b"AKIADONOTSHOW" not in everything
    assert b"a loose one" not in everything


@pytest.mark.slow
def test_the_environment_names_the_endpoint_too(s3: S3, tiny_model: TinyModel, root: Path) -> None:
    source = ("--source", f"folder:s3://{BUCKET}/loose", "--model", tiny_model.name)
    mmindex("crawl", "--store", root, *source[:2], env={"AWS_ENDPOINT_URL": s3.endpoint})
    mmindex("encode", "--store", root, *source[2:], env={"MMINDEX_S3_ENDPOINT": s3.endpoint})


def test_without_the_extra_it_is_69_with_its_name(root: Path) -> None:
    arguments = ("build", "--store", root, "--source", "folder:s3://bucket/x")
    done = mmindex("-c", WITHOUT, *arguments, program=sys.executable, code=69)
    assert "mmindex[objects]" in done.stderr


def test_an_endpoint_with_a_password_is_refused(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[fetch]\ns3_endpoint = "http://ann:hunter2@minio:9000"\n')
    done = mmindex("build", "--store", root, "--config", config, code=2)
    assert "hunter2" not in done.stdout + done.stderr
