"""Training on drawn scenes with a network of about 40,000 weights."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from mmindex.core.errors import DataError, ModelMismatchError, StorageError, UsageError
from mmindex.models.devices import Placement
from mmindex.models.openclip import load_encoder
from mmindex.models.resolve import LOCAL_DIR, NO_WEIGHTS, ModelRequest
from mmindex.scenes import RESERVED_SEED, SceneRange
from mmindex.train.corpus import Scenes
from mmindex.train.folder import WEIGHTS_FILE, load_trainable
from mmindex.train.settings import TrainingItem, TrainSettings
from mmindex.train.train import TrainOutput, TrainReport, train
from support.models import TinyModel

SCENES = Scenes(SceneRange(RESERVED_SEED + 7, 48))
SETTINGS = TrainSettings(
    steps=12,
    batch_size=16,
    learning_rate=2e-3,
    warmup_steps=2,
    ema_decay=0.5,
    precision="fp32",
    device="cpu",
    workers=0,
    checkpoint_every=4,
    validate_every=6,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # sums in another order have other last bits


def run(
    model: TinyModel, out: Path, settings: TrainSettings = SETTINGS, *, cache: bool = True
) -> TrainReport:
    trainable = load_trainable(ModelRequest(model.name, NO_WEIGHTS), settings.seed)
    output = TrainOutput(out, cache_pixels=cache)
    return train(trainable, SCENES, SCENES[:16], settings, output)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / WEIGHTS_FILE)
    return found


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


@pytest.fixture(scope="module")
def whole_run(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of an undisturbed run."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("train") / "whole"
    run(tiny_model, out)
    return out


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}]
from mmindex.train.step import Trainer
from support.models import TinyModel
import test_train
import torch

torch.set_num_threads(1)
real = Trainer.step

def step(self, number, batch):
    if number == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, number, batch)

Trainer.step = step
test_train.run(TinyModel(Path({folder!r}), Path()), Path({out!r}))
"""


