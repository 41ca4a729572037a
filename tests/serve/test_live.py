"""New versions are served while requests run; SIGTERM ends active requests."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from mmindex.core.errors import CannotCreateError, NoInputError, UsageError
from mmindex.insight import dedup
from mmindex.search import filters
from mmindex.serve.app import listen
from mmindex.serve.service import Service
from mmindex.serve.settings import ServeSettings, read_token
from mmindex.store.versions import list_versions
from mmindex.upkeep.rollback import rollback
from support.command import mmindex
from support.images import png, write_pngs
from support.models import FakeEncoder
from support.serving import Running, images_in, store_of, wait_for
from support.stores import image_store


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Images that a test may change."""
    return images_in(tmp_path)


@pytest.fixture
def store(tmp_path: Path, images: dict[str, Path], encoder: FakeEncoder) -> Path:
    """A store that a test may change."""
    return store_of(tmp_path / "store", images, encoder)


@pytest.fixture
def served(start: Callable[..., Running]) -> Running:
    return start()


def test_a_new_version_is_served_and_no_answer_mixes_two(served, store, tmp_path) -> None:
    """Ids of the second version never occur in an answer of the first."""
    second = {f"folder/later/{path.name}": path for path in write_pngs(tmp_path / "later", 7)}
    done = threading.Event()
    seen: list[tuple[int, set[str]]] = []
    problems: list[str] = []

    def ask() -> None:
        with served.client() as client:
            while not done.is_set():
                answer = client.get("/api/v1/search?q=red&k=50")
                if answer.status_code != 200:
                    problems.append(answer.text)
                    return
                found = answer.json()
                ids = {hit["id"].split("/")[1] for hit in found["hits"]}
                seen.append((found["version"], ids))

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for asker in askers:
        asker.start()
    wait_for(lambda: {version for version, _ in seen} == {1})
    image_store(store, second, [], FakeEncoder())
    served.service.live.poll()
    wait_for(lambda: {version for version, _ in seen} == {1, 2})
    done.set()
    for asker in askers:
        asker.join(10)
    assert problems == []
    assert {version for version, _ in seen} == {1, 2}
    assert all(ids == ({"pictures"} if version == 1 else {"later"}) for version, ids in seen)
    assert served.get("/healthz").text == "serving version 2\n"


def test_rollbacks_and_publishes_under_load_fail_no_request(served, store, images, tmp_path):
    """Versions 1 and 2 (another corpus), then alternately; the service notices each change."""
    second = {f"folder/later/{path.name}": path for path in write_pngs(tmp_path / "later", 7)}
    names = [*images, *second]
    done = threading.Event()
    seen: list[tuple[int, set[str]]] = []
    problems: list[str] = []

    def ask(number: int) -> None:
        with served.client() as client:
            while not done.is_set():
                where = f"&where=width > {number}" if number % 2 else ""
                answer = client.get(f"/api/v1/search?q=red {number}&k=50{where}")
                found = answer.json()
                if answer.status_code == 200:
                    seen.append((found["version"], {h["id"].split("/")[1] for h in found["hits"]}))
                else:
                    problems.append(answer.text)
                name = names[len(seen) % len(names)]
                for path in (f"/api/v1/images/{name}/thumbnail", f"/picture/{name}", "/?q=red"):
                    status = client.get(path).status_code
                    if status not in (200, 404) or (status == 404 and path == "/?q=red"):
                        problems.append(f"{path}: {status}")

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for asker in askers:
        asker.start()
    wait_for(lambda: bool(seen))
    image_store(store, second, [], FakeEncoder())
    for number in (1, 2, 1):
        newest = max(list_versions(served.service.live.current.snapshot.layout))
        wait_for(lambda newest=newest: seen[-1][0] == newest)
        rollback(store, number, "test")
    wait_for(lambda: seen[-1][0] == 5)
    done.set()
    for asker in askers:
        asker.join(60)
    assert problems == []
    assert {version for version, _ in seen} >= {1, 2, 5}
    first = {1, 3, 5}
    assert all(ids == ({"pictures"} if n in first else {"later"}) for n, ids in seen)


