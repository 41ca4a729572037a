"""Weights from the hub: endpoint and cache are used, and problems are reported in one line.

Each case runs in its own process, because huggingface_hub reads its environment on import.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub import Hub, serve_hub
from support.models import TinyModel

FETCH = """
import json, sys
from mmindex.models import hub
from mmindex.core.errors import MmindexError
try:
    path = hub.fetch(sys.argv[1], sys.argv[2:])
    print(json.dumps({"path": str(path), "content": path.read_bytes().decode()}))
except MmindexError as error:
    names = {"exit": error.exit_code, "message": error.message, "hint": error.hint}
    print(json.dumps(names))
"""
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        hub.files["org/clip/" + WEIGHTS] = b"weights of a model"
        yield hub


def python(code: str, *args: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    clean["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**clean, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def fetch(cache: Path, url: str, *names: str, **environment: str) -> dict[str, str | int]:
    settings = {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(cache), **environment}
    answer: dict[str, str | int] = json.loads(
        python(FETCH, "org/clip", *(names or (WEIGHTS,)), **settings)
    )
    return answer


def test_weights_come_from_the_endpoint_into_the_cache_and_then_without_network(
    hub: Hub, tmp_path: Path
) -> None:
    first = fetch(tmp_path, hub.url)
    assert first["content"] == "weights of a model"
    assert Path(str(first["path"])).is_relative_to(tmp_path)
    asked = len(hub.asked)
    assert fetch(tmp_path, hub.url) == first
    assert len(hub.asked) == asked
    assert fetch(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == first


def test_the_first_existing_name_is_used(hub: Hub, tmp_path: Path) -> None:
    answer = fetch(tmp_path, hub.url, "missing.safetensors", WEIGHTS)
    assert str(answer["path"]).endswith(WEIGHTS)


def test_an_unreachable_hub_is_69_with_both_remedies(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = fetch(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert answer["exit"] == 69
    assert "`pretrained=PATH`" in str(answer["hint"])
    assert "`model=photos`" in str(answer["hint"])
    assert f"/resolve/main/{WEIGHTS}" in str(answer["hint"])
    assert "\n" not in str(answer["message"])


def test_offline_mode_is_69_when_the_cache_is_empty(hub: Hub, tmp_path: Path) -> None:
    answer = fetch(tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert answer["exit"] == 69
    assert "HF_HUB_OFFLINE" in str(answer["message"])
    assert hub.asked == []


@pytest.mark.parametrize(
    ("mode", "code"), [("503", 69), ("down-after-head", 69), ("truncated", 69), ("404", 66)]
)
def test_a_failing_hub_is_reported_and_leaves_no_partial_file(
    hub: Hub, tmp_path: Path, mode: str, code: int
) -> None:
    hub.mode = mode
    answer = fetch(tmp_path, hub.url)
    assert answer["exit"] == code
    assert "org/clip" in str(answer["message"])
    assert "\n" not in str(answer["message"])
    hub.mode = "ok"
    assert fetch(tmp_path, hub.url)["content"] == "weights of a model"


def test_a_repository_without_safe_weights_says_so(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"org/clip/open_clip_pytorch_model.bin": b"pickle"}
    answer = fetch(tmp_path, hub.url)
    assert answer["exit"] == 66
    assert "allow_pickle_weights" in str(answer["hint"])


def test_other_bytes_than_the_hub_announced_are_never_used(hub: Hub, tmp_path: Path) -> None:
    hub.mode = "swapped"
    answer = fetch(tmp_path, hub.url)
    assert answer["exit"] == 65
    assert "sha256" in str(answer["message"])


ENCODE = """
import sys
from mmindex.models.devices import place
from mmindex.models.resolve import resolve_model
from mmindex.models.openclip import load_encoder
encoder = load_encoder(resolve_model(sys.argv[1], None), place("cpu"))
print(encoder.info.fingerprint, encoder.encode_texts(["a red dog"])[0, :3].tolist())
"""


def test_a_model_of_the_hub_is_the_same_as_its_folder(
    hub: Hub, tiny_model: TinyModel, tmp_path: Path
) -> None:
    for path in tiny_model.folder.iterdir():
        hub.files[f"org/tiny/{path.name}"] = path.read_bytes()
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path)}
    from_hub = python(ENCODE, "hf-hub:org/tiny", **settings)
    assert from_hub == python(ENCODE, tiny_model.name, **settings)


TAG = """
from mmindex.models.files import locate
from mmindex.models.resolve import resolve_model
print(locate(resolve_model(None, None)).weights)
"""


def test_the_default_model_asks_the_endpoint_for_its_tags_repository(
    hub: Hub, tmp_path: Path
) -> None:
    repository = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    hub.files[f"{repository}/{WEIGHTS}"] = b"big"
    path = python(TAG, HF_ENDPOINT=hub.url, HF_HUB_CACHE=str(tmp_path))
    assert Path(path).read_bytes() == b"big"
