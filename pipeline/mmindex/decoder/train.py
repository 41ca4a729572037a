"""Train a decoder on the ground truth of scenes, with a frozen image tower."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from mmindex.core.durable import sync_path
from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex.core.progress import counter, get_logger
from mmindex.decoder.batches import Packed, batch_of
from mmindex.decoder.features import Features
from mmindex.decoder.measure import answer_accuracy
from mmindex.decoder.model import DECODER_FILE, DecoderModel, save_decoder
from mmindex.decoder.network import DecoderNetwork, Shape
from mmindex.decoder.questions import BRIEFLY, DESCRIBE, TASKS, ask
from mmindex.decoder.words import Vocabulary, learn_words
from mmindex.media.images import decode
from mmindex.models.files import ModelFiles, locate
from mmindex.models.fingerprint import describe
from mmindex.models.openclip import build_network
from mmindex.models.preprocess import PreprocessSpec, to_pixels
from mmindex.models.resolve import ModelRequest
from mmindex.scenes import Scene, SceneRange, captions, draw, encode, make_scene
from mmindex.scenes.scene import Lot
from mmindex.sources.kinds.scenes import parse_scenes
from mmindex.sources.spec import parse_spec
from mmindex.train.batches import step_indices
from mmindex.train.checkpoint import TrainingState, resume, save_checkpoint
from mmindex.train.corpus import LIMITS
from mmindex.train.log import TrainLog
from mmindex.train.settings import TrainSettings
from mmindex.train.step import decay_groups, learning_rate
from mmindex.train.towers import pick_device, pick_dtype

MAPS: Final = 3  # the last feature maps of the image tower
LOG_FILE: Final = "decoder.log.jsonl"
REPORT_FILE: Final = "decoder.report.json"
_VOCABULARY_SCENES: Final = 1_000
_QUESTIONS_EACH: Final = 20  # of a scene whose words become the vocabulary
_IMAGES: Final = 64
_LOG_EVERY: Final = 20
_BETAS, _EPSILON = (0.9, 0.98), 1e-6
_SHAPE: Final = Shape(words=0, maps=())


@dataclass(frozen=True, slots=True)
class DecoderRecipe:
    """A training run as requested.

    Attributes:
        sources, validation: specs of scenes; without validation, nothing is measured.
        model: the model whose image tower is read.
        settings: of the steps.
        folder: the destination of the decoder, which may be the folder of the model.
        overwrite: replace a decoder in the folder.
        shape: width, layers and heads; its words and maps are replaced.
    """

    sources: Sequence[str]
    validation: Sequence[str]
    model: ModelRequest
    settings: TrainSettings
    folder: Path
    overwrite: bool = False
    shape: Shape = _SHAPE

    @property
    def work(self) -> Path:
        """Log and checkpoints of the run in progress."""
        return self.folder.with_name(f"{self.folder.name}.decoder.work")


@dataclass(frozen=True, slots=True)
class DecoderReport:
    """The result of a run; also saved as JSON.

    Attributes:
        scenes: number of scenes.
        words: size of the vocabulary.
        parameters: number of parameters of the decoder.
        loss: mean of the last steps.
        accuracy: share of correct answers to questions about the validation scenes, by type.
        resumed_at: steps of an earlier, interrupted run.
        seconds: duration of this process, including preparation.
    """

    scenes: int
    words: int
    parameters: int
    loss: float
    accuracy: Mapping[str, float]
    resumed_at: int
    seconds: float
    settings: TrainSettings


@dataclass(frozen=True, slots=True)
class Corpus:
    """Scenes with their feature maps.

    Attributes:
        scenes: the ground truth.
        maps: float16 (scenes, places, channels) each.
    """

    scenes: Sequence[Scene]
    maps: Sequence[Tensor]


def train_decoder(recipe: DecoderRecipe) -> DecoderReport:
    """Train a decoder and write it to the folder of the recipe.

    When it is called again with the same arguments, an interrupted run continues from its last
    checkpoint.

    Raises:
        UsageError: a source does not consist of scenes, or the folder already has a decoder.
        DataError: the loss is not a number.
        ModelMismatchError: the work in progress has other settings, or the model has no feature
            maps.
        MmindexError: the model cannot be loaded, or a file cannot be written.
    """
    started = time.monotonic()
    scenes = read_scenes(recipe.sources)
    held_out = read_scenes(recipe.validation) if recipe.validation else []
    _check(recipe)
    files = locate(recipe.model)
    features = Features(build_network(files).eval().requires_grad_(False), files.preprocess, MAPS)
    vocabulary = learn_words(_texts(scenes[:_VOCABULARY_SCENES]))
    shape = replace(recipe.shape, words=len(vocabulary), maps=features.shape())
    trainer = DecoderTrainer(shape, recipe.settings)
    weights = describe(recipe.model, files, "fp32").weights
    identity = _identity(recipe, vocabulary, shape, weights)
    first = resume(recipe.work, trainer.state, identity)
    corpus = with_maps(scenes, features, files)
    measured = with_maps(held_out, features, files) if held_out else None
    log = TrainLog(recipe.work / LOG_FILE, first)
    model = DecoderModel(trainer.network, vocabulary, weights)
    loss = _run(trainer, corpus, measured, model, log, (first, recipe.work, identity))
    report = DecoderReport(
        scenes=len(scenes),
        words=len(vocabulary),
        parameters=trainer.network.parameter_count(),
        loss=loss,
        accuracy=accuracy(model, measured),
        resumed_at=first,
        seconds=round(time.monotonic() - started, 1),
        settings=recipe.settings,
    )
    _publish(model, report, recipe)
    return report


def read_scenes(specs: Sequence[str]) -> list[Scene]:
    """Return the ground truth of sources of scenes.

    Raises:
        UsageError: there is no source, or one of another kind.
    """
    found: list[Scene] = []
    for text in specs:
        spec = parse_spec(text)
        if spec.kind != "scenes":
            raise UsageError(
                f"{text}: a decoder is trained on the ground truth of scenes",
                "set `source`, for example scenes:30000@4294967296",
            )
        where = parse_scenes(spec.where)
        scenes = SceneRange(where.seed, where.count)
        found += [make_scene(scenes.seed, number) for number in scenes.numbers]
    if not found:
        raise UsageError("nothing to train on", "set `source`, for example scenes:30000@4294967296")
    return [scene for scene in found if scene.things]


def with_maps(scenes: Sequence[Scene], features: Features, files: ModelFiles) -> Corpus:
    """Draw scenes and compute their feature maps."""
    return Corpus(scenes, features.of_all(drawn(scenes, files.preprocess), len(scenes)))


def drawn(scenes: Sequence[Scene], preprocess: PreprocessSpec) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of scenes as model input, uint8 (n, height, width, 3)."""
    with counter(total=len(scenes), label="draw", unit="image") as progress:
        for start in range(0, len(scenes), _IMAGES):
            part = scenes[start : start + _IMAGES]
            yield np.stack(
                [to_pixels(decode(encode(draw(one)), LIMITS), preprocess) for one in part]
            )
            progress.update(len(part))