def test_a_killed_run_ends_with_the_same_weights(
    tiny_model: TinyModel, whole_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    here = Path(__file__).parent
    script = _KILLED.format(
        tests=str(here.parent), here=str(here), folder=str(tiny_model.folder), out=str(out)
    )
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not out.exists()

    report = run(tiny_model, out)

    assert report.resumed_at == 8
    assert_same(weights(out), weights(whole_run))
    steps = [
        json.loads(line)["step"] for line in (out / "train.log.jsonl").read_text().splitlines()
    ]
    assert steps == [6, 12, 12]  # no step twice, and none of the lost steps


def test_images_decoded_each_time_train_the_same_weights_as_cached_ones(
    tiny_model: TinyModel, whole_run: Path, tmp_path: Path
) -> None:
    run(tiny_model, tmp_path / "uncached", cache=False)
    assert_same(weights(tmp_path / "uncached"), weights(whole_run))


def test_the_folder_contains_the_complete_result_only(whole_run: Path) -> None:
    assert sorted(path.name for path in whole_run.iterdir()) == [
        "merges.txt.gz",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "train.log.jsonl",
        "train.png",
        "train.report.json",
    ]
    assert [path.name for path in whole_run.parent.iterdir()] == ["whole"]
    assert (whole_run / "train.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((whole_run / "train.report.json").read_text())
    assert report["images"] == 48
    assert report["captions"] == 240
    assert report["settings"]["steps"] == 12


def test_the_folder_loads_through_open_clips_own_factory_with_the_same_vectors(
    whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a red boat on the sea", "海上的红船"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    encoder = load_encoder(ModelRequest(f"{LOCAL_DIR}{whole_run}", ""), Placement(("cpu",), "fp32"))
    ours = encoder.encode_texts(texts), encoder.encode_images(pixels)
    encoder.close()

    monkeypatch.chdir(whole_run)  # open_clip looks for the merges file in the current folder
    network, _, _ = open_clip.create_model_and_transforms("local-dir:.", require_pretrained=True)
    tokens = open_clip.get_tokenizer("local-dir:.")(texts)
    network.eval()
    normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        theirs = (
            network.encode_text(tokens, normalize=True).numpy(),
            network.encode_image(normalised, normalize=True).numpy(),
        )
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_locked_tower_does_not_change_and_the_other_learns(
    tiny_model: TinyModel, tmp_path: Path, tower: str
) -> None:
    start = load_trainable(ModelRequest(tiny_model.name, ""), 0)
    locked = {"lock_image": tower == "image", "lock_text": tower == "text"}
    settings = replace(SETTINGS, steps=3, **locked)
    train(start, SCENES, SCENES[:8], settings, TrainOutput(tmp_path / "out"))
    before, after = weights(tiny_model.folder), weights(tmp_path / "out")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    visual = {key for key in before if key.startswith("visual.")}
    assert "logit_scale" in changed
    assert changed - {"logit_scale"} <= (before.keys() - visual if tower == "image" else visual)
    assert len(changed) > 10


def test_training_lowers_the_loss_and_raises_recall(tiny_model: TinyModel, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=120, batch_size=24, ema_decay=0.0, crop_scale=1.0)
    settings = replace(settings, validate_every=60, checkpoint_every=1000)
    report = run(tiny_model, tmp_path / "out", settings)
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "train.log.jsonl").read_text().splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.6 * losses[0]
    assert report.recall["t2i_r@1"] > 4 * 100 / 16  # four times chance
    assert all(line["scale"] <= 100 for line in lines if "scale" in line)


def test_half_precision_halves_the_file_and_loads_as_float32(
    tiny_model: TinyModel, whole_run: Path, tmp_path: Path
) -> None:
    trainable = load_trainable(ModelRequest(tiny_model.name, NO_WEIGHTS), 0)
    train(trainable, SCENES, SCENES[:16], SETTINGS, TrainOutput(tmp_path / "half", half=True))
    half, full = weights(tmp_path / "half"), weights(whole_run)
    assert {value.dtype for value in half.values() if value.is_floating_point()} == {torch.float16}
    assert_same(half, {k: v.half() if v.is_floating_point() else v for k, v in full.items()})
    loaded = load_trainable(ModelRequest(f"{LOCAL_DIR}{tmp_path / 'half'}", ""), 0)
    assert {value.dtype for value in loaded.network.parameters()} == {torch.float32}


def test_a_model_is_not_overwritten_without_permission(
    tiny_model: TinyModel, whole_run: Path
) -> None:
    with pytest.raises(UsageError, match="already contains a model"):
        run(tiny_model, whole_run)


def test_other_settings_do_not_resume_a_run(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmindex.train.train.plot_run", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        run(tiny_model, tmp_path / "out")
    with pytest.raises(ModelMismatchError, match="other learning_rate, seed"):
        run(tiny_model, tmp_path / "out", replace(SETTINGS, seed=9, learning_rate=1e-3))


def _damaged() -> bytes:
    return b"no picture"


def test_too_many_unreadable_images_end_the_run_and_a_few_are_left_out(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    trainable = load_trainable(ModelRequest(tiny_model.name, NO_WEIGHTS), 0)
    damaged = [TrainingItem(_damaged, (f"damaged {n}",)) for n in range(11)]
    settings = replace(SETTINGS, steps=2)
    few = [*damaged[:3], *SCENES[:24]]
    for cache in (True, False):
        output = TrainOutput(tmp_path / f"few-{cache}", cache_pixels=cache)
        report = train(trainable, few, SCENES[:8], settings, output)
        assert report.unreadable > 0
    many = [*damaged, *SCENES[:24]]
    with pytest.raises(DataError, match="11 of 35 training images cannot be read"):
        train(trainable, many, SCENES[:8], settings, TrainOutput(tmp_path / "many"))


def test_an_image_without_a_caption_and_too_few_images_are_refused(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    trainable = load_trainable(ModelRequest(tiny_model.name, NO_WEIGHTS), 0)
    bare = [*SCENES[:3], TrainingItem(SCENES[3].read, ())]
    with pytest.raises(DataError, match="image 3 of the training corpus has no caption"):
        train(trainable, bare, SCENES[:2], SETTINGS, TrainOutput(tmp_path / "bare"))
    with pytest.raises(DataError, match="at least 2 images"):
        train(trainable, SCENES[:1], SCENES[:2], SETTINGS, TrainOutput(tmp_path / "one"))


def test_both_towers_cannot_be_locked() -> None:
    with pytest.raises(UsageError, match="both towers"):
        replace(SETTINGS, lock_image=True, lock_text=True)
