"""Hostile requests do not get access and do not stop the service."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mmindex.serve import protocol, settings
from mmindex.serve.settings import MAX_UPLOAD_BYTES
from support.images import png

TOKEN = "correct-horse-battery-staple"  # noqa: S105 # of these tests alone


def request(line: str, *headers: str, host: str = "localhost", body: bytes = b"") -> bytes:
    head = [line, f"Host: {host}", "Connection: close", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def alive(served) -> None:
    assert served.get("/healthz").status_code == 200
    assert served.get("/api/v1/search?q=red&k=1").status_code == 200


SECRET = "this must never be sent"  # noqa: S105 # likewise
TRAVERSALS = [
    "../secret", "../../secret", "..%2fsecret", "%2e%2e/secret", "%2e%2e%2fsecret",
    "..%252fsecret", "..%5csecret", "..\\secret", "....//secret", "..;/secret",
    "%c0%ae%c0%ae/secret", "%u002e%u002e/secret", "..%00/secret", "secret%00.png",
    "{secret}", "//{secret}", "file://{secret}", "/proc/self/environ", "..%c1%9csecret",
    "folder/pictures/../../secret", "folder/pictures/%2e%2e/%2e%2e/secret", ".", "..", "%00",
    "{store}/CURRENT", "{pictures}/00000.png", "~/secret", "$HOME/secret",
    "folder/pictures/00000.png/../../../secret", "folder/pictures/00000.png%00",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leaves_the_served_version(served, store: Path, tmp_path, path: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    names = {"secret": str(secret), "store": str(store), "pictures": str(tmp_path / "pictures")}
    target = path.format(**names)
    for end in ("", "/file", "/thumbnail"):
        line = f"GET /api/v1/images/{target}{end} HTTP/1.1"
        answer = served.raw(request(line))
        assert status(answer) in (400, 404), answer[:200]
        assert SECRET.encode() not in answer
    answer = served.raw(request(f"GET /static/{target} HTTP/1.1"))
    assert status(answer) in (400, 404)
    answer = served.get("/api/v1/search", params={"image": target})
    assert answer.status_code in (400, 404)
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "localhost, evil",
        "evil.example:8765", "user@localhost", "localhost/evil", "[::1", "localhost\\evil", "a b",
        "xn--80ak6aa92e.com", "%6c%6f%63%61%6c%68%6f%73%74",
    ],
)  # fmt: skip
def test_other_names_are_refused(served, host: str) -> None:
    assert status(served.raw(request("GET / HTTP/1.1", host=host))) in (400, 421)


def test_a_request_without_a_name_or_with_two_is_refused(served) -> None:
    assert status(served.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")) in (400, 421)
    two = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert status(served.raw(two)) in (400, 421)


def test_names_that_were_allowed_and_addresses_are_answered(start) -> None:
    served = start(allow_hosts=("nas.local",))
    for host in ("nas.local", "NAS.local:8765", "localhost", "127.0.0.1:80", "[::1]:8765"):
        assert status(served.raw(request("GET /healthz HTTP/1.1", host=host))) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::1"},
        {"Origin": "//"},
    ],
)
def test_no_page_of_another_site_can_send_an_image(served, headers) -> None:
    with served.client() as client:
        for path in ("/picture", "/api/v1/search", "/login"):
            answer = client.post(path, files={"picture": png(1)}, headers=headers)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_embed_the_service(served, site: str) -> None:
    for path in ("/api/v1/search?q=red", "/api/v1/status", "/duplicates", "/"):
        drawn = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        assert served.get(path, headers=drawn).status_code == 403
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert served.get("/", headers=link).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/search?q=red&offset=" + "0" * 5_000,
        "/api/v1/search?q=red&k=%C2%B2",
        "/api/v1/search?q=%FF",
        "/api/v1/search?q=red&image=%ED%A0%80",
        "/api/v1/search?" + "&".join(["q=red"] * 300),
        "/api/v1/images/%FF",
        "/api/v1/images/%ED%A0%80/file",
        "/quarantine?offset=%C2%B2",
        "/quarantine?offset=" + "9" * 5_000,
        "/?width=%C2%B2&q=red",
        "/?is.nothing=1&q=red",
        "/?is.%22=1&q=red",
        "/?is.=1&q=red",
        "/?folder=%27)+or+(%271%27=%271&q=red",
        "/?q=red&sort=nothing",
        "/?q=red&from=2023-13-01",
        "/?q=red&where=width+%3E+1+--",
        "/?q=red&where=1=1)+or+(1=1",
        "/picture/%ED%A0%80",
        "/picture/%FF",
        "/?q=%ED%A0%80",
        "/login/../about",
        "/%2e%2e/api/v1/status",
        "/api%2fv1%2fstatus",
    ],
)  # fmt: skip
def test_odd_urls_are_answered_and_never_break_the_service(served, path: str) -> None:
    answer = served.raw(request(f"GET {path} HTTP/1.1"))
    assert status(answer) in (200, 400, 404), answer[:300]
    alive(served)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "X"])
def test_other_methods_are_refused(served, method: str) -> None:
    target = "localhost:80" if method == "CONNECT" else "/api/v1/search"
    assert status(served.raw(request(f"{method} {target} HTTP/1.1"))) in (400, 404, 405)


def png_bomb(side: int) -> bytes:
    """Return a PNG whose header states ``side`` by ``side`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000_000)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [20_000, 65_535, 2**31 - 1])
def test_a_decompression_bomb_fails_only_its_request(served, side: int) -> None:
    with served.client() as client:
        answer = client.post("/api/v1/search", files={"picture": png_bomb(side)})
    assert answer.status_code == 415
    alive(served)


def test_compressed_text_in_an_image_is_not_decompressed(served) -> None:
    data = png(3)
    text = b"Comment\0\0" + zlib.compress(b"A" * 200_000_000)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    with served.client() as client:
        answer = client.post("/api/v1/search", files={"picture": data[:33] + chunk + data[33:]})
    assert answer.status_code in (200, 415)
    alive(served)


FORM = "Content-Type: multipart/form-data; boundary=b"


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


PART = b'Content-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Type: multipart/form-data"], b"x"),
        ([FORM], b""),
        ([FORM], b"no form"),
        ([FORM], form(end=b"")),
        ([FORM], form(PART + b"x", PART + b"y")),
        ([FORM], form(*[b'Content-Disposition: form-data; name="f"\r\n\r\nv'] * 50)),
        ([FORM], form(b'Content-Disposition: form-data; name="picture"\r\n\r\n' + b"x" * 100_000)),
        ([FORM], form(b"Content-Disposition: form-data\r\n\r\nx")),
        ([FORM], form(b"X-A: " + b"a" * 50_000 + b"\r\n\r\nx")),
        ([FORM], form(PART.replace(b"a.png", b"../../etc/passwd") + b"x")),
        ([FORM], form(PART.replace(b"a.png", b"\0\n.png") + b"x")),
        (["Content-Type: multipart/form-data; boundary=" + "b" * 10_000], b"x"),
        (["Content-Type: application/x-www-form-urlencoded"], b"picture=x"),
        (["Content-Type: application/json"], b"{}"),
        ([], b""),
    ],
)
def test_a_strange_form_is_refused(served, headers, body: bytes) -> None:
    length = f"Content-Length: {len(body)}"
    answer = served.raw(request("POST /api/v1/search HTTP/1.1", *headers, length, body=body))
    assert status(answer) in (400, 413, 415), answer[:300]
    alive(served)


def test_too_much_is_refused_before_it_is_read(served) -> None:
    length = f"Content-Length: {MAX_UPLOAD_BYTES + 1}"
    answer = served.raw(request("POST /api/v1/search HTTP/1.1", FORM, length))
    assert status(answer) == 413
    for length in ("-1", "+5", "1e3", "9" * 30, "5, 6", "0x10"):
        line = request("POST /api/v1/search HTTP/1.1", FORM, f"Content-Length: {length}", body=b"x")
        assert status(served.raw(line)) in (400, 413)


def test_too_much_in_pieces_is_refused_too(served) -> None:
    def endless() -> Iterator[bytes]:
        yield b"--b\r\n" + PART
        for _ in range(MAX_UPLOAD_BYTES // 65_536 + 2):
            yield b"x" * 65_536

    head = {"Content-Type": "multipart/form-data; boundary=b"}
    with served.client() as client:
        answer = client.post("/api/v1/search", content=endless(), headers=head)
    assert answer.status_code == 413
    alive(served)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?q=" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"\0" * 1_000,
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"0\r\n\r\nGET /about HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFF\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ],
)
def test_an_invalid_request_is_not_answered_with_a_page(served, data: bytes) -> None:
    answer = served.raw(data, timeout=2)
    assert status(answer) not in (200, 500), answer[:200]
    assert not answer or b"nosniff" in answer
    alive(served)


@pytest.mark.parametrize(
    "where",
    [
        "1=1; drop table images",
        "width > (select count(*) from read_csv('/etc/passwd'))",
        "exists(select * from glob('/*'))",
        "read_text('/etc/passwd') is not null",
        "getenv('HOME') like '/%'",
        "repeat('a', 1000000000) = ''",
        "list_contains(range(100000000), 3)",
        "width in (" + ",".join(map(str, range(3_000))) + ")",
        "(" * 3_000 + "true" + ")" * 3_000,
        "width = 'x' -- ",
        "width > 1 /* ",
        "regexp_matches(uri, '(a+)+$') and \x00",
        "pragma_version() = ''",
        "current_setting('temp_directory') = ''",
    ],
)
def test_a_condition_reads_columns_and_nothing_else(served, where: str) -> None:
    answer = served.get("/api/v1/search", params={"q": "red", "where": where[:7_000]})
    assert answer.status_code in (200, 400, 414)
    assert "root:" not in answer.text
    alive(served)


def test_a_slow_head_is_cut_off(served, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_S", 1.0)
    links = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(40)]
    try:
        for link in links:
            link.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        started = time.monotonic()
        alive(served)
        for link in links:
            link.settimeout(10)
            assert link.recv(1) == b""
        assert time.monotonic() - started < 9
    finally:
        for link in links:
            link.close()


def test_a_slow_body_is_cut_off(served, monkeypatch) -> None:
    monkeypatch.setattr("mmindex.serve.guard.BODY_TIMEOUT_S", 1.0)
    head = request("POST /api/v1/search HTTP/1.1", FORM, "Content-Length: 1000", body=b"--b\r\n")
    assert status(served.raw(head, timeout=8)) == 408
    assert settings.BODY_TIMEOUT_S == 60.0


def test_without_the_token_nothing_is_revealed(start, images) -> None:
    served = start(token=TOKEN)
    name = next(iter(images))
    paths = (
        "/", "/about", "/metrics", "/quarantine", "/duplicates", f"/picture/{name}",
        "/api/v1/search?q=red", "/api/v1/status", "/api/v1/openapi.json",
        f"/api/v1/images/{name}", f"/api/v1/images/{name}/file", f"/api/v1/images/{name}/thumbnail",
        "/nope",
    )  # fmt: skip
    for path in paths:
        assert served.get(path).status_code == 401
        for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
            cookie = {"Cookie": f"mmindex={wrong}"}
            assert served.get(path, headers=cookie).status_code == 401
    assert served.get("/healthz").status_code == 200
    page = served.get("/", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")


def test_the_token_gives_access_to_programs_and_browsers(start) -> None:
    served = start(token=TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert served.get("/api/v1/search?q=red", headers=bearer).status_code == 200
    with served.client() as browser:
        assert browser.post("/login", data={"token": "wrong"}).status_code == 401
        entered = browser.post("/login", data={"token": TOKEN})
        cookie = entered.headers["set-cookie"]
        assert entered.status_code == 303
        assert TOKEN not in cookie
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert browser.get("/").status_code == 200


def test_guessing_is_slowed_down_only_for_the_guesser(start) -> None:
    served = start(token=TOKEN)
    answers = [
        served.get("/", headers={"Authorization": f"Bearer guess{n}"}).status_code
        for n in range(14)
    ]
    assert answers[:10] == [401] * 10
    assert answers[10:] == [429] * 4
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert served.get("/", headers=right).status_code == 429
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
    with served.client(transport=elsewhere) as other:
        assert other.get("/", headers=right).status_code == 200


def test_cookies_do_not_bypass_the_limit(start) -> None:
    served = start(token=TOKEN)
    same = [served.get("/", headers={"Cookie": "mmindex=old"}).status_code for _ in range(14)]
    assert same == [401] * 14
    others = [served.get("/", headers={"Cookie": f"mmindex={n}"}).status_code for n in range(14)]
    assert others[-1] == 429


def test_too_many_connections_are_asked_to_retry(served, monkeypatch) -> None:
    monkeypatch.setattr("mmindex.serve.guard.MOST_CONNECTIONS", 4)
    links = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(6)]
    try:
        answer = served.get("/healthz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
    finally:
        for link in links:
            link.close()
    monkeypatch.undo()
    alive(served)


def test_every_response_has_the_security_headers(served) -> None:
    for path in ("/", "/nope", "/api/v1/search", "/healthz", "/static/app.js"):
        headers = served.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert "content-security-policy" in headers
        assert "server" not in headers


def test_many_requests_do_not_stop_the_service(served) -> None:
    payload = io.BytesIO(b"x" * 200_000).getvalue()
    for _ in range(30):
        served.raw(
            request("POST /picture HTTP/1.1", FORM, "Content-Length: 900000", body=payload), 0.05
        )
    alive(served)
