"""An interrupted download is resumed or started again; two files are never mixed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from mmindex.core.errors import MmindexError, NetworkError
from mmindex.fetch.download import RemoteFile
from support.downloads import BODY, OTHER, QUICK, STEP, fetch, nothing_usable, remote
from support.hostile_server import Reply
from support.range_server import RangeFile, in_turn

STRONG, WEAK = '"v1"', 'W/"v1"'


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


def test_a_second_run_resumes_the_download_of_the_first(server, layout):
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


@pytest.mark.parametrize(
    ("first", "then"),
    [('"v0"', STRONG), (WEAK, WEAK), ("", ""), (STRONG, ""), ("", STRONG), (STRONG, WEAK)],
)
def test_another_representation_is_never_spliced(first, then, server, layout):
    """If the ETag has changed, is weak or missing, the download starts again."""
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
def test_a_wrong_length_results_in_the_right_bytes_or_an_error(length, server, layout):
    server.routes["/val.zip"] = Reply(BODY, headers={"ETag": '"v1"'}, length=length)
    if length == -1:  # no length at all: the body ends with the connection
        (path,) = fetch(layout, remote(server))
        assert path.read_bytes() == BODY
        return
    with pytest.raises(MmindexError) as caught:
        fetch(layout, remote(server))
    assert caught.value.exit_code in (65, 69)
    assert nothing_usable(layout)


_CHILD = """
import sys
from pathlib import Path
from mmindex.fetch.download import RemoteFile, download_files
from mmindex.core.config import FetchConfig
from mmindex.fetch import transfer
from mmindex.store.layout import Layout
transfer._SYNC_BYTES = 65536
layout = Layout(Path(sys.argv[1]))
settings = FetchConfig(allow_private=True)
file = RemoteFile("val.zip", (sys.argv[2],))
download_files(layout, layout.downloads_dir / "coco", [file], settings)
"""


def test_killed_in_the_middle_and_resumed(server, layout):
    """After kill -9, only the bytes after the last sync are lost, and the rest is correct."""

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
