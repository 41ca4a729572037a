"""Corpora over the network and archives of other tools, as users build them: whole processes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.records import Reason
from support.command import MMINDEX, mmindex, mmindex_json
from support.corpora import coco_content, jpeg
from support.hostile_server import HostileServer, Reply, hostile_server
from support.models import TinyModel
from support.pictures import png
from support.range_server import RangeFile


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        running.routes["/robots.txt"] = Reply(b"")
        yield running


def build(store: Path, *args: object, model: TinyModel, **options: Any) -> str:
    return mmindex("build", "--store", store, "--model", model.name, *args, **options).stdout


def last_report(store: Path) -> dict[str, Any]:
    newest = max((store / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    report: dict[str, Any] = json.loads(newest.read_text())
    return report


def finds_itself(store: Path, picture: bytes, scratch: Path) -> str:
    """The id of the best hit for a picture."""
    (scratch / "asked.png").write_bytes(picture)
    (answer,) = mmindex_json(
        "query", "--store", store, "--image", scratch / "asked.png", "--to", "image"
    )
    best = answer["hits"][0]
    assert best["score"] > 0.999
    return str(best["id"])


def test_a_list_of_addresses_becomes_searchable_and_is_fetched_once(server, tmp_path, tiny_model):
    for n in range(30):
        server.routes[f"/{n}.png"] = Reply(png(n), headers={"Content-Type": "image/png"})
    server.routes["/shy.png"] = Reply(png(40), headers={"X-Robots-Tag": "noai"})
    rows = [f"{server.url(f'/{n}.png')},picture {n},{n * n}" for n in range(30)]
    rows += [f"{server.url('/shy.png')},shy,0", f"{server.url('/gone.png')},gone,0"]
    (tmp_path / "list.csv").write_text("\n".join(["url,caption,likes", *rows]))
    store = tmp_path / "store"
    allowed = ("--allow-private", "--contact", "ops@example.org", "--per-host-concurrency", 4)
    # A relative path: the store remembers where it is, wherever the next run stands.
    out = build(store, "--source", "urls:list.csv", *allowed, model=tiny_model, cwd=tmp_path)
    assert "30 of 32 seen; 2 quarantined (fetch_failed 1, opted_out 1)" in out
    assert all("ops@example.org" in request.headers["user-agent"] for request in server.requests)
    assert server.most_under_way <= 4
    assert finds_itself(store, png(7), tmp_path).startswith("urls/list/")
    report = last_report(store)["reports"]["crawl"]
    assert report["reasons"] == {Reason.FETCH_FAILED: 1, Reason.OPTED_OUT: 1}
    (source,) = report["sources"]
    assert (source["seen"], source["images"], source["quarantined"]) == (32, 30, 2)
    assert source["fetch"]["by_status"] == {"stored": 30, "gone": 1, "opted_out": 1}
    assert source["fetch"]["by_host"] == {f"127.0.0.1:{server.port}": source["fetch"]["by_status"]}
    asked = len(server.requests)
    assert "nothing changed" in mmindex("build", "--store", store, cwd="/").stdout
    assert len(server.requests) == asked


def test_without_leave_no_packet_goes_to_a_private_address(server, tmp_path):
    """Nor does a store remember the leave that was given once."""
    server.routes["/1.png"] = Reply(png(1))
    (tmp_path / "list.csv").write_text(f"url\n{server.url('/1.png')}\n")
    store = tmp_path / "store"
    done = mmindex("crawl", "--store", store, "--source", f"urls:{tmp_path}/list.csv", code=65)
    assert "no usable image" in done.stderr
    (entry,) = mmindex_json("quarantine", "list", "--store", store)
    assert entry["detail"].startswith("refused_address")
    assert not server.requests
    mmindex("crawl", "--store", store, "--source", f"urls:{tmp_path}/list.csv", "--allow-private")
    assert "allow_private" not in (store / "versions" / f"{1:020d}.json").read_text()
    mmindex("crawl", "--store", store)


def test_a_killed_crawl_is_finished_by_the_next_one(server, tmp_path):
    """What was stored is not fetched again, and every row is accounted for."""
    count = 200
    for n in range(count):
        server.routes[f"/{n}.png"] = Reply(png(n), delay_s=0.05)
    rows = "".join(f"{server.url(f'/{n}.png')}\n" for n in range(count + 1))
    (tmp_path / "list.csv").write_text(f"url\n{rows}")
    (tmp_path / "mmindex.toml").write_text(
        "[fetch]\nallow_private = true\nshard_seconds = 0.1\nper_host_concurrency = 4\n"
        '[[source]]\nspec = "urls:list.csv"\n'
    )
    store = tmp_path / "store"
    command = ["crawl", "--store", str(store), "--config", str(tmp_path / "mmindex.toml")]
    first = subprocess.Popen([MMINDEX, *command], stderr=subprocess.DEVNULL)
    server.wait_for(lambda: len(server.requests) > count // 2 or first.poll() is not None)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    shards = sorted((store / "downloads" / "fetched").glob("*.parquet"))
    stored = {url for path in shards for url in pq.read_table(path)["url"].to_pylist()}
    assert stored
    before = len(server.requests)
    mmindex(*command)
    asked = {server.url(request.path) for request in server.requests[before:]}
    assert not asked & stored
    assert len(asked - {server.url("/robots.txt")}) == count + 1 - len(stored)
    (status,) = mmindex_json("status", "--store", store)
    counts = status["counts"]
    assert (counts["seen"], counts["indexed"], counts["quarantined"]) == (count + 1, count, 1)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_archives_of_other_tools_are_read_in_place(kind, tmp_path, tiny_model):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        numbers = range(10 * shard, 10 * shard + 10)
        if kind == "parquet":
            images = [{"bytes": png(n), "path": f"{n}.png"} for n in numbers]
            texts = [f"picture {n}" for n in numbers]
            table = pa.table({"image": images, "text": texts})
            pq.write_table(table, folder / f"train-{shard}.parquet")
            continue
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for n in numbers:
                for name, data in ((f"{n}.png", png(n)), (f"{n}.txt", f"picture {n}".encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    store = tmp_path / "store"
    pattern = "shards/*.parquet" if kind == "parquet" else "shards/{00000..00001}.tar"
    build(store, "--source", f"{kind}:{pattern}", model=tiny_model, cwd=tmp_path)
    found = finds_itself(store, png(13), tmp_path)
    assert found == (f"{kind}/shards/train-1/3" if kind == "parquet" else f"{kind}/shards/00001/13")
    (status,) = mmindex_json("status", "--store", store)
    assert (status["counts"]["indexed"], status["counts"]["captions"]) == (20, 20)
    assert "nothing changed" in build(
        store, "--source", f"{kind}:{pattern}", model=tiny_model, cwd=tmp_path
    )


def test_an_archive_that_is_none_stops_the_crawl(tmp_path):
    for name, spec in (("a.tar", "webdataset"), ("a.parquet", "parquet")):
        (tmp_path / name).write_bytes(b"<html>" * 1000)
        source = f"{spec}:{tmp_path}/{name}"
        done = mmindex("crawl", "--store", tmp_path / "store", "--source", source, code=65)
        assert name in done.stderr


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def release(server, tmp_path) -> Path:
    """A description of COCO with the facts of a small release, which the server has."""
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


def test_a_release_that_arrives_wrong_is_not_used(server, release, tmp_path):
    wrong = bytearray(server.routes["/mirror/zips/val2017.zip"].body)
    wrong[len(wrong) // 2] ^= 1
    server.routes["/mirror/zips/val2017.zip"] = RangeFile(bytes(wrong))
    common = ("--source", "coco:val2017", "--corpora", release, "--allow-private")
    mirror = ("--base-url", server.url("/mirror"))
    store = tmp_path / "store"
    done = mmindex("crawl", "--store", store, *common, *mirror, code=65)
    assert "sha256 is" in done.stderr
    assert not list((store / "versions").iterdir())
    assert not list((store / "downloads").rglob("val2017.zip*"))


def test_files_without_a_known_checksum_are_trusted_once_and_aloud(server, release, tmp_path):
    lines = release.read_text().splitlines()
    release.write_text("\n".join(line for line in lines if not line.startswith("sha256")))
    common = ("--source", "coco:val2017", "--corpora", release, "--allow-private")
    mirror = ("--base-url", server.url("/mirror"))
    store = tmp_path / "store"
    refused = mmindex("crawl", "--store", store, *common, *mirror, "--require-checksum", code=65)
    assert "no checksum is known" in refused.stderr
    assert not server.requests
    done = mmindex("crawl", "--store", store, *common, *mirror)
    assert "trusted from now on" in done.stderr
    record = json.loads((store / "downloads/coco/val2017.zip.json").read_text())
    assert record["checked"] == "first use"
    mmindex("crawl", "--store", store, *common, *mirror, "--require-checksum", code=65)


def test_a_publisher_that_cannot_be_reached_is_69_with_ways_out(server, release, tmp_path):
    common = ("--source", "coco:val2017", "--corpora", release)
    base = server.url("/nowhere")
    done = mmindex("crawl", "--store", tmp_path / "a", *common, "--base-url", base, code=69)
    assert "--allow-private" in done.stderr
    assert not server.requests
    done = mmindex(
        "crawl", "--store", tmp_path / "a", *common, "--base-url", base, "--allow-private", code=69
    )
    assert "use its path" in done.stderr


def test_what_only_the_user_may_fetch_says_where_to_put_it(server, tmp_path):
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
    pictures = {f"flickr30k-images/{n}.jpg": jpeg(n) for n in range(4)}
    server.routes[zip_path] = RangeFile(zipped(pictures))
    mirror = ("--base-url", server.url("/m"), "--allow-private")
    assert "4 of 4 seen" in mmindex("crawl", "--store", store, *source, *mirror).stdout


def test_paths_of_a_configuration_file_are_relative_to_it(server, tmp_path):
    server.routes["/1.png"] = Reply(png(1))
    home = tmp_path / "etc"
    home.mkdir()
    (home / "list.csv").write_text(f"url\n{server.url('/1.png')}\n")
    (home / "mmindex.toml").write_text(
        '[fetch]\nallow_private = true\n[[source]]\nspec = "urls:list.csv"\n'
    )
    done = mmindex(
        "crawl", "--store", tmp_path / "store", "--config", home / "mmindex.toml", cwd="/"
    )
    assert "1 of 1 seen" in done.stdout
