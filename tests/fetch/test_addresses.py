"""The crawler never connects to internal addresses. No test here opens a connection."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.core.config import FetchConfig
from mmindex.fetch.addresses import parse_url, refusal
from mmindex.fetch.client import Client
from mmindex.fetch.outcome import FetchError, FetchStatus
from support.getting import status_of
from support.hostile_server import FixedResolver

# As addresses of a name in the DNS, and as hosts in a URL.
INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:db8::1",
    "2a00:1:2:3:0:5efe:192.168.1.1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "100::1",
]
OUTSIDE = [
    "93.184.215.14",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]
# Forms that getaddrinfo or a lenient parser reads as an internal address.
ODD_FORMS = [
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://127.0.0.1./",
    "http://00000177.0.0.1/",
    "http://127.0.0.0x1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "http://[::1]:80/",
    "http://[fe80::1%25eth0]/",
    "http://127.0.0.1:80\\@public.example/",
    "http://public.example:80@127.0.0.1/",
    "http://user:secret@public.example/",
    "http://127.0.0.1\t/",
    "http:///127.0.0.1/",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ftp://public.example/",
    "javascript:alert(1)",
    "http://%31%32%37.0.0.1/",
    "http://a b.example/",
    "http://exa\nmple/",
    "http://public.example:99999/",
    "http://[::1/",
    "",
]


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Record every address to which a connection is started; none is opened."""
    begun: list[object] = []

    async def record(_loop: object, _sock: socket.socket, address: object) -> None:
        begun.append(address)
        raise ConnectionRefusedError("no test connects")

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", record)
    return begun


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_with_an_inner_address_is_never_connected(address, connects):
    resolver = FixedResolver({"inside.example": [[address]]})
    assert status_of("http://inside.example/", resolver) is FetchStatus.REFUSED_ADDRESS
    assert not connects


@pytest.mark.parametrize("address", INSIDE)
def test_an_inner_address_in_the_url_is_never_connected(address, connects):
    host = f"[{address.replace('%', '%25')}]" if ":" in address else address
    refused = {FetchStatus.REFUSED_ADDRESS, FetchStatus.BAD_URL}
    assert status_of(f"http://{host}/") in refused
    assert not connects


@pytest.mark.parametrize("url", ODD_FORMS)
def test_an_odd_form_is_never_connected(url, connects):
    resolver = FixedResolver()  # returns 127.0.0.1 for every name, as getaddrinfo does for some
    refused = {FetchStatus.REFUSED_ADDRESS, FetchStatus.BAD_URL}
    assert status_of(url, resolver) in refused
    assert not connects


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_outer_address_is_connected_as_checked(address, connects):
    resolver = FixedResolver({"public.example": [[address]]})
    assert status_of("http://public.example/", resolver) is FetchStatus.CONNECTION
    (begun,) = connects
    assert ipaddress.ip_address(begun[0]) == ipaddress.ip_address(address)


def test_one_inner_address_among_outer_ones_refuses_the_name(connects):
    resolver = FixedResolver({"mixed.example": [["1.1.1.1", "127.0.0.1"]]})
    assert status_of("http://mixed.example/", resolver) is FetchStatus.REFUSED_ADDRESS
    assert not connects


def test_a_host_name_is_connected_at_the_checked_address(connects):
    """DNS rebinding: the address is external during the check and internal afterwards."""
    resolver = FixedResolver({"rebind.example": [["1.1.1.1"], ["127.0.0.1"]]})

    async def twice() -> None:
        async with Client(FetchConfig(), resolver) as client:
            for _ in range(2):
                with pytest.raises(FetchError):
                    async with client.get(parse_url("http://rebind.example/")):
                        pass

    asyncio.run(twice())
    assert {begun[0] for begun in connects} == {"1.1.1.1"}


def test_a_connector_that_bypasses_the_resolver_is_stopped_at_the_socket(connects, monkeypatch):
    """The last check is sufficient on its own."""
    monkeypatch.setattr("mmindex.fetch.addresses.Guard.check_url", lambda *_: None)
    assert status_of("http://127.0.0.1/") is FetchStatus.REFUSED_ADDRESS
    assert not connects


def test_metadata_and_special_addresses_are_refused_even_inside():
    for text in ("169.254.169.254", "fd00:ec2::254", "0.0.0.1", "224.0.0.1", "255.255.255.255"):
        assert refusal(ipaddress.ip_address(text), allow_private=True) is not None
    for text in ("127.0.0.1", "10.1.2.3", "169.254.7.7", "::1", "fd12::1", "fe80::1", "100.64.9.9"):
        assert refusal(ipaddress.ip_address(text), allow_private=True) is None


@given(st.ip_addresses(v=4, network="0.0.0.0/0"))
def test_every_ipv4_address_embedded_in_ipv6_is_checked_like_the_ipv4_address(inner):
    bits = int(inner)
    forms = (
        (0xFFFF << 32) | bits,
        (0x64FF9B << 96) | bits,
        (0x2002 << 112) | (bits << 80),
        (0x2A00 << 112) | (0x5EFE << 32) | bits,
        (0x20010000 << 96) | (bits ^ 0xFFFFFFFF),
    )
    for form in forms:
        outer = refusal(ipaddress.IPv6Address(form), allow_private=False)
        assert outer is not None or refusal(inner, allow_private=False) is None


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://a.example/0.png?sig=a%2Fb%2Bc%3D&x=1", "/0.png?sig=a%2Fb%2Bc%3D&x=1"),
        ("http://a.example/path%40home/1.png", "/path%40home/1.png"),
        ("http://a.example/a%2fb.png#part", "/a%2fb.png"),
        ("http://a.example?x=%20", "/?x=%20"),
        ("http://a.example/with space.png", "/with%20space.png"),
        ("http://a.example/caf\u00e9.png", "/caf%C3%A9.png"),
        ("http://a.example/100%.png", "/100%25.png"),
        ("http://a.example/a/../b.png", "/b.png"),
    ],
)
def test_a_well_formed_url_is_sent_unchanged_and_any_other_is_quoted(written, sent):
    """A signature is valid only for the exact bytes of the URL."""
    assert parse_url(written).raw_path_qs == sent
