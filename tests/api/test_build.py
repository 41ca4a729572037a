"""mmindex.build: settings, sources, errors; with a fake model."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mmindex
from mmindex.core.config import Config, setting_names
from support.fakestore import fake_model, write_photos
from support.models import FakeEncoder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", {f"{n}.jpg": n for n in range(6)})


def test_a_build_publishes_and_repeating_it_changes_nothing(tmp_path: Path, photos: Path) -> None:
    with fake_model(FakeEncoder()):
        done = mmindex.build(tmp_path / "s", sources=[f"folder:{photos}"], workers=0)
        again = mmindex.build(tmp_path / "s", workers=0)
    assert (done.published, again.published) == (True, False)
    assert done.manifest.counts.indexed == 6
    assert done.report.outcome == "published"
    with mmindex.open(tmp_path / "s") as index:
        assert len(index) == 6
        assert index.version == 1


def test_a_path_is_a_folder_of_images(tmp_path: Path, photos: Path) -> None:
    with fake_model(FakeEncoder()):
        done = mmindex.build(tmp_path / "s", [photos], workers=0, all_files=True)
    assert [source.spec for source in done.manifest.sources] == [f"folder:{photos}"]
    assert done.manifest.config["source"][0]["all_files"]


def test_settings_are_set_by_name_or_by_section(tmp_path: Path, photos: Path) -> None:
    with fake_model(FakeEncoder()):
        done = mmindex.build(
            tmp_path / "s", [photos], workers=0, recall_target=0.9, max_removed=None,
            index={"kind": "exact", "seed": 3}, encode={"shard_rows": 4},
        )  # fmt: skip
    config = done.manifest.config
    assert (config["index"]["kind"], config["index"]["seed"]) == ("exact", 3)
    assert config["index"]["recall_target"] == 0.9
    assert len(done.manifest.named("embeddings/image/")) == 2


def test_every_setting_has_a_name_or_a_section() -> None:
    names = setting_names()
    assert names["batch_size"] == "encode.batch_size"
    assert names["index"] == "index.kind"
    assert "seed" not in names
    for dotted in names.values():
        section, _, key = dotted.partition(".")
        assert section in Config.model_fields
        assert key


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batchsize": 3}, "unexpected keyword argument 'batchsize'; did you mean 'batch_size'"),
        ({"batch_size": "3"}, r"encode\.batch_size: should be a valid integer, not str '3'"),
        ({"batch_size": True}, r"encode\.batch_size"),
        ({"recall_target": "high"}, r"index\.recall_target"),
        ({"index": 3}, r"index\.kind"),
        ({"index": {"sed": 3}}, "no setting 'index.sed'; did you mean 'seed'"),
        ({"indices": {"seed": 3}}, "no setting 'indices.seed'"),
        ({"sources": "folder:x"}, "sources: expected a sequence, not str"),
        ({"sources": [3]}, "sources: expected a str, not int"),
        ({"model": 3}, "model: expected a str"),
        ({"config": 3}, "config: expected a str or Path"),
    ],
)
def test_a_wrong_type_or_name_is_a_type_error(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        mmindex.build(tmp_path / "s", **given)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"batch_size": 0}, mmindex.UsageError, "batch_size"),
        ({"recall_target": 2.0}, mmindex.UsageError, "recall_target"),
        ({"precision": "fp12"}, mmindex.UsageError, "precision"),
        ({"sources": []}, mmindex.UsageError, "sources is empty"),
        ({"sources": ["floppy:a"]}, mmindex.UsageError, "floppy"),
        ({"sources": ["folder:/no/such/place"]}, mmindex.NoInputError, "/no/such/place"),
        ({"config": "/no/such.toml"}, mmindex.NoInputError, "such.toml"),
    ],
)
def test_a_bad_value_raises_the_commands_error(
    tmp_path: Path, given: dict[str, Any], kind: type[mmindex.MmindexError], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        mmindex.build(tmp_path / "s", **{"workers": 0, "device": "cpu", **given})
    assert " --" not in error.value.hint


def test_events_are_records_of_logging(
    tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmindex")
    with fake_model(FakeEncoder()):
        mmindex.build(tmp_path / "s", [photos], workers=0)
    last = caplog.records[-1]
    assert last.name == "mmindex.run"
    assert last.funcName == "run"
    assert last.getMessage().startswith("version 1 published  images=6 captions=12")


HEAVY = {
    "PIL", "aiohttp", "duckdb", "faiss", "jinja2", "msgspec", "numpy", "open_clip", "pandas",
    "pyarrow", "pydantic", "torch", "tqdm", "typing",
}  # fmt: skip


def loaded(script: str, *arguments: object) -> set[str]:
    """Return the slow modules that a script has imported, except those of Python's own start."""
    count = "\nimport sys; print(*sys.modules)"
    found = []
    for text in ("pass", script):
        done = subprocess.run(
            [sys.executable, "-c", text + count, *map(str, arguments)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(set(done.stdout.split()))
    return (found[1] - found[0]) & HEAVY


def test_import_mmindex_loads_nothing_heavy() -> None:
    assert loaded("import mmindex") == set()


def test_a_search_by_id_loads_no_model(tmp_path: Path, photos: Path) -> None:
    with fake_model(FakeEncoder()):
        mmindex.build(tmp_path / "s", [photos], workers=0)
    script = (
        "import sys, mmindex\n"
        "with mmindex.open(sys.argv[1]) as index:\n"
        "    ids, _ = index.vectors()\n"
        "    assert index.search(image=ids[2], k=1)[0].id == ids[2]\n"
        "sys.stdout.flush()"
    )
    assert not loaded(script, tmp_path / "s") & {"torch", "open_clip", "duckdb", "jinja2"}