def _texts(scenes: Sequence[Scene]) -> Iterator[str]:
    yield from (DESCRIBE, BRIEFLY)
    for wordings, _, _ in TASKS:
        yield from wordings
    for scene in scenes:
        yield from (caption.text for caption in captions(scene))
        lot = Lot("words", scene.seed, scene.number)
        for _ in range(_QUESTIONS_EACH):
            asked = ask(scene, lot)
            yield asked.prompt
            yield asked.answer


def _check(recipe: DecoderRecipe) -> None:
    if (recipe.folder / DECODER_FILE).exists() and not recipe.overwrite:
        raise UsageError(
            f"{recipe.folder} already contains a decoder", "set `overwrite`, or another `out`"
        )
    with os_errors(recipe.work):
        recipe.work.mkdir(parents=True, exist_ok=True)


def _identity(
    recipe: DecoderRecipe, vocabulary: Vocabulary, shape: Shape, weights: str
) -> dict[str, object]:
    """Return what a resumed run must share with the interrupted one."""
    return {
        **recipe.settings.identity(),
        "sources": list(recipe.sources),
        "words": list(vocabulary.words),
        "shape": asdict(shape),
        "weights": weights,
        "torch": torch.__version__,
    }


class DecoderTrainer:
    """The network with its optimizer."""

    def __init__(self, shape: Shape, settings: TrainSettings) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.precision, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.network = DecoderNetwork(shape).to(self.device)
        groups: Any = decay_groups(self.network, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, eps=_EPSILON, fused=True)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self._dtype == torch.float16)
        self.state = TrainingState(self.network, optimizer, scaler, None)

    def step(self, number: int, packed: Packed, maps: Sequence[Tensor]) -> float:
        """Train on one batch; return its loss.

        Raises:
            DataError: the loss is not a number.
        """
        settings, optimizer, scaler = self.settings, self.state.optimizer, self.state.scaler
        rate = learning_rate(
            number,
            peak=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            steps=settings.steps,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        # Torch's fused attention is faster here than plain products, see `train.towers.computing`.
        enabled = self._dtype != torch.float32
        with torch.autocast(self.device.type, self._dtype, enabled=enabled):
            loss = self._loss(packed, maps)
        torch.autograd.backward(scaler.scale(loss))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(f"the loss is {value} at step {number}", "lower `learning_rate`")
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return value

    def _loss(self, packed: Packed, maps: Sequence[Tensor]) -> Tensor:
        on = self.device
        memory = self.network.memory([part.to(on) for part in maps], packed.unseen.to(on))
        states, _ = self.network(
            packed.tokens.to(on), packed.positions.to(on), packed.mask.to(on), memory
        )
        told = packed.weights > 0
        scores = self.network.scores(states[told.to(on)])
        losses = F.cross_entropy(scores, packed.targets[told].to(on), reduction="none")
        weights = packed.weights[told].to(on)
        return (losses * weights).sum() / weights.sum()


def _run(
    trainer: DecoderTrainer,
    corpus: Corpus,
    measured: Corpus | None,
    model: DecoderModel,
    log: TrainLog,
    place: tuple[int, Path, Any],
) -> float:
    """Run all steps after the first ones; return the mean loss of the last ones."""
    first, work, identity = place
    settings, losses = trainer.settings, [0.0]
    with counter(total=settings.steps, label="train", unit="step") as progress:
        progress.update(first)
        for step in range(first, settings.steps):
            chosen = np.sort(step_indices(len(corpus.scenes), step, settings))
            scenes = [corpus.scenes[number] for number in chosen]
            packed = batch_of(scenes, model.vocabulary, settings.seed, step)
            rows = torch.from_numpy(chosen)
            losses.append(trainer.step(step, packed, [part[rows] for part in corpus.maps]))
            progress.update(1)
            done, last = step + 1, step + 1 == settings.steps
            losses = losses[-_LOG_EVERY:]
            if done % _LOG_EVERY == 0 or last:
                log.write({"step": done, "loss": round(sum(losses) / len(losses), 4)})
            if done % settings.validate_every == 0 and not last:
                found = accuracy(model, measured)
                log.write({"step": done, **found})
                get_logger("train").info("validated", step=done, **found)
            if done % settings.checkpoint_every == 0 and not last:
                save_checkpoint(work, done, trainer.state, identity)
    return round(sum(losses) / len(losses), 4)


def accuracy(model: DecoderModel, measured: Corpus | None) -> dict[str, float]:
    """Return the share of correct answers about the validation scenes, by type."""
    if measured is None:
        return {}
    model.network.eval()
    told = answer_accuracy(model, measured.scenes, measured.maps)
    return {name: round(share, 4) for name, share in told.items()}


def _publish(model: DecoderModel, report: DecoderReport, recipe: DecoderRecipe) -> None:
    """Write the folder, the decoder last, and remove the work in progress."""
    with os_errors(recipe.folder):
        recipe.folder.mkdir(parents=True, exist_ok=True)
        save_decoder(model, recipe.work / DECODER_FILE)
        text = json.dumps(asdict(report), indent=2) + "\n"
        (recipe.work / REPORT_FILE).write_text(text, encoding="utf-8")
        for name in (LOG_FILE, REPORT_FILE, DECODER_FILE):
            sync_path(recipe.work / name)
            (recipe.work / name).replace(recipe.folder / name)
        sync_path(recipe.folder)
        shutil.rmtree(recipe.work)