def test_a_damaged_version_is_not_served(start, store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mmindex.serve.live._POLL_S", 3_600)  # the test decides when
    served = start()
    second = {f"folder/later/{path.name}": path for path in write_pngs(tmp_path / "later", 7)}
    live = served.service.live
    made = image_store(store, second, [], FakeEncoder())
    [vectors] = [ref for ref in made.manifest.objects if ref.name == "ids/image"]
    path = store / "objects" / vectors.sha256[:2] / vectors.sha256
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    live.poll()
    assert served.get("/healthz").status_code == 503
    answer = served.get("/api/v1/search?q=red&k=50").json()
    assert (answer["version"], len(answer["hits"])) == (1, 12)
    assert vectors.sha256[:8] in (live.problem or "")
    path.write_bytes(whole)
    third = image_store(store, second, [], FakeEncoder())
    live.poll()
    assert live.current.number == third.manifest.version
    assert served.get("/healthz").status_code == 200


def test_a_slow_condition_does_not_delay_other_requests(served, monkeypatch) -> None:
    begun, end = threading.Event(), threading.Event()
    select = filters.select_images

    def slow(*given: object) -> object:
        begun.set()
        end.wait(60)
        return select(*given)

    monkeypatch.setattr(filters, "select_images", slow)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(served.get, f"/?q=red&where=width>{n}") for n in range(4)]
        assert begun.wait(60)
        for path in ("/api/v1/search?q=blue", "/?q=green", "/about", "/api/v1/status"):
            assert served.get(path).status_code == 200
        end.set()
        assert [one.result().status_code for one in waiting] == [200] * 4


def test_a_long_computation_shows_a_page_that_reloads(served, monkeypatch) -> None:
    end, near_duplicates = threading.Event(), dedup.near_duplicates

    def slow(*given: object) -> object:
        end.wait(60)
        return near_duplicates(*given)

    monkeypatch.setattr(dedup, "near_duplicates", slow)
    waiting = served.get("/duplicates")
    assert waiting.headers["refresh"] == "2"
    assert "reloads automatically" in waiting.text
    assert served.get("/?q=red&where=width>1").status_code == 200
    end.set()
    wait_for(lambda: "refresh" not in served.get("/duplicates").headers)
    assert "duplicate" in served.get("/duplicates").text


def test_a_response_that_is_not_read_is_dropped(served, images, store, monkeypatch) -> None:
    monkeypatch.setattr("mmindex.serve.protocol.SEND_TIMEOUT_S", 1.0)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (2_500, 2_500, 3), np.uint8))  # 19 MB
    path = next(iter(images.values())).with_name("noise.png")
    noise.save(path, compress_level=0)
    image_store(store, {"folder/noise": path}, [], FakeEncoder())
    served.service.live.poll()
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", served.port))
        link.sendall(b"GET /api/v1/images/folder%2Fnoise/file HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: not served.server.server_state.connections)
    assert served.get("/healthz").status_code == 200


def test_ids_that_look_like_addresses_and_names_that_are_no_text(served, store, tmp_path) -> None:
    [one, two, three] = write_pngs(tmp_path / "odd", 3)
    names = {"folder/x/thumbnail": one, "folder/../y": two, "folder/caf\udce9.png": three}
    image_store(store, names, [], FakeEncoder())
    served.service.live.poll()
    for name in names:
        whole = quote(name.encode("utf-8", "surrogatepass"), safe="")
        known = served.raw(f"GET /api/v1/images/{whole} HTTP/1.1\r\nHost: localhost\r\n"
                           "Connection: close\r\n\r\n".encode())  # fmt: skip
        assert json.loads(known.partition(b"\r\n\r\n")[2])["image_id"] == name
        for path in (f"/api/v1/images/{whole}/thumbnail", f"/picture/{whole}"):
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            assert served.raw(head.encode()).startswith(b"HTTP/1.1 200")
    page = served.get("/?q=red")
    assert page.status_code == 200
    for link in re.findall(r'href="(/picture/[^"]*)"', page.text):
        assert served.get(html.unescape(link)).status_code == 200


def test_thumbnails_of_removed_images_are_deleted(served, store, tmp_path, images):
    for name in images:
        assert served.get(f"/api/v1/images/{name}/thumbnail").status_code == 200
    assert len(served.service.thumbs.keys()) == 12
    second = {f"folder/later/{p.name}": p for p in write_pngs(tmp_path / "later", 3)}
    image_store(store, second, [], FakeEncoder())
    served.service.live.poll()
    assert len(served.service.thumbs.keys()) == 3
    gone = next(iter(images))
    assert served.get(f"/api/v1/images/{gone}/thumbnail").status_code == 404


def test_damage_fails_only_the_request_and_the_health_check(served, store) -> None:
    [table] = [
        store / "objects" / ref.sha256[:2] / ref.sha256
        for ref in served.service.live.current.manifest.objects
        if ref.name == "images"
    ]
    data = table.read_bytes()
    table.write_bytes(data[: len(data) // 2])
    # Ids and paths are in memory, other columns are not.
    assert served.get("/api/v1/search?q=red").status_code == 200
    answer = served.get("/api/v1/search?q=red&columns=width")
    assert answer.status_code == 500
    assert (
        answer.json()["detail"]
        == "the service cannot process this request; its log contains the reason"
    )
    assert served.get("/healthz").status_code == 503
    assert served.get("/static/app.js").status_code == 200


def test_an_image_replaced_by_a_link_reveals_no_secret(served, images, tmp_path) -> None:
    name, path = next(iter(images.items()))
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    path.unlink()
    path.symlink_to(secret)
    answer = served.get(f"/api/v1/images/{name}/file")
    assert answer.status_code == 404
    thumbnail = served.get(f"/api/v1/images/{name}/thumbnail")
    assert thumbnail.status_code == 404


def test_unservable_stores_are_refused_at_the_start(tmp_path, store) -> None:
    with pytest.raises(NoInputError):
        Service.open(ServeSettings(store=tmp_path / "nothing"))
    settings = ServeSettings(store=store, port=0)
    with listen(settings) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotCreateError, match=f"port {port}"):
            listen(ServeSettings(store=store, port=port))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "nas.example"])  # noqa: S104
