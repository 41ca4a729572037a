"""Stores are built from lists of URLs and archives of other tools, and searched."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.records import Reason
from support.command import MMINDEX, mmindex, mmindex_json
from support.fetching import build, finds_itself
from support.hostile_server import Reply
from support.images import png


def last_report(store: Path) -> dict[str, Any]:
    newest = max((store / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    report: dict[str, Any] = json.loads(newest.read_text())
    return report


def test_a_list_of_urls_becomes_searchable_and_is_fetched_once(server, tmp_path, tiny_model):
    for n in range(30):
        server.routes[f"/{n}.png"] = Reply(png(n), headers={"Content-Type": "image/png"})
    server.routes["/shy.png"] = Reply(png(40), headers={"X-Robots-Tag": "noai"})
    rows = [f"{server.url(f'/{n}.png')},picture {n},{n * n}" for n in range(30)]
    rows += [f"{server.url('/shy.png')},shy,0", f"{server.url('/gone.png')},gone,0"]
    (tmp_path / "list.csv").write_text("\n".join(["url,caption,likes", *rows]))
    store = tmp_path / "store"
    allowed = ("--allow-private", "--contact", "ops@example.org", "--per-host-concurrency", 4)
    # A relative path: the store remembers its location, whatever the folder of the next run.
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


def test_without_permission_no_packet_goes_to_a_private_address(server, tmp_path):
    """The store does not remember a permission that was given once."""
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
    """Stored images are not fetched again, and every row has a status."""
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


def test_an_invalid_archive_stops_the_crawl(tmp_path):
    for name, spec in (("a.tar", "webdataset"), ("a.parquet", "parquet")):
        (tmp_path / name).write_bytes(b"<html>" * 1000)
        source = f"{spec}:{tmp_path}/{name}"
        done = mmindex("crawl", "--store", tmp_path / "store", "--source", source, code=65)
        assert name in done.stderr


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
