"""Redirects and proxies are limited, and the client identifies itself."""

from __future__ import annotations

import ipaddress

import pytest

from mmindex.core.config import FetchConfig
from mmindex.fetch import addresses
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.outcome import FetchError, FetchStatus
from support.getting import get, status_of
from support.hostile_server import FixedResolver, Reply


@pytest.fixture
def only_the_server(server, monkeypatch):
    """The server of the test counts as an external address; all other rules apply."""
    judge = addresses.refusal

    def refusal_elsewhere(address, *, allow_private):
        server_itself = address == ipaddress.ip_address("127.0.0.1")
        return None if server_itself else judge(address, allow_private=allow_private)

    monkeypatch.setattr(addresses, "refusal", refusal_elsewhere)
    return server


@pytest.mark.parametrize(
    "target",
    ["http://inside.example/", "//inside.example/", "http://[::1]/", "http://10.0.0.1/",
     "http://127.0.0.2/", "http://[::ffff:127.0.0.2]/", "http://169.254.169.254/latest/"],
)  # fmt: skip
def test_redirects_to_internal_addresses_are_refused(target, only_the_server):
    server = only_the_server
    server.routes["/start"] = Reply(b"", 302, {"Location": "/second"})
    server.routes["/second"] = Reply(b"", 308, {"Location": target})
    resolver = FixedResolver({"inside.example": [["192.168.1.1"]]})
    assert status_of(server.url("/start"), resolver) is FetchStatus.REFUSED_ADDRESS
    assert [request.path for request in server.requests] == ["/start", "/second"]


@pytest.mark.parametrize(
    "location",
    [
        "ftp://public.example/",
        "file:///etc/passwd",
        "http://user:pw@127.0.0.1/",
        "http://2130706433/",
        "http://[::1",
        "javascript:0",
    ],
)
def test_redirects_to_invalid_urls_are_refused(location, server):
    server.routes["/start"] = Reply(b"", 302, {"Location": location})
    assert status_of(server.url("/start"), allow_private=True) is FetchStatus.BAD_REDIRECT


def test_at_most_five_redirects(server):
    for n in range(7):
        server.routes[f"/{n}"] = Reply(b"", 307, {"Location": f"/{n + 1}"})
    server.routes["/7"] = Reply(b"there")
    assert get(server.url("/2"), allow_private=True) == b"there"
    assert status_of(server.url("/1"), allow_private=True) is FetchStatus.BAD_REDIRECT
    assert status_of(server.url("/0"), allow_private=True) is FetchStatus.BAD_REDIRECT


def test_https_never_redirects_to_http():
    from mmindex.fetch.client import _next_hop

    secure = parse_url("https://public.example/a")
    assert _next_hop(secure, "/b").scheme == "https"
    assert _next_hop(secure, "//other.example/").scheme == "https"
    with pytest.raises(FetchError, match="https to http"):
        _next_hop(secure, "http://public.example/a")


def test_environment_proxies_and_netrc_are_ignored_unless_requested(server, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", server.url("/"))
    monkeypatch.delenv("no_proxy", raising=False)
    server.routes["/direct"] = Reply(b"direct")
    target = server.url("/direct")
    assert get(target, allow_private=True) == b"direct"
    assert server.requests[-1].path == "/direct"
    server.routes["http://public.example/x"] = Reply(b"by proxy")
    found = get("http://public.example/x", FixedResolver(), use_env_proxy=True)
    assert found == b"by proxy"
    assert all("authorization" not in request.headers for request in server.requests)


def test_the_user_agent_identifies_mmindex(server):
    server.routes["/"] = Reply(b"hello")
    get(server.url("/"), allow_private=True, contact="ops@example.org")
    agent = server.requests[-1].headers["user-agent"]
    assert agent.startswith("mmindex/")
    assert "ops@example.org" in agent


@pytest.mark.parametrize("contact", ["a\r\nX-Evil: 1", "(nested)", "höflich", " padded"])
def test_a_contact_cannot_forge_a_header(contact):
    with pytest.raises(ValueError, match="plain ASCII"):
        FetchConfig(contact=contact)
