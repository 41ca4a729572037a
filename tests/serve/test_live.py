"""New versions are taken up while requests run; SIGTERM ends what is under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from mmindex.core.errors import CannotCreateError, NoInputError, UsageError
from mmindex.serve.app import listen
from mmindex.serve.service import Service
from mmindex.serve.settings import ServeSettings, read_token
from support.models import FakeEncoder
from support.pictures import png, write_pictures
from support.serving import Running, pictures_in, store_of
from support.stores import picture_store


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Pictures that a test may change."""
    return pictures_in(tmp_path)


@pytest.fixture
def store(tmp_path: Path, pictures: dict[str, Path], encoder: FakeEncoder) -> Path:
    """A store that a test may change."""
    return store_of(tmp_path / "store", pictures, encoder)


@pytest.fixture
def served(start: Callable[..., Running]) -> Running:
    return start()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what other threads do, however busy the machine is; the test judges the rest."""
    ends = time.monotonic() + 60
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)


def test_a_new_version_is_served_and_no_answer_mixes_two(served, store, tmp_path) -> None:
    """Ids of the second version never stand in an answer of the first."""
    second = {f"folder/later/{path.name}": path for path in write_pictures(tmp_path / "later", 7)}
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
    picture_store(store, second, [], FakeEncoder())
    served.service.live.poll()
    wait_for(lambda: {version for version, _ in seen} == {1, 2})
    done.set()
    for asker in askers:
        asker.join(10)
    assert problems == []
    assert {version for version, _ in seen} == {1, 2}
    assert all(ids == ({"pictures"} if version == 1 else {"later"}) for version, ids in seen)
    assert served.get("/healthz").text == "serving version 2\n"


def test_thumbnails_of_pictures_that_are_gone_leave_the_cache(served, store, tmp_path, pictures):
    for name in pictures:
        assert served.get(f"/api/v1/images/{name}/thumbnail").status_code == 200
    assert len(served.service.thumbs.keys()) == 12
    second = {f"folder/later/{p.name}": p for p in write_pictures(tmp_path / "later", 3)}
    picture_store(store, second, [], FakeEncoder())
    served.service.live.poll()
    assert len(served.service.thumbs.keys()) == 3
    gone = next(iter(pictures))
    assert served.get(f"/api/v1/images/{gone}/thumbnail").status_code == 404


def test_damage_fails_the_request_and_the_health_check_and_nothing_else(served, store) -> None:
    [table] = [
        store / "objects" / ref.sha256[:2] / ref.sha256
        for ref in served.service.live.current.manifest.objects
        if ref.name == "images"
    ]
    data = table.read_bytes()
    table.write_bytes(data[: len(data) // 2])
    answer = served.get("/api/v1/search?q=red")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "the service cannot answer this; its log says why"
    assert served.get("/healthz").status_code == 503
    assert served.get("/static/app.js").status_code == 200


def test_a_picture_that_became_a_link_out_of_the_corpus_sends_no_secret(
    served, pictures, tmp_path
) -> None:
    name, path = next(iter(pictures.items()))
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    path.unlink()
    path.symlink_to(secret)
    answer = served.get(f"/api/v1/images/{name}/file")
    assert answer.status_code == 404
    thumbnail = served.get(f"/api/v1/images/{name}/thumbnail")
    assert thumbnail.status_code == 404


def test_what_cannot_be_served_is_refused_at_the_start(tmp_path, store) -> None:
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


@pytest.mark.slow
def test_the_command_serves_and_ends_with_sigterm(tmp_path) -> None:
    """The real command over drawn scenes."""
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
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
