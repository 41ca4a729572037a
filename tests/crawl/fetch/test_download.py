"""Downloads end with the right bytes or with an error that says so; nothing is ever spliced."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmindex.crawl.fetch import partial
from mmindex.crawl.fetch.download import RemoteFile, download_files
from mmindex.errors import BusyError, DataError, MmindexError, NetworkError, StorageError
from mmindex.fetch_config import FetchConfig
from mmindex.store.layout import Layout
from mmindex.store.versions import create_layout
from support.hostile_server import HostileServer, Reply, hostile_server
from support.pictures import png
from support.range_server import RangeFile, in_turn

QUICK = FetchConfig(
    allow_private=True,
    backoff_s=0.001,
    retries=2,
    read_timeout_s=1,
    connect_timeout_s=1,
    retry_after_budget_s=2,
)
STEP = 64 * 1024


def coco_zip(images: int = 20) -> bytes:
    """A small zip laid out as COCO's image archives are, of some 800 KiB."""
    noise = random.Random(0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for n in range(images):
            archive.writestr(f"val2017/{n:012d}.jpg", png(n) + noise.randbytes(40_000))
    return buffer.getvalue()


BODY = coco_zip()
OTHER = BODY[:4] + bytes(reversed(BODY[4:]))


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_layout(tmp_path / "store")


def remote(server: HostileServer, path: str = "/val.zip", **facts) -> RemoteFile:
    facts.setdefault("sha256", hashlib.sha256(BODY).hexdigest())
    return RemoteFile("val.zip", (server.url(path),), **facts)


def fetch(layout: Layout, *files: RemoteFile, settings: FetchConfig = QUICK) -> list[Path]:
    return download_files(layout, layout.downloads_dir / "coco", files, settings)


def nothing_usable(layout: Layout) -> bool:
    return not (layout.downloads_dir / "coco" / "val.zip").exists()


def test_cut_at_every_64_kib_and_resumed_gives_the_right_sha256(server, layout):
    for cut in range(STEP, len(BODY), STEP):
        served = RangeFile(BODY, cut_after=cut)
        server.routes[f"/{cut}"] = served
        file = RemoteFile(f"{cut}.zip", (server.url(f"/{cut}"),), len(BODY))
        (path,) = fetch(layout, file)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(BODY).digest()
        answers = -(-len(BODY) // cut)
        assert server.hits[f"/{cut}"] == answers
        ranges = [r.headers.get("range") for r in server.requests if r.path == f"/{cut}"]
        assert ranges == [None, *(f"bytes={n * cut}-" for n in range(1, answers))]


def test_a_second_run_resumes_what_the_first_left(server, layout):
    impatient = QUICK.model_copy(update={"retries": 0})

    server.routes["/val.zip"] = in_turn(RangeFile(BODY, cut_after=3 * STEP), Reply(b"", 500))
    with pytest.raises(NetworkError):
        fetch(layout, remote(server), settings=impatient)
    assert nothing_usable(layout)
    sidecar = json.loads((layout.downloads_dir / "coco" / "val.zip.part.json").read_bytes())
    assert sidecar == {
        "url": server.url("/val.zip"), "etag": '"v1"', "length": len(BODY), "bytes": 3 * STEP
    }  # fmt: skip
    server.routes["/val.zip"] = RangeFile(BODY)
    (path,) = fetch(layout, remote(server))
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["range"] == f"bytes={3 * STEP}-"
    assert not list(path.parent.glob("*.part*"))


STRONG, WEAK = '"v1"', 'W/"v1"'


@pytest.mark.parametrize(
    ("first", "then"),
    [('"v0"', STRONG), (WEAK, WEAK), ("", ""), (STRONG, ""), ("", STRONG), (STRONG, WEAK)],
)
def test_another_representation_is_never_spliced(first, then, server, layout):
    """ETag changed, weak, absent: begun again."""
    server.routes["/val.zip"] = in_turn(
        RangeFile(OTHER, first, cut_after=STEP), RangeFile(BODY, then)
    )
    (path,) = fetch(layout, remote(server))
    assert path.read_bytes() == BODY


def test_a_server_that_ignores_range_begins_again(server, layout):
    server.routes["/val.zip"] = in_turn(
        RangeFile(BODY, cut_after=2 * STEP), RangeFile(BODY, ignore_range=True)
    )
    (path,) = fetch(layout, remote(server))
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "span",
    [
        f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
        f"bytes {STEP + 1}-{len(BODY) - 1}/{len(BODY)}",
        f"bytes {STEP}-{len(BODY) - 2}/{len(BODY)}",
        f"bytes {STEP}-{len(BODY)}/{len(BODY) + 1}",
        f"bytes {STEP}-{len(BODY) - 1}/*",
        "items 1-2/3",
        "",
    ],
)
def test_a_wrong_content_range_is_never_spliced(span, server, layout):
    server.routes["/val.zip"] = in_turn(
        RangeFile(BODY, cut_after=STEP), RangeFile(BODY, content_range=span), RangeFile(BODY)
    )
    (path,) = fetch(layout, remote(server))
    assert path.read_bytes() == BODY
    assert len(server.requests) == 3


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1, 10, -1])
def test_a_lying_length_gives_the_right_bytes_or_an_error(length, server, layout):
    server.routes["/val.zip"] = Reply(BODY, headers={"ETag": '"v1"'}, length=length)
    if length == -1:  # no length at all: the body ends with the connection
        (path,) = fetch(layout, remote(server))
        assert path.read_bytes() == BODY
        return
    with pytest.raises(MmindexError) as caught:
        fetch(layout, remote(server))
    assert caught.value.exit_code in (65, 69)
    assert nothing_usable(layout)