def test_other_addresses_than_loopback_need_a_token(store, host: str) -> None:
    with pytest.raises(UsageError, match="needs a token"):
        ServeSettings(store=store, host=host).check()
    ServeSettings(store=store, host=host, token="x" * 16).check()


def test_a_token_that_can_be_guessed_is_refused(store, tmp_path) -> None:
    with pytest.raises(UsageError, match="at least 16"):
        ServeSettings(store=store, token="secret").check()  # noqa: S106
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="ASCII"):
        read_token(tmp_path / "token")
    (tmp_path / "token").write_text("\n")
    with pytest.raises(UsageError, match="no token"):
        read_token(tmp_path / "token")
    with pytest.raises(NoInputError):
        read_token(tmp_path / "missing")


def test_the_exit_code_shows_why_the_command_cannot_serve(tmp_path, store) -> None:
    missing = mmindex("serve", "--store", tmp_path / "nothing", code=66)
    assert "nothing" in missing.stderr
    with listen(ServeSettings(store=store, port=0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in mmindex("serve", "--store", store, "--port", port, code=73).stderr
    assert "--token" in mmindex("serve", "--store", store, "--host", "0.0.0.0", code=2).stderr  # noqa: S104
    (tmp_path / "empty").mkdir()
    mmindex("serve", "--store", tmp_path / "empty", "--port", "0", code=66)
    no_key = ("--certfile", tmp_path / "no.pem", "--keyfile", tmp_path / "no.key")
    assert "no.pem" in mmindex("serve", "--store", store, *no_key, code=66).stderr


STUCK = """
import sys, time
from pathlib import Path
from mmindex.search import vectorize
from mmindex.serve.app import listen, run
from mmindex.serve.service import Service
from mmindex.serve.settings import ServeSettings
from support.models import FakeEncoder

vectorize._load = lambda *_: FakeEncoder()
Service.row = lambda *_: time.sleep(600)
settings = ServeSettings(Path(sys.argv[1]), port=0, cache=Path(sys.argv[2]))
with listen(settings) as server:
    port = server.getsockname()[1]
    run(Service.open(settings), server, lambda: print(port, flush=True))
"""


def test_endless_work_does_not_prevent_the_exit(store, images, tmp_path) -> None:
    name = next(iter(images))
    where = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, store, tmp_path / "cache"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(where)},
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(f"GET /api/v1/images/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            assert process.wait(60) == 0
            assert time.monotonic() - begun < 10.5


@pytest.mark.slow
def test_the_command_serves_and_ends_with_sigterm(tmp_path) -> None:
    """The real command with drawn scenes."""
    store = tmp_path / "store"
    run = [sys.executable, "-m", "mmindex_cli"]
    subprocess.run([*run, "build", "--store", store, "--source", "scenes:30"], check=True)
    with subprocess.Popen(
        [*run, "serve", "--store", store, "--port", "0", "--cache", tmp_path / "cache"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving version 1 at http://127.0.0.1:")
        found = httpx.get(f"{line.split()[-1]}api/v1/search?q=a+red+boat&k=3", timeout=60).json()
        assert len(found["hits"]) == 3
        address = f"{line.split()[-1]}api/v1/search"
        with ThreadPoolExecutor(8) as pool:
            under_way = [
                pool.submit(httpx.get, address, params={"q": f"two cats {n}"}, timeout=60)
                for n in range(8)
            ]
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            # Accepted requests are answered completely; later ones are refused.
            for one in under_way:
                if (failed := one.exception()) is None:
                    assert one.result().is_success
                else:
                    # The kernel resets connections that were not accepted yet.
                    unanswered = "without sending a response" in str(failed)
                    assert unanswered or isinstance(failed, httpx.ConnectError | httpx.ReadError)
        assert process.wait(10) == 0
