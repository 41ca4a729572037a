"""The rules of site owners are obeyed."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Iterator

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from mmindex.core.config import FetchConfig
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.client import Client, retry_after
from mmindex.fetch.images import Fetched, ImageFetcher
from mmindex.fetch.optout import opt_out
from mmindex.fetch.outcome import FetchStatus
from mmindex.fetch.politeness import Politeness
from mmindex.fetch.robots import Robots, Rules
from support.hostile_server import FixedResolver, HostileServer, Reply, hostile_server
from support.range_server import in_turn

IMAGE = Reply(b"\x89PNG", headers={"Content-Type": "image/png"})


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        running.default = IMAGE
        yield running


def settings_with(**changes: object) -> FetchConfig:
    quick = {"allow_private": True, "backoff_s": 0.001, "image_timeout_s": 1.0, "retries": 0}
    return FetchConfig.model_validate({**quick, "read_timeout_s": 1.0, **changes})


def fetch(*urls: str, **changes: object) -> list[Fetched]:
    settings = settings_with(**changes)

    async def run() -> list[Fetched]:
        async with Client(settings, FixedResolver()) as client:
            politeness = Politeness(settings, Robots(client, settings.image_timeout_s))
            fetcher = ImageFetcher(client, politeness, settings, 1 << 20)
            return [await fetcher.fetch(url, fetcher.slot()) for url in urls]

    return asyncio.run(run())


def rules(server: HostileServer) -> Rules:
    async def run() -> Rules:
        async with Client(settings_with()) as client:
            return await Robots(client, 1.0).rules(parse_url(server.url("/x")))

    return asyncio.run(run())


def test_disallowed_urls_are_never_requested(server):
    server.routes["/robots.txt"] = Reply(
        b"User-agent: *\nAllow: /\n\nUser-agent: mmindex\nDisallow: /private\nAllow: /private/ok\n"
    )
    found = fetch(*(server.url(path) for path in ("/a", "/private/b", "/private/ok")))
    assert [one.status for one in found] == [
        FetchStatus.STORED,
        FetchStatus.OPTED_OUT,
        FetchStatus.STORED,
    ]
    assert server.hits == {"/robots.txt": 1, "/a": 1, "/private/ok": 1}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451])
def test_robots_4xx_allows_everything(status, server):
    """RFC 9309, 2.3.1.3."""
    server.routes["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /", status)
    assert fetch(server.url("/a"))[0].status is FetchStatus.STORED


@pytest.mark.parametrize("status", [429, 500, 502, 503, 599])
def test_robots_5xx_forbids_everything_for_now(status, server):
    """RFC 9309, 2.3.1.4."""
    server.routes["/robots.txt"] = Reply(b"", status)
    (found,) = fetch(server.url("/a"))
    assert found.status is FetchStatus.ROBOTS_UNREACHABLE
    assert server.hits["/a"] == 0


@pytest.mark.parametrize("broken", [b"", b"garbage\r\n\r\n", Reply(b"xyz", trickle_s=2.0)])
def test_robots_without_a_response_forbids_everything_for_now(broken, server):
    server.routes["/robots.txt"] = broken
    (found,) = fetch(server.url("/a"))
    assert found.status in (FetchStatus.CONNECTION, FetchStatus.TIMEOUT)
    assert found.detail.startswith("robots.txt: ")
    assert server.hits["/a"] == 0


def test_robots_is_followed_through_five_redirects_to_other_hosts(server):
    for n in range(5):
        target = server.url(f"/r{n + 1}", f"host{n}.example")
        server.routes["/robots.txt" if n == 0 else f"/r{n}"] = Reply(b"", 301, {"Location": target})
    server.routes["/r5"] = Reply(b"User-agent: *\nDisallow: /a\n")
    assert fetch(server.url("/a"))[0].status is FetchStatus.OPTED_OUT
    server.routes["/r5"] = Reply(b"", 302, {"Location": "/r6"})
    assert fetch(server.url("/a"))[0].status is FetchStatus.STORED  # 2.3.1.2: unavailable


def test_robots_is_read_up_to_its_limit(server):
    rest = b"# filler\n" * 200_000
    server.routes["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /a\n" + rest, endless=True)
    assert fetch(server.url("/a"))[0].status is FetchStatus.OPTED_OUT


def test_robots_is_fetched_once_for_all_waiting_requests(server):
    server.routes["/robots.txt"] = Reply(b"", delay_s=0.1)

    async def run() -> None:
        async with Client(settings_with()) as client:
            robots = Robots(client, 1.0)
            await asyncio.gather(*(robots.rules(parse_url(server.url(f"/{n}"))) for n in range(50)))

    asyncio.run(run())
    assert server.hits == {"/robots.txt": 1}


def test_robots_of_redirect_targets_is_obeyed(server):
    server.routes["/a"] = Reply(b"", 302, {"Location": server.url("/b", "other.example")})
    server.routes["/robots.txt"] = lambda request: Reply(
        b"User-agent: *\nDisallow: /" if request.host == "other.example" else b""
    )
    assert fetch(server.url("/a"))[0].status is FetchStatus.OPTED_OUT
    assert server.hits["/b"] == 0


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [
        ("Crawl-delay: 2.5", 2.5),
        ("Crawl-delay: nan", 0.0),
        ("Crawl-delay: -3", 0.0),
        ("Crawl-delay: soon", 0.0),
        ("Request-rate: 1/7", 7.0),
        ("Disallow:", 0.0),
    ],
)
def test_crawl_delay_is_read(text, delay_s, server):
    server.routes["/robots.txt"] = Reply(f"User-agent: *\n{text}\n".encode())
    assert rules(server).delay_s == delay_s


def test_crawl_delay_is_obeyed_between_requests(server):
    server.routes["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 0.2\n")
    begun = time.monotonic()
    fetch(*(server.url(f"/{n}") for n in range(4)))
    assert time.monotonic() - begun >= 3 * 0.2


def test_a_too_long_crawl_delay_leaves_the_rows_for_later(server):
    server.routes["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 3600\n")
    (found,) = fetch(server.url("/a"))
    assert found.status is FetchStatus.CRAWL_DELAY
    assert server.hits["/a"] == 0


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["noindex"], "noindex"),
        (["noai, noimageai"], "noai"),
        (["NoImageAI"], "noimageai"),
        (["none"], "none"),
        (["nofollow, noimageindex"], "noimageindex"),
        (["mmindex: noindex"], "noindex"),
        (["*: noai"], "noai"),
        (["googlebot: nofollow", "noai"], "noai"),
        (["googlebot: noindex"], None),
        (["googlebot: nofollow, noindex"], None),
        (["googlebot: noindex, mmindex: noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
        (["max-image-preview: none"], None),
        (["nofollow, nosnippet"], None),
        (["all"], None),
        (["noindexing"], None),
        ([""], None),
        ([], None),
    ],
)
def test_x_robots_tag(values, found):
    headers = CIMultiDictProxy(CIMultiDict([("X-Robots-Tag", value) for value in values]))
    assert opt_out(headers) == (found and f"X-Robots-Tag: {found}")


def test_an_opt_out_is_seen_before_the_body_is_read(server):
    endless = Reply(b"x" * 65536, headers={"X-Robots-Tag": "noai"}, endless=True)
    server.routes["/a"] = endless
    (found,) = fetch(server.url("/a"), image_timeout_s=5.0)
    assert found.status is FetchStatus.OPTED_OUT
    assert found.data == b""


def test_retry_after_is_read_in_both_forms():
    now = time.time()
    assert retry_after("120") == 120
    assert retry_after(" 0 ") == 0
    assert retry_after(email.utils.formatdate(now + 90, usegmt=True), now) == pytest.approx(
        90, abs=1
    )
    assert retry_after(email.utils.formatdate(now - 90, usegmt=True), now) == 0
    for nonsense in ("", "soon", "-5", "1.5", "²", "Mon, 99 Foo 2020"):
        assert retry_after(nonsense) is None


def test_a_server_that_always_says_retry_after_zero_is_given_up(server):
    server.default = Reply(b"", 429, {"Retry-After": "0"})
    server.routes["/robots.txt"] = Reply(b"")
    (found,) = fetch(server.url("/a"), retry_after_budget_s=2.0)
    assert found.status is FetchStatus.THROTTLED
    assert server.hits["/a"] <= 3


def test_temporary_failures_are_retried_and_permanent_ones_are_not(server):
    server.routes["/flaky"] = in_turn(Reply(b"", 500), Reply(b"", 502), IMAGE)
    server.routes["/gone"] = Reply(b"", 404)
    flaky, gone = fetch(server.url("/flaky"), server.url("/gone"), retries=2)
    assert (flaky.status, flaky.tries) == (FetchStatus.STORED, 3)
    assert (gone.status, gone.tries) == (FetchStatus.GONE, 1)
    assert server.hits["/gone"] == 1
