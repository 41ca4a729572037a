"""Forgetting downloaded, archived and drawn images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmindex.media.uris import read_uri
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from support.fakestore import run_build
from support.forgetting import (
    assert_nowhere,
    assert_sound,
    build,
    forget_ids,
    image_ids,
    opened,
    traces_of,
)
from support.hostile_server import HostileServer, Reply, hostile_server
from support.images import png


def make_tar(path: Path, *files: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        running.routes["/robots.txt"] = Reply(b"")
        yield running


def build_list(place: Path, server: HostileServer, rows: dict[str, int]) -> Manifest:
    """Build from a list of URLs: path and number of the drawing that the server sends."""
    for path, number in rows.items():
        server.routes[path] = Reply(png(number), headers={"Content-Type": "image/png"})
    lines = [{"url": server.url(path), "caption": f"a drawing {path}"} for path in rows]
    (place / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = [f"urls:{place / 'list.jsonl'}"]
    return build(place, source=source, fetch__allow_private=True, fetch__backoff_s=0.01)


def list_id(server: HostileServer, path: str) -> str:
    return f"urls/list/{hashlib.sha256(server.url(path).encode()).hexdigest()[:20]}"


def test_downloaded_bytes_are_cleared_and_never_fetched_again(
    place: Path, server: HostileServer
) -> None:
    """One of two URLs with the same bytes is forgotten: both rows are removed, and no other row."""
    rows = {"/a.png": 1, "/b.png": 2, "/also-b.png": 2, "/c.png": 3}
    build_list(place, server, rows)
    layout, manifest = opened(place)
    images = manifest.find("images")
    assert images is not None
    uris = {row["key"]: row["uri"] for row in Objects(layout).read_table(images).to_pylist()}
    forget_ids(place, list_id(server, "/b.png"))
    hits = dict(server.hits)
    gone = [*traces_of(png(2)), list_id(server, "/b.png").encode(), b"b.png"]
    assert_nowhere(place / "store", *gone)
    for key, uri in uris.items():  # the rows stay in place
        if key != hashlib.sha256(png(2)).hexdigest():
            assert hashlib.sha256(read_uri(uri)).hexdigest() == key
    manifest = build_list(place, server, rows | {"/d.png": 4})
    assert (manifest.counts.seen, manifest.counts.indexed, manifest.counts.ignored) == (5, 3, 2)
    asked = {path for path in server.hits if server.hits[path] != hits.get(path)}
    assert asked <= {"/robots.txt", "/d.png"}
    assert_nowhere(place / "store", *gone)
    assert_sound(place)


def test_a_url_found_later_that_returns_it_is_requested_once_and_nothing_is_kept(
    place: Path, server: HostileServer
) -> None:
    build_list(place, server, {"/a.png": 1, "/b.png": 2})
    forget_ids(place, list_id(server, "/b.png"))
    rows = {"/a.png": 1, "/new.png": 2}
    for _ in range(2):
        manifest = build_list(place, server, rows)
        assert (manifest.counts.indexed, manifest.counts.ignored) == (1, 1)
    assert server.hits["/new.png"] == 1
    assert_nowhere(place / "store", *traces_of(png(2)))
    assert_sound(place)


def test_a_url_that_failed_can_be_forgotten(place: Path, server: HostileServer) -> None:
    build_list(place, server, {"/a.png": 1, "/b.png": 2})
    rows = {"/a.png": 1, "/b.png": 2, "/gone.png": 3}
    build_list(place, server, rows)
    server.routes["/gone2.png"] = Reply(b"", 404)
    (place / "list.jsonl").write_text(
        "\n".join(json.dumps({"url": server.url(path)}) for path in ("/a.png", "/gone2.png"))
    )
    source = [f"urls:{place / 'list.jsonl'}"]
    values = {"source": source, "fetch__allow_private": True, "limits__max_removed": 1.0}
    manifest = build(place, **values)
    assert manifest.counts.quarantined == 1
    forget_ids(place, list_id(server, "/gone2.png"))
    assert_nowhere(place / "store", b"gone2.png")
    manifest = build(place, **values)
    assert (manifest.counts.quarantined, manifest.counts.ignored) == (0, 1)
    assert server.hits["/gone2.png"] == 1


def test_samples_of_tar_shards_can_be_forgotten(place: Path) -> None:
    make_tar(
        place / "data" / "00000.tar",
        *(
            file
            for n in range(6)
            for file in ((f"{n}.png", png(n)), (f"{n}.txt", f"sample {n}".encode()))
        ),
    )
    source = [f"webdataset:{place / 'data'}"]
    build(place, source=source)
    forget_ids(place, "webdataset/data/00000/3")
    assert_nowhere(place / "store", *traces_of(png(3)), b"00000/3", b"00000.tar!3.png")
    assert not run_build(place / "store", place / "photos", source=source).published


def test_drawn_scenes_stay_out_and_their_archive_is_named(place: Path) -> None:
    source = ["scenes:20@5"]
    build(place, source=source)
    wanted = sorted(image_ids(place))[0]
    report = forget_ids(place, wanted)
    (archive,) = report.still_in
    assert Path(archive).is_file()
    assert archive.startswith(str(place / "store" / "downloads"))
    summary = run_build(place / "store", place / "photos", source=source)
    assert not summary.published
    assert summary.manifest.counts.indexed == 19
