"""Downloads end with the right bytes or with an error that names the problem."""

from __future__ import annotations

import hashlib
import json

import pytest

from mmindex.core.errors import BusyError, DataError, NetworkError, StorageError
from mmindex.fetch import partial
from mmindex.fetch.download import RemoteFile
from support.downloads import BODY, OTHER, QUICK, fetch, nothing_usable, remote
from support.hostile_server import Reply
from support.range_server import RangeFile, in_turn


def test_a_wrong_length_is_refused_before_the_body(server, layout):
    server.routes["/val.zip"] = Reply(b"PK" + b"x" * 100)
    with pytest.raises(DataError, match="got 102"):
        fetch(layout, remote(server, size_bytes=len(BODY)))
    assert nothing_usable(layout)


def test_an_unrequested_gzip_body_is_an_error(server, layout):
    server.routes["/val.zip"] = Reply(BODY, headers={"Content-Encoding": "gzip"})
    with pytest.raises(NetworkError, match="content-encoding"):
        fetch(layout, remote(server))
    assert nothing_usable(layout)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
def test_a_captive_portals_page_is_not_an_archive(kind, server, layout):
    page = b"\n<!DOCTYPE html><title>Please log in</title>" * 100
    server.routes["/val.zip"] = Reply(page, headers={"Content-Type": kind})
    with pytest.raises(DataError, match="a web page") as caught:
        fetch(layout, remote(server, sha256=None))
    assert caught.value.exit_code == 65
    kept = [p for p in (layout.downloads_dir / "coco").iterdir() if p.suffix != ".json"]
    assert all(path.stat().st_size == 0 for path in kept)


def test_a_wrong_checksum_is_never_used(server, layout):
    server.routes["/val.zip"] = RangeFile(BODY)
    for facts in ({"sha256": "0" * 64}, {"sha256": None, "md5": "0" * 32}):
        with pytest.raises(DataError, match="expected "):
            fetch(layout, remote(server, **facts))
        assert list((layout.downloads_dir / "coco").iterdir()) == []


def test_retry_after_beyond_the_budget_ends_with_75(server, layout):
    server.routes["/val.zip"] = Reply(b"", 503, {"Retry-After": "3600"})
    with pytest.raises(BusyError) as caught:
        fetch(layout, remote(server))
    assert caught.value.exit_code == 75
    patient = Reply(b"", 429, {"Retry-After": "1"})
    server.routes["/val.zip"] = in_turn(patient, RangeFile(BODY))
    (path,) = fetch(layout, remote(server))
    assert path.read_bytes() == BODY


def test_endless_and_trickling_bodies_are_cut_off(server, layout):
    server.routes["/val.zip"] = Reply(b"PK" * 40_000, endless=True)
    small = QUICK.model_copy(update={"max_download_bytes": 1 << 20})
    with pytest.raises(DataError, match="more than"):
        fetch(layout, remote(server), settings=small)
    server.routes["/val.zip"] = Reply(BODY, trickle_s=0.1)
    with pytest.raises(NetworkError, match="bytes/s"):
        fetch(layout, remote(server), settings=QUICK.model_copy(update={"retries": 0}))
    assert nothing_usable(layout)


def test_mirrors_are_tried_in_order(server, layout):
    server.routes["/good"] = RangeFile(BODY)
    server.routes["/page"] = Reply(b"<html>", headers={"Content-Type": "text/html"})
    urls = (server.url("/absent"), server.url("/page"), server.url("/good"))
    (path,) = fetch(layout, RemoteFile("val.zip", urls))
    assert path.read_bytes() == BODY
    assert [r.path for r in server.requests] == ["/absent", "/page", "/good"]


def test_base_url_replaces_the_publishers_host(server, layout):
    server.routes["/mirror/zips/val.zip"] = RangeFile(BODY)
    file = RemoteFile("val.zip", ("http://images.cocodataset.example/zips/val.zip",))
    mirrored = QUICK.model_copy(update={"base_url": server.url("/mirror/")})
    (path,) = fetch(layout, file, settings=mirrored)
    assert path.read_bytes() == BODY


def test_missing_space_is_reported_before_anything_is_fetched(server, layout):
    server.routes["/val.zip"] = RangeFile(BODY)
    with pytest.raises(StorageError, match="are free"):
        fetch(layout, remote(server, size_bytes=1 << 60))
    assert not server.requests


def test_missing_space_is_also_detected_from_the_servers_response(server, layout, monkeypatch):
    monkeypatch.setattr(partial, "_SPARE_BYTES", 1 << 60)
    server.routes["/val.zip"] = RangeFile(BODY)
    with pytest.raises(StorageError):
        fetch(layout, remote(server))


def test_several_files_are_fetched_and_a_verified_one_is_not_hashed_again(
    server, layout, monkeypatch
):
    for n in range(4):
        server.routes[f"/{n}"] = lambda _: Reply(BODY, delay_s=0.1)
    files = [RemoteFile(f"{n}.zip", (server.url(f"/{n}"),), len(BODY)) for n in range(4)]
    paths = fetch(layout, *files)
    assert server.most_under_way == 3
    assert [path.name for path in paths] == [f"{n}.zip" for n in range(4)]
    monkeypatch.setattr("mmindex.fetch.download._check", None)
    server.requests.clear()
    assert fetch(layout, *files) == paths
    assert not server.requests


def test_a_file_that_changed_on_disk_is_checked_again(server, layout):
    server.routes["/val.zip"] = RangeFile(BODY)
    (path,) = fetch(layout, remote(server))
    path.write_bytes(OTHER)
    with pytest.raises(DataError, match="expected sha256"):
        fetch(layout, remote(server))


def test_a_file_from_the_user_is_verified_and_used(server, layout):
    folder = layout.downloads_dir / "coco"
    folder.mkdir()
    (folder / "val.zip").write_bytes(BODY)
    fetch(layout, remote(server))
    assert not server.requests


def test_an_unknown_checksum_is_recorded_or_refused(server, layout):
    server.routes["/val.zip"] = RangeFile(BODY)
    strict = QUICK.model_copy(update={"require_checksum": True})
    with pytest.raises(DataError, match="no checksum is known"):
        fetch(layout, remote(server, sha256=None), settings=strict)
    (path,) = fetch(layout, remote(server, sha256=None))
    record = json.loads((path.parent / "val.zip.json").read_bytes())
    assert record["checked"] == "first use"
    assert record["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_private_addresses_need_permission(server, layout):
    with pytest.raises(NetworkError, match="loopback") as caught:
        fetch(layout, remote(server), settings=QUICK.model_copy(update={"allow_private": False}))
    assert "`allow_private`" in caught.value.hint
    assert not server.requests


@pytest.mark.parametrize("body", [BODY, b'{"images": []}\n'], ids=["zip", "json"])
def test_a_file_of_unknown_length_that_ends_early_is_not_trusted(body, server, layout):
    """If a server ends a file by closing the connection, a truncated file looks complete."""
    name = "val.zip" if body is BODY else "captions.json"
    file = RemoteFile(name, (server.url("/file"),))
    server.routes["/file"] = Reply(body, length=-1, cut_after=len(body) // 2)
    with pytest.raises(NetworkError, match="middle of the file"):
        fetch(layout, file)
    assert not (layout.downloads_dir / "coco" / name).exists()
    server.routes["/file"] = Reply(body, length=-1)
    (path,) = fetch(layout, file)
    assert path.read_bytes() == body
