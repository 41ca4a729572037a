"""Stores of older releases can be read and extended: see ``fixtures/stores-0.1.0``."""

from __future__ import annotations

import json
import shutil
import signal
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import pytest
from typer.testing import CliRunner

from mmindex_cli.app import app

FIXTURES = Path(__file__).parent / "fixtures"
PHOTOS = FIXTURES / "photos"
STORES = sorted(path.parent for path in FIXTURES.glob("stores-*/*/store.tar.xz"))


def expected_of(path: Path) -> dict[str, Any]:
    """The content and the answers that the code which built a store found in it."""
    expected: dict[str, Any] = json.loads((path / "expected.json").read_text())
    return expected


def store_name(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


@dataclass(frozen=True, slots=True)
class Old:
    """A home folder with an unpacked store and its photos, and what its own code found in it."""

    home: Path
    expected: dict[str, Any]

    def run(self, *args: str, code: int = 0) -> list[dict[str, Any]]:
        """Run ``mmindex ARGS...`` at home in this process, and return its JSON output."""
        environment = {
            "HOME": str(self.home),
            "MMINDEX_STORE": str(self.home / "store"),
            "HF_HUB_OFFLINE": "1",
        }
        form = () if args[0] == "rollback" else ("--format", "json")
        before = signal.getsignal(signal.SIGTERM)
        try:
            done = CliRunner().invoke(app, [*args, *form], env=environment)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert done.exit_code == code, done.output
        return [json.loads(line) for line in done.stdout.splitlines()] if form else []

    def show(self, *names: str) -> None:
        """Put photos into the folder from which the store was built."""
        (self.home / "photos").mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(PHOTOS / name, self.home / "photos" / name)

    def build(self) -> dict[str, Any]:
        """Build without sources or settings: the store remembers them."""
        (report,) = self.run("build", "--device", "cpu", "--workers", "0")
        return report

    def status(self) -> dict[str, Any]:
        (status,) = self.run("status")
        return status

    def hits(self, *args: str, k: int = 3) -> list[tuple[str, float]]:
        (answer,) = self.run("query", *args, "--device", "cpu", "-k", str(k))
        return [(hit["id"], hit["score"]) for hit in answer["hits"]]

    def copy(self, home: Path) -> Old:
        shutil.copytree(self.home, home)
        return Old(home, self.expected)


def unpack(path: Path, home: Path) -> Old:
    """An old store with the photos of its last build."""
    with tarfile.open(path / "store.tar.xz") as tar:
        tar.extractall(home, filter="data")
    found = Old(home, expected_of(path))
    found.show("captions.jsonl", *found.expected["photos"])
    return found


@pytest.fixture(scope="module", params=STORES, ids=store_name)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Old:
    """An old store in its original state; do not change it."""
    return unpack(request.param, tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def grown(old: Old, tmp_path_factory: pytest.TempPathFactory) -> tuple[Old, dict[str, Any]]:
    """A copy after a build of this code that adds photos, and the build's report."""
    found = old.copy(tmp_path_factory.mktemp("grown") / "home")
    found.show(*old.expected["added"])
    return found, found.build()


def image_id(photo: str) -> str:
    return f"folder/photos/{photo}"


def assert_same_answers(old: Old) -> None:
    for question in old.expected["questions"]:
        hits = old.hits(*question["args"])
        assert [name for name, _ in hits] == [name for name, _ in question["hits"]], question
        scores = [score for _, score in question["hits"]]
        assert [score for _, score in hits] == pytest.approx(scores, abs=1e-3), question


def assert_sound(old: Old) -> None:
    (report,) = old.run("check", "--full")
    assert report["problems"] == []


def assert_found_by_their_images(old: Old, *ids: str) -> None:
    for name in ids:
        hits = old.hits("--image", f"~/photos/{Path(name).name}", "--to", "image", k=1)
        assert hits == [(name, pytest.approx(1, abs=1e-3))]


def assert_never_found(old: Old, *ids: str) -> None:
    everything = {name for name, _ in old.hits("a house", k=1000)}
    captions = {name.partition("#")[0] for name, _ in old.hits("a house", "--to", "text", k=1000)}
    assert len(everything) == old.status()["counts"]["indexed"]
    assert not (everything | captions) & set(ids)


def test_there_is_a_store_of_every_kind():
    kinds = {"exact", "ivfpq", "sq8", "night", "quarantine", "forgotten"}
    assert {path.name for path in STORES if path.parent.name == "stores-0.1.0"} == kinds


def test_status_and_versions_show_the_content_of_the_store(old):
    expected, status = old.expected, old.status()
    for name in ("version", "mmindex"):
        assert status[name] == expected[name]
    assert status["counts"].items() >= expected["counts"].items()  # later versions may add some
    for side, info in expected["indexes"].items():
        assert {name: status["indexes"][side][name] for name in info} == info
    for direction, figures in expected["evaluation"].items():
        assert {name: status["evaluation"][direction][name] for name in figures} == figures
    rows = old.run("versions")
    assert [row["version"] for row in rows] == expected["versions"]
    assert [row["version"] for row in rows if row["current"]] == [expected["version"]]


def test_queries_in_both_directions_get_the_answers_of_the_code_that_made_the_store(old):
    assert_same_answers(old)


def test_check_finds_nothing_wrong(old):
    assert_sound(old)


def test_the_quarantine_list_is_kept(old):
    listed = {row["id"]: row["reason"] for row in old.run("quarantine", "list")}
    assert listed == old.expected["quarantine"]


def test_a_build_continues_from_the_store_and_encodes_only_what_is_new(grown):
    store, report = grown
    expected, status = store.expected, store.status()
    count = len(expected["added"])
    assert status["version"] == expected["version"] + 1
    assert status["counts"]["indexed"] == expected["counts"]["indexed"] + count
    assert report["reports"]["encode"]["encoded_images"] == count
    assert report["reports"]["encode"]["encoded_texts"] == 2 * count
    for side, info in expected["indexes"].items():
        # An index from another version of faiss is trained again; otherwise it is extended.
        action = "extended" if info["faiss_version"] == faiss.__version__ else "trained"
        assert report["reports"][f"index {side}"]["action"] == action
        assert status["indexes"][side]["refine"] == info["refine"]
    assert_sound(store)


def test_a_build_gives_every_image_the_columns_of_its_file(grown):
    store, _ = grown
    shown = ("--columns", "folder,filename,modified", "--device", "cpu", "-k", "1000")
    (answer,) = store.run("query", "a house", *shown)
    for hit in answer["hits"]:
        columns = hit["columns"]
        assert columns["filename"] == Path(hit["uri"]).name
        assert columns["folder"] == ""
        assert columns["modified"] is not None


def test_new_and_old_images_are_found_after_a_build(grown):
    store, _ = grown
    expected = store.expected
    out = {*expected["quarantine"], *expected["forgotten"]}
    before = [name for photo in expected["photos"] if (name := image_id(photo)) not in out]
    added = [image_id(photo) for photo in expected["added"]]
    assert_found_by_their_images(store, *added, before[0], before[-1])


def test_a_build_restores_nothing_quarantined_forgotten_or_removed(grown):
    store, _ = grown
    expected = store.expected
    listed = {row["id"]: row["reason"] for row in store.run("quarantine", "list")}
    assert listed == expected["quarantine"]
    assert all((store.home / "photos" / Path(name).name).exists() for name in expected["forgotten"])
    assert_never_found(store, *expected["quarantine"], *expected["forgotten"], *expected["removed"])


def test_a_rollback_restores_the_old_answers(grown, tmp_path):
    store = grown[0].copy(tmp_path / "home")
    expected = store.expected
    store.run("rollback", str(expected["version"]))
    status = store.status()
    assert (status["version"], status["restored_from"]) == (
        expected["version"] + 2,
        expected["version"],
    )
    assert status["counts"].items() >= expected["counts"].items()
    assert_same_answers(store)
    assert_sound(store)


def test_gc_keeps_the_newest_version_intact(grown, tmp_path):
    store = grown[0].copy(tmp_path / "home")
    published = store.expected["version"] + 1
    (report,) = store.run("gc", "--keep", "1", "--keep-days", "0")
    assert report["removed"] == store.expected["versions"]
    assert [row["version"] for row in store.run("versions")] == [published]
    assert_sound(store)
    assert_found_by_their_images(store, *map(image_id, store.expected["added"]))


@pytest.mark.parametrize(
    "path", [path for path in STORES if expected_of(path)["quarantine"]], ids=store_name
)
def test_a_quarantined_image_that_was_fixed_is_recovered(path, tmp_path):
    store = unpack(path, tmp_path)
    shutil.copyfile(PHOTOS / store.expected["added"][0], store.home / "photos" / "cut.jpg")
    store.build()
    left = {row["id"] for row in store.run("quarantine", "list")}
    assert store.expected["quarantine"].keys() - left == {"folder/photos/cut.jpg"}
    assert_found_by_their_images(store, "folder/photos/cut.jpg")
