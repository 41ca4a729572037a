"""URL lists with a real server on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmindex.core.config import FetchConfig
from mmindex.core.errors import BusyError
from mmindex.core.records import Ignored, Note, NoteKind, Reason, Rejected, Skip, SourceItem
from mmindex.fetch.outcome import FetchStatus
from mmindex.sources.kinds.urls import UrlOptions, url_list_events
from mmindex.store.layout import Layout
from support.hostile_server import FixedResolver, Reply
from support.images import png

QUICK = FetchConfig(
    allow_private=True,
    backoff_s=0.01,
    read_timeout_s=2,
    connect_timeout_s=2,
    image_timeout_s=1,
    retry_after_budget_s=3,
)


def image(n: int, **headers: str) -> Reply:
    return Reply(png(n), headers={"Content-Type": "image/png", **headers})


def write_list(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps({"url": u, "caption": c}) for u, c in rows) + "\n")
    return path


def read(layout: Layout, path: Path, settings: FetchConfig = QUICK, **other):
    options = UrlOptions(layout, settings, 1 << 24, resolver=FixedResolver(), **other)
    return list(url_list_events(path, None, options))


def items(events):
    return [event for event in events if isinstance(event, SourceItem)]


def rejected(events):
    return {event.uri: event for event in events if isinstance(event, Rejected)}


def test_fetches_each_url_once_and_never_again(server, layout, tmp_path):
    for n in range(30):
        server.routes[f"/{n}.png"] = image(n)
    path = write_list(
        tmp_path / "pets.jsonl", [(server.url(f"/{n}.png"), f"no {n}") for n in range(30)]
    )
    first = read(layout, path)
    assert [item.captions for item in items(first)] == [(f"no {n}",) for n in range(30)]
    assert [item.read() for item in items(first)] == [png(n) for n in range(30)]
    assert {count for hit, count in server.hits.items() if hit != "/robots.txt"} == {1}
    before = len(server.requests)
    again = read(layout, path)
    assert [(i.image_id, i.uri) for i in items(again)] == [
        (i.image_id, i.uri) for i in items(first)
    ]
    assert len(server.requests) == before


def test_rows_with_the_same_url_are_one_image_with_all_captions(server, layout, tmp_path):
    server.routes["/a.png"] = image(1)
    url = server.url("/a.png")
    path = write_list(tmp_path / "l.jsonl", [(url, "one"), (url, "two"), (url, "three")])
    events = read(layout, path)
    assert [item.captions for item in items(events)] == [("one", "two", "three")]
    assert [e for e in events if isinstance(e, Ignored)] == [Ignored(Skip.REPEATED_ADDRESS)] * 2
    assert server.hits["/a.png"] == 1


def test_same_bytes_under_two_urls_are_stored_once(server, layout, tmp_path):
    server.routes["/a.png"] = server.routes["/b.png"] = image(1)
    path = write_list(
        tmp_path / "l.jsonl", [(server.url("/a.png"), "a"), (server.url("/b.png"), "b")]
    )
    first, second = items(read(layout, path))
    assert first.uri == second.uri
    assert first.image_id != second.image_id
    assert first.read() == png(1)


def test_every_row_has_an_outcome(server, layout, tmp_path):
    server.routes["/ok.png"] = image(1)
    server.routes["/page"] = Reply(b"<html>", headers={"Content-Type": "text/html"})
    server.routes["/fake.png"] = Reply(b"  <!DOCTYPE html>", headers={"Content-Type": "image/png"})
    server.routes["/empty.png"] = Reply(b"")
    server.routes["/500"] = Reply(b"", 500)
    server.routes["/403"] = Reply(b"", 403)
    server.routes["/noai"] = image(2, **{"X-Robots-Tag": "noai, noimageai"})
    server.routes["/other-bot"] = image(3, **{"X-Robots-Tag": "googlebot: noindex"})
    server.routes["/tdm"] = image(4, **{"TDM-Reservation": "1"})
    server.routes["/cut"] = Reply(png(5) * 9, cut_after=50)
    server.routes["/big"] = Reply(b"x", length=1 << 30)
    server.routes["/endless"] = Reply(b"x" * 65536, endless=True)
    server.routes["/gzip"] = image(6, **{"Content-Encoding": "gzip"})
    server.routes["/trickle"] = Reply(b"x" * 1000, trickle_s=0.5)
    server.routes["/garbage"] = b"this is no HTTP\r\n\r\n"
    expected = {
        "/page": Reason.NOT_AN_IMAGE,
        "/fake.png": Reason.NOT_AN_IMAGE,
        "/empty.png": Reason.EMPTY,
        "/500": Reason.FETCH_FAILED,
        "/403": Reason.FETCH_FAILED,
        "/404": Reason.FETCH_FAILED,
        "/noai": Reason.OPTED_OUT,
        "/tdm": Reason.OPTED_OUT,
        "/cut": Reason.FETCH_FAILED,
        "/big": Reason.TOO_LARGE,
        "/endless": Reason.TOO_LARGE,
        "/gzip": Reason.FETCH_FAILED,
        "/trickle": Reason.FETCH_FAILED,
        "/garbage": Reason.FETCH_FAILED,
    }
    good = ["/ok.png", "/other-bot"]
    urls = [server.url(path) for path in [*good, *expected]] + ["ftp://x/y", "not an address"]
    path = write_list(tmp_path / "l.jsonl", [(url, "") for url in urls])
    events = read(layout, path)
    bad = rejected(events)
    assert {item.metadata["url"] for item in items(events)} == {server.url(p) for p in good}
    assert {url: event.reason for url, event in bad.items()} == {
        **{server.url(p): reason for p, reason in expected.items()},
        "ftp://x/y": Reason.FETCH_FAILED,
        "not an address": Reason.FETCH_FAILED,
    }
    assert len(items(events)) + len(bad) == len(urls)
    assert server.sent_bytes < 60 << 20


def test_temporary_failures_are_requested_again_and_permanent_ones_are_not(
    server, layout, tmp_path
):
    server.routes["/later"] = Reply(b"", 503)
    path = write_list(
        tmp_path / "l.jsonl", [(server.url("/later"), "x"), (server.url("/gone"), "y")]
    )
    assert len(rejected(read(layout, path))) == 2
    server.routes["/later"] = server.routes["/gone"] = image(1)
    server.hits.clear()
    events = read(layout, path)
    assert [item.metadata["url"] for item in items(events)] == [server.url("/later")]
    assert server.hits["/gone"] == 0
    after = read(layout, path, QUICK.model_copy(update={"retry_permanent_days": 0.0}))
    assert len(items(after)) == 2


def test_a_changed_list_fetches_only_new_urls(server, layout, tmp_path):
    server.default = lambda request: image(int(request.path.strip("/") or 0))
    server.routes["/robots.txt"] = Reply(b"", 404)
    path = write_list(tmp_path / "l.jsonl", [(server.url(f"/{n}"), "") for n in range(10)])
    read(layout, path)
    server.hits.clear()
    write_list(path, [(server.url(f"/{n}"), "") for n in reversed(range(2, 12))])
    renamed = path.rename(tmp_path / "renamed.jsonl")
    events = read(layout, renamed)
    assert [item.read() for item in items(events)] == [png(n) for n in reversed(range(2, 12))]
    assert set(server.hits) == {"/robots.txt", "/10", "/11"}


def test_retry_after_is_waited_for_within_the_budget(server, layout, tmp_path):
    answers = [Reply(b"", 429, {"Retry-After": "1"}), image(1)]
    server.routes["/a"] = lambda _: answers.pop(0)
    path = write_list(tmp_path / "l.jsonl", [(server.url("/a"), "")])
    assert len(items(read(layout, path))) == 1
    assert not answers


def test_a_too_long_retry_after_leaves_the_rows_for_later(server, layout, tmp_path):
    server.routes["/ok"] = image(1)
    server.default = Reply(b"", 503, {"Retry-After": "3600"})
    server.routes["/robots.txt"] = Reply(b"", 404)
    rows = [(server.url("/ok", "good.example"), "")]
    rows += [(server.url(f"/{n}", "busy.example"), "") for n in range(40)]
    path = write_list(tmp_path / "l.jsonl", rows)
    with pytest.raises(BusyError) as caught:
        read(layout, path)
    assert caught.value.exit_code == 75
    assert len(server.requests) < 40
    events = read(layout, path, max_throttled=1.0)
    assert len(items(events)) == 1
    assert len(rejected(events)) == 40
    assert server.hits["/ok"] == 1


def test_a_dead_host_is_given_up_and_does_not_affect_other_hosts(server, layout, tmp_path):
    server.routes["/ok"] = image(1)
    server.default = lambda r: b"" if r.host == "dead.example" else Reply(b"", 404)
    settings = QUICK.model_copy(update={"host_failures": 5, "retries": 0})
    server.routes["/robots.txt"] = Reply(b"", 404)
    rows = [(server.url(f"/{n}", "dead.example"), "") for n in range(200)]
    rows.append((server.url("/ok", "fine.example"), ""))
    path = write_list(tmp_path / "l.jsonl", rows)
    events = read(layout, path, settings)
    assert len(items(events)) == 1
    notes = {event.kind: event.count for event in events if isinstance(event, Note)}
    assert notes["addresses_host_given_up"] >= 150
    assert len(rejected(events)) == 200


def test_no_host_gets_more_requests_at_once_than_allowed(server, layout, tmp_path):
    server.default = lambda request: Reply(png(1), headers={"X": request.path}, delay_s=0.02)
    server.routes["/robots.txt"] = Reply(b"", 404)
    path = write_list(tmp_path / "l.jsonl", [(server.url(f"/{n}"), "") for n in range(40)])
    read(layout, path, QUICK.model_copy(update={"per_host_concurrency": 3}))
    assert server.most_under_way == 3


def test_metadata_and_ids_come_from_the_list(server, layout, tmp_path):
    server.routes["/a"] = image(1)
    path = tmp_path / "l.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,URL,TEXT,licence\r\n"
        + f'k1,{server.url("/a")},"a, ""quoted""\r\ncaption",cc\r\n'.encode()
    )
    (item,) = items(read(layout, path))
    assert item.image_id == "k1"
    assert item.captions == ('a, "quoted"\r\ncaption',)
    assert item.metadata == {"licence": "cc", "url": server.url("/a")}


def test_every_status_of_a_url_has_a_note():
    for status in FetchStatus:
        assert NoteKind(f"addresses_{status}")
