from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmindex.core.errors import DataError
from mmindex.sources.spec import SourceOptions
from mmindex.store.layout import Layout
from mmindex.train.corpus import captioned_items, split_off
from mmindex_cli.app import app
from support.models import TinyModel


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", "--workers", "0", *arguments])
    return result.exit_code, result.output


def test_one_command_learns_a_vocabulary_and_trains_from_scratch(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    code, output = invoke(
        *("--source", "scenes:40@4294967303", "--model", tiny_model.name, "--pretrained", "none"),
        *("--vocabulary", "200", "--steps", "3", "--batch-size", "8", "--device", "cpu"),
        *("--out", str(tmp_path / "out")),
    )
    assert code == 0, output
    assert "t2i_r@10" in output
    config = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["vocab_size"] == 512 + 200 + 2
    report = json.loads((tmp_path / "out" / "train.report.json").read_text())
    assert report["images"] == 36  # a tenth is held out
    assert report["captions"] == 180


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--source", "scenes:9", "--vocabulary", "9"), 2, "add --pretrained none"),
        ((), 2, "nothing to train on"),
        (("--source", "scenes:9", "--precision", "int8"), 2, "'int8' is not one of"),
        (("--source", "scenes:nine"), 2, "expected COUNT or COUNT@SEED"),
    ],
)
def test_an_invalid_command_names_the_problem_and_the_remedy(
    tiny_model: TinyModel, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    found, output = invoke(*arguments, "--model", tiny_model.name, "--out", str(tmp_path / "out"))
    assert found == code
    assert message in output


def test_a_folder_with_captions_trains_and_its_items_can_go_to_workers(tmp_path: Path) -> None:
    options = SourceOptions(layout=Layout(tmp_path), max_bytes=1 << 20)
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = captioned_items("scenes:3@4294967303", options)
    for number, scene in enumerate(scenes):
        (folder / f"{number}.jpg").write_bytes(scene.read())
        (folder / f"{number}.txt").write_text(scene.captions[0])
    (folder / "bare.jpg").write_bytes(scenes[0].read())
    items = captioned_items(f"folder:{folder}", options)
    assert len(items) == 3  # the one without a caption cannot be used
    sent = pickle.loads(pickle.dumps(list(items)))  # noqa: S301 - our own bytes
    assert [item.read() for item in sent] == [scene.read() for scene in scenes]


def test_a_source_without_captions_is_refused(tmp_path: Path) -> None:
    options = SourceOptions(layout=Layout(tmp_path), max_bytes=1 << 20)
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "bare.jpg").write_bytes(captioned_items("scenes:1", options)[0].read())
    with pytest.raises(DataError, match="no image has a caption"):
        captioned_items(f"folder:{folder}", options)


def test_what_is_held_out_is_not_trained_on() -> None:
    options = SourceOptions(layout=Layout(Path("unused")), max_bytes=1 << 20)
    items = [*captioned_items("scenes:25@4294967303", options)]
    kept, held_out = split_off(items, 4)
    assert len(held_out) == 4
    assert len(kept) == 21
    assert not {item.captions for item in kept} & {item.captions for item in held_out}
