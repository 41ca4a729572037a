"""The text side of the model for photographs without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import DataError, ModelMismatchError
from mmindex.core.resources import data_dir
from mmindex.models.adapted import (
    MAPS_FILE,
    Affine,
    Maps,
    config_text,
    parent_card,
    save_maps,
)
from mmindex.models.devices import place
from mmindex.models.encoder import Encoder, good_rows
from mmindex.models.files import locate
from mmindex.models.fingerprint import describe
from mmindex.models.openclip import load_encoder
from mmindex.models.resolve import CONFIG_FILE, LOCAL_DIR, ModelRequest, resolve_model
from mmindex.models.text_side import TextSide, read_text_side
from support.command import mmindex

FOLDER = data_dir() / "models" / "photos-clip"
WEIGHTS = "model.safetensors"
TEXTS = ["a dog", "", "two red boats on the sea", "一只猫", "x" * 5000, "word " * 200, "Über 3 %"]
DIM = 384

COLD = """
import sys
from mmindex_cli.app import main
sys.argv = ["mmindex", "query", "--store", sys.argv[1], "a dog"]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def read(request: ModelRequest) -> TextSide:
    texts = read_text_side(request, describe(request, locate(request), "fp32"))
    assert texts is not None
    return texts


def same(texts: TextSide, model: Encoder) -> None:
    found, expected = texts.encode_texts(TEXTS), model.encode_texts(TEXTS)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert good_rows(found).all()
    assert texts.cut_texts == model.cut_texts == 2
    assert texts.info == model.info


def test_its_vectors_are_those_of_the_whole_model() -> None:
    request = resolve_model("photos", None)
    same(read(request), load_encoder(request, place("cpu")))


def test_an_adapted_model_is_mapped_as_by_the_whole_model(tmp_path: Path) -> None:
    parent = resolve_model("photos", None)
    draw = np.random.default_rng(0)
    weight = np.eye(DIM, dtype=np.float32) + draw.normal(0, 0.1, (DIM, DIM)).astype(np.float32)
    affine = Affine(weight, draw.normal(0, 0.1, DIM).astype(np.float32))
    save_maps(Maps(affine, affine, 10.0), tmp_path / MAPS_FILE)
    card = parent_card(parent, describe(parent, locate(parent), "fp32"))
    (tmp_path / CONFIG_FILE).write_text(config_text(card))
    request = resolve_model(f"{LOCAL_DIR}{tmp_path}", None)
    same(read(request), load_encoder(request, place("cpu")))


def test_a_text_alone_and_in_a_batch_has_the_same_vector() -> None:
    texts = read(resolve_model("photos", None))
    together = texts.encode_texts(TEXTS)
    alone = np.concatenate([texts.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert texts.encode_texts([]).shape == (0, DIM)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"text_head.bias", b"text_head.bios", ModelMismatchError),
        (b"text.words.packed", b"text.words.pecked", ModelMismatchError),
        (b'{"', b'{{"', DataError),
    ],
)
def test_damaged_weights_are_errors_that_name_the_file(
    tmp_path: Path, old: bytes, new: bytes, error: type[Exception]
) -> None:
    shutil.copytree(FOLDER, tmp_path / "m")
    weights = tmp_path / "m" / WEIGHTS
    weights.write_bytes(weights.read_bytes().replace(old, new, 1))
    with pytest.raises(error, match=WEIGHTS):
        read(resolve_model(f"{LOCAL_DIR}{tmp_path / 'm'}", None))


@pytest.mark.parametrize(
    ("key", "value"),
    [("context_length", 64), ("vocab_size", 9), ("inner", 8), ("layers", 5), ("layers", 7)],
)
def test_weights_of_another_size_are_refused(tmp_path: Path, key: str, value: int) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "m")
    config = json.loads((copy / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"][key] = value
    (copy / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ModelMismatchError, match="do not fit"):
        read(resolve_model(f"{LOCAL_DIR}{copy}", None))


def test_a_query_from_the_shell_does_not_import_torch(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    mmindex("build", "--store", store, "--source", "scenes:30", "--model", "photos")
    run = subprocess.run(
        [sys.executable, "-c", COLD, store], capture_output=True, text=True, check=True
    )
    assert "images for a dog" in run.stdout
    assert run.stderr.splitlines()[-1] == "False"
