"""kill -9 during a crawl: stored images are not fetched again, and no row is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmindex.core.config import FetchConfig
from mmindex.core.records import Ignored, Rejected, SourceItem
from mmindex.sources.kinds.urls import UrlOptions, url_list_events
from mmindex.store.layout import Layout
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.versions import create_layout
from support.hostile_server import FixedResolver, HostileServer, Reply, hostile_server
from support.images import png

ROWS = int(os.environ.get("MMINDEX_TEST_KILL_ROWS", "600"))
SMALL_SHARDS = {"allow_private": True, "shard_bytes": 1 << 20, "shard_seconds": 0.05}

_CHILD = """
import json, sys
from pathlib import Path
from mmindex.core.config import FetchConfig
from mmindex.sources.kinds.urls import UrlOptions, url_list_events
from mmindex.store.layout import Layout
settings = FetchConfig.model_validate_json(sys.argv[3])
options = UrlOptions(Layout(Path(sys.argv[1])), settings, 1 << 24)
list(url_list_events(Path(sys.argv[2]), None, options))
"""


def crawl_and_kill(layout: Layout, path: Path, server: HostileServer, after: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(layout.root), str(path), json.dumps(SMALL_SHARDS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    server.wait_for(lambda: len(server.requests) >= after or child.poll() is not None)
    child.send_signal(signal.SIGKILL)
    child.wait()


def stored_urls(layout: Layout) -> set[str]:
    shards = sorted((layout.downloads_dir / "fetched").glob("*.parquet"))
    return {
        url for shard in shards for url in pq.read_table(shard, columns=["url"])["url"].to_pylist()
    }


@pytest.fixture
def server():
    with hostile_server() as running:
        running.routes["/robots.txt"] = Reply(b"")
        images = [png(n) for n in range(20)]

        def answer(request):
            n = int(request.path.strip("/"))
            return Reply(b"", 404) if n % 10 == 9 else Reply(images[n % 20])

        running.default = answer
        yield running


def test_killed_three_times_and_then_finished(server, tmp_path):
    layout = create_layout(tmp_path / "store")
    path = tmp_path / "list.jsonl"
    urls = [server.url(f"/{n}") for n in range(ROWS)]
    path.write_text("".join(json.dumps({"url": url, "caption": url}) + "\n" for url in urls))
    kept: set[str] = set()
    for quarter in (1, 2, 3):
        already = len(server.requests)
        remaining = ROWS - len(kept)
        crawl_and_kill(layout, path, server, already + remaining // (5 - quarter))
        asked = Counter(request.path for request in server.requests[already:])
        again = {url for url in kept if asked["/" + url.rpartition("/")[2]]}
        assert not again, "stored, yet fetched again"
        kept = stored_urls(layout)
        remove_leftovers(layout)
    assert kept, "nothing was stored before the kills"
    before = len(server.requests)
    options = UrlOptions(
        layout, FetchConfig.model_validate(SMALL_SHARDS), 1 << 24, resolver=FixedResolver()
    )
    events = list(url_list_events(path, None, options))
    last = {request.path for request in server.requests[before:]} - {"/robots.txt"}
    assert last == {"/" + url.rpartition("/")[2] for url in set(urls) - kept}
    items = [event for event in events if isinstance(event, SourceItem)]
    gone = [event for event in events if isinstance(event, Rejected)]
    assert not [event for event in events if isinstance(event, Ignored)]
    assert [item.captions[0] for item in items] == [u for n, u in enumerate(urls) if n % 10 != 9]
    assert [event.uri for event in gone] == [u for n, u in enumerate(urls) if n % 10 == 9]
    assert {item.read() for item in items} == {png(n) for n in range(20) if n % 10 != 9}