def test_a_length_other_than_the_publisher_states_is_refused_before_the_body(server, layout):
    server.routes["/val.zip"] = Reply(b"PK" + b"x" * 100)
    with pytest.raises(DataError, match="102 bytes"):
        fetch(layout, remote(server, size_bytes=len(BODY)))
    assert nothing_usable(layout)


def test_an_unasked_gzip_body_is_an_error(server, layout):
    server.routes["/val.zip"] = Reply(BODY, headers={"Content-Encoding": "gzip"})
    with pytest.raises(NetworkError, match="content-encoding"):
        fetch(layout, remote(server))
    assert nothing_usable(layout)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
def test_a_captive_portals_page_is_no_archive(kind, server, layout):
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
        with pytest.raises(DataError, match="is right"):
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


def test_an_endless_body_and_a_trickling_one_are_cut_off(server, layout):
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


def test_base_url_stands_in_for_the_publishers_host(server, layout):
    server.routes["/mirror/zips/val.zip"] = RangeFile(BODY)
    file = RemoteFile("val.zip", ("http://images.cocodataset.example/zips/val.zip",))
    mirrored = QUICK.model_copy(update={"base_url": server.url("/mirror/")})
    (path,) = fetch(layout, file, settings=mirrored)
    assert path.read_bytes() == BODY


def test_no_space_is_said_before_anything_is_fetched(server, layout):
    server.routes["/val.zip"] = RangeFile(BODY)
    with pytest.raises(StorageError, match="are free"):
        fetch(layout, remote(server, size_bytes=1 << 60))
    assert not server.requests


def test_no_space_is_also_seen_in_the_servers_answer(server, layout, monkeypatch):
    monkeypatch.setattr(partial, "_SPARE_BYTES", 1 << 60)
    server.routes["/val.zip"] = RangeFile(BODY)
    with pytest.raises(StorageError):
        fetch(layout, remote(server))


def test_several_files_at_once_and_a_checked_one_is_not_hashed_again(server, layout, monkeypatch):
    for n in range(4):
        server.routes[f"/{n}"] = lambda _: Reply(BODY, delay_s=0.1)
    files = [RemoteFile(f"{n}.zip", (server.url(f"/{n}"),), len(BODY)) for n in range(4)]
    paths = fetch(layout, *files)
    assert server.most_under_way == 3
    assert [path.name for path in paths] == [f"{n}.zip" for n in range(4)]
    monkeypatch.setattr("mmindex.crawl.fetch.download._check", None)
    server.requests.clear()
    assert fetch(layout, *files) == paths
    assert not server.requests


def test_a_file_that_changed_on_disk_is_checked_again(server, layout):
    server.routes["/val.zip"] = RangeFile(BODY)
    (path,) = fetch(layout, remote(server))
    path.write_bytes(OTHER)
    with pytest.raises(DataError, match="sha256 is"):
        fetch(layout, remote(server))


def test_a_file_that_the_user_put_there_is_checked_and_taken(server, layout):
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
    assert "--allow-private" in caught.value.hint
    assert not server.requests


_CHILD = """
import sys
from pathlib import Path
from mmindex.crawl.fetch.download import RemoteFile, download_files
from mmindex.fetch_config import FetchConfig
from mmindex.crawl.fetch import transfer
from mmindex.store.layout import Layout
transfer._SYNC_BYTES = 65536
layout = Layout(Path(sys.argv[1]))
settings = FetchConfig(allow_private=True)
file = RemoteFile("val.zip", (sys.argv[2],))
download_files(layout, layout.downloads_dir / "coco", [file], settings)
"""


def test_killed_in_the_middle_and_resumed(server, layout):
    """kill -9 costs what came after the last sync, and the rest is right."""

    server.routes["/val.zip"] = Reply(
        BODY[: 5 * STEP], headers={"ETag": STRONG}, length=len(BODY), hold=True
    )
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(layout.root), server.url("/val.zip")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    sidecar = layout.downloads_dir / "coco" / "val.zip.part.json"
    server.wait_for(lambda: sidecar.exists() and json.loads(sidecar.read_bytes())["bytes"] > 0)
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.routes["/val.zip"] = RangeFile(BODY)
    (path,) = fetch(layout, remote(server))
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["range"].startswith("bytes=")
