"""Published corpora are downloaded, verified and read in place, or an error names the remedy."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.command import mmindex, mmindex_json
from support.corpora import coco_content, jpeg
from support.fetching import build, finds_itself
from support.range_server import RangeFile


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def release(server, tmp_path) -> Path:
    """Write a description of COCO with the figures of a small release that the server has."""
    captions = {n: [f"picture {n}", f"drawing {n}"] for n in range(1, 13)}
    served = {
        "val2017.zip": zipped({f"val2017/{n:012d}.jpg": jpeg(n) for n in captions}),
        "annotations_trainval2017.zip": zipped(
            {"annotations/captions_val2017.json": json.dumps(coco_content(captions)).encode()}
        ),
    }
    text = 'name = "coco"\ntitle = "COCO"\nhomepage = "h"\nlicence = "l"\n'
    for name, data in served.items():
        server.routes[f"/mirror/zips/{name}"] = RangeFile(data)
        text += (
            f'[[files]]\nname = "{name}"\nurl = "http://images.cocodataset.org/zips/{name}"\n'
            f'bytes = {len(data)}\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nverified = true\n'
        )
    names = json.dumps(list(served))
    text += f'[[splits]]\nkind = "coco"\nname = "val2017"\nsplit = "val2017"\nfiles = {names}\n'
    (tmp_path / "coco.toml").write_text(text)
    return tmp_path / "coco.toml"


def test_a_release_is_fetched_checked_and_read_in_place(server, release, tmp_path, tiny_model):
    store = tmp_path / "store"
    named = ("--source", "coco:val2017", "--corpora", release.name, "--require-checksum")
    mirror = ("--base-url", server.url("/mirror"), "--allow-private")
    build(store, *named, *mirror, model=tiny_model, cwd=tmp_path)
    assert finds_itself(store, jpeg(5), tmp_path) == "coco/val2017/000000000005"
    folder = store / "downloads" / "coco"
    assert not list(folder.glob("*.part*"))
    assert json.loads((folder / "val2017.zip.json").read_text())["checked"] == "sha256"
    (row,) = {row["uri"].partition("!")[0] for row in hits(store)}
    assert row == f"{folder}/val2017.zip"
    asked = len(server.requests)
    assert "nothing changed" in mmindex("build", "--store", store, cwd="/").stdout
    assert len(server.requests) == asked


def hits(store: Path) -> list[dict[str, Any]]:
    (answer,) = mmindex_json("query", "--store", store, "a picture", "-k", 20)
    found: list[dict[str, Any]] = answer["hits"]
    return found


def test_a_damaged_download_of_a_release_is_not_used(server, release, tmp_path):
    wrong = bytearray(server.routes["/mirror/zips/val2017.zip"].body)
    wrong[len(wrong) // 2] ^= 1
    server.routes["/mirror/zips/val2017.zip"] = RangeFile(bytes(wrong))
    common = ("--source", "coco:val2017", "--corpora", release, "--allow-private")
    mirror = ("--base-url", server.url("/mirror"))
    store = tmp_path / "store"
    done = mmindex("crawl", "--store", store, *common, *mirror, code=65)
    assert "expected sha256" in done.stderr
    assert not list((store / "versions").iterdir())
    assert not list((store / "downloads").rglob("val2017.zip*"))


def test_files_without_a_known_checksum_are_trusted_once_with_a_warning(server, release, tmp_path):
    lines = release.read_text().splitlines()
    release.write_text("\n".join(line for line in lines if not line.startswith("sha256")))
    common = ("--source", "coco:val2017", "--corpora", release, "--allow-private")
    mirror = ("--base-url", server.url("/mirror"))
    store = tmp_path / "store"
    strict = ("crawl", "--store", tmp_path / "strict", *common, *mirror, "--require-checksum")
    refused = mmindex(*strict, code=65)
    assert "no checksum is known" in refused.stderr
    assert not server.requests
    done = mmindex("crawl", "--store", store, *common, *mirror)
    assert "trusted from now on" in done.stderr
    record = json.loads((store / "downloads/coco/val2017.zip.json").read_text())
    assert record["checked"] == "first use"
    mmindex("crawl", "--store", store, *common, *mirror, "--require-checksum", code=65)


def test_a_publisher_that_cannot_be_reached_is_69_with_remedies(server, release, tmp_path):
    common = ("--source", "coco:val2017", "--corpora", release)
    base = server.url("/nowhere")
    done = mmindex("crawl", "--store", tmp_path / "a", *common, "--base-url", base, code=69)
    assert "--allow-private" in done.stderr
    assert not server.requests
    done = mmindex(
        "crawl", "--store", tmp_path / "a", *common, "--base-url", base, "--allow-private", code=69
    )
    assert "use its path" in done.stderr


def test_a_file_that_only_the_user_can_download_says_where_to_put_it(server, tmp_path):
    store = tmp_path / "store"
    source = ("--source", "flickr30k:test")
    done = mmindex("crawl", "--store", store, *source, code=66)
    folder = store / "downloads" / "flickr30k"
    assert "flickr30k-images.zip" in done.stderr
    assert "https://shannon.cs.illinois.edu/DenotationGraph/" in done.stderr
    assert str(folder) in done.stderr
    assert not list(folder.rglob("*"))
    content = {
        "images": [
            {"filename": f"{n}.jpg", "split": "test", "sentences": [{"raw": f"picture {n}"}]}
            for n in range(4)
        ]
    }
    splits = zipped({"dataset_flickr30k.json": json.dumps(content).encode()})
    server.routes["/m/people/karpathy/deepimagesent/caption_datasets.zip"] = RangeFile(splits)
    images = folder / "flickr30k-images"
    images.mkdir(parents=True)
    for n in range(4):
        (images / f"{n}.jpg").write_bytes(jpeg(n))
    (folder / "caption_datasets.zip").write_bytes(splits)
    done = mmindex("crawl", "--store", store, *source)
    assert "4 of 4 seen" in done.stdout
    shutil.rmtree(images)
    zip_path = "/m/datasets/nlphuji/flickr30k/resolve/main/flickr30k-images.zip"
    files = {f"flickr30k-images/{n}.jpg": jpeg(n) for n in range(4)}
    server.routes[zip_path] = RangeFile(zipped(files))
    mirror = ("--base-url", server.url("/m"), "--allow-private")
    assert "4 of 4 seen" in mmindex("crawl", "--store", store, *source, *mirror).stdout
