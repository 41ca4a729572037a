"""The training stage: from items to a model folder, with validation and checkpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import open_clip
import torch

from mmindex.core.durable import sync_path
from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex.core.progress import counter, get_logger
from mmindex.train.batches import Batches, batches_from
from mmindex.train.checkpoint import resume, save_checkpoint
from mmindex.train.corpus import Decoder, Tokens, cache_pixels, tokenise
from mmindex.train.folder import WEIGHTS_FILE, TrainableModel, replaced, round_to_half, save_folder
from mmindex.train.log import TrainLog, plot_run
from mmindex.train.settings import CaptionedImage, TrainSettings
from mmindex.train.step import Trainer
from mmindex.train.validation import Validation, load_validation

_LOG_EVERY: Final = 20  # steps to average, because the loss of one batch is noisy
_MOST_UNREADABLE: Final = 0.01  # share of unreadable images, as for the quarantine ...
_ALWAYS_TOLERATED: Final = 10  # ... but always at least this number


@dataclass(slots=True)
class Callbacks:
    """Actions during training.

    Attributes:
        log: receives the loss, and recall.
        validation: the images to measure recall on.
        save: writes a checkpoint after a number of steps.
    """

    log: TrainLog
    validation: Validation
    save: Callable[[int], None]
    _losses: list[float] = field(default_factory=list)
    _seconds: float = 0.0

    def after(self, step: int, loss: float, seconds: float, trainer: Trainer) -> None:
        """Perform the actions that are due after ``step`` steps."""
        settings = trainer.settings
        last = step == settings.steps
        self._losses.append(loss)
        self._seconds += seconds
        if step % _LOG_EVERY == 0 or last:
            self._log_loss(step, trainer)
        if step % settings.validate_every == 0 or last:
            recall = trainer.recall(self.validation)
            self.log.write({"step": step, **{key: round(v, 2) for key, v in recall.items()}})
            get_logger("train").info("validated", step=step, **recall)
        if step % settings.checkpoint_every == 0 and not last:
            self.save(step)

    def _log_loss(self, step: int, trainer: Trainer) -> None:
        steps = len(self._losses)
        self.log.write(
            {
                "step": step,
                "loss": round(sum(self._losses) / steps, 4),
                "learning_rate": trainer.rate,
                "scale": round(trainer.scale, 2),
                "images_per_s": round(steps * trainer.settings.batch_size / self._seconds, 1),
            }
        )
        self._losses, self._seconds = [], 0.0


def run_steps(
    trainer: Trainer, batches: Batches, stations: Callbacks, first: int, workers: int
) -> int:
    """Run all steps after the ``first`` ones; return how many images could not be read.

    Raises:
        DataError: too many images cannot be read, or the loss is not a number.
    """
    unreadable, since = 0, time.monotonic()
    with counter(total=len(batches), label="train", unit="step") as progress:
        progress.update(first)
        for step, batch in enumerate(batches_from(batches, first, workers), first + 1):
            unreadable += batch.unreadable
            check_readable(unreadable, trainer.settings.batch_size * (step - first))
            loss = trainer.step(step - 1, batch)
            stations.after(step, loss, time.monotonic() - since, trainer)
            progress.update(1)
            since = time.monotonic()
    return unreadable


def check_readable(unreadable: int, seen: int) -> None:
    """Raise DataError if more images than allowed cannot be read."""
    if unreadable > max(_ALWAYS_TOLERATED, _MOST_UNREADABLE * seen):
        raise DataError(
            f"{unreadable} of {seen} training images cannot be read",
            "run `mmindex crawl` with the same source to list them with the reasons",
        )


LOG_FILE: Final = "train.log.jsonl"
PLOT_FILE: Final = "train.png"
REPORT_FILE: Final = "train.report.json"


@dataclass(frozen=True, slots=True)
class TrainOutput:
    """The destination of the result and its form.

    Attributes:
        folder: the finished model's folder; work in progress is beside it in ``<name>.work``.
        half: save float16 weights.
        cache_pixels: decode each image once and keep its pixels on disk while training
            (3 * size**2 bytes each); if off, images are decoded again each epoch.
        overwrite: replace an existing model in ``folder``.
    """

    folder: Path
    half: bool = False
    cache_pixels: bool = True
    overwrite: bool = False

    @property
    def work(self) -> Path:
        """Tokens, pixels, log and checkpoints of the run in progress."""
        return self.folder.with_name(self.folder.name + ".work")


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of a run; also saved as JSON next to the weights.

    Attributes:
        images, captions: size of the training corpus.
        unreadable: images left out (with the pixel cache: of the corpus; otherwise: of all
            batches).
        corpus: sha256 over the captions in order.
        resumed_at: steps that an earlier, killed run had done.
        seconds: duration of this process, including preparation.
        parameters: number of the network's parameters.
        recall: recall of the saved weights on the held-out images, in percent.
    """

    images: int
    captions: int
    unreadable: int
    corpus: str
    resumed_at: int
    seconds: float
    parameters: int
    recall: Mapping[str, float]
    settings: TrainSettings
    versions: Mapping[str, str]


def train(
    model: TrainableModel,
    items: Sequence[CaptionedImage],
    held_out: Sequence[CaptionedImage],
    settings: TrainSettings,
    output: TrainOutput,
) -> TrainReport:
    """Train ``model`` on ``items`` and publish it in ``output.folder``.

    When it is called again with the same arguments, a killed run continues from its last checkpoint
    and ends with the same weights.

    Args:
        items: at least two, each with a caption.
        held_out: images to measure recall on; ``items`` must not contain any of them.

    Raises:
        UsageError: the folder already has a model.
        DataError: too few items, or too many that cannot be read, or the loss is not a number.
        ModelMismatchError: the work in progress has other settings or another corpus.
    """
    started = time.monotonic()
    _check(items, output)
    decoder = Decoder(model.files.preprocess)
    tokens = tokenise(items, model.tokenize, output.work / "tokens.i32")
    validation = load_validation(held_out, decoder, model.tokenize)
    trainer = Trainer(model, settings)
    identity = _identity(trainer.state.network, tokens, settings)
    first = resume(output.work, trainer.state, identity)
    if first:
        get_logger("train").info("continuing from a checkpoint", step=first)
    batches, unreadable = _prepare(items, tokens, decoder, settings, output)
    stations = Callbacks(
        log=TrainLog(output.work / LOG_FILE, first),
        validation=validation,
        save=lambda step: save_checkpoint(output.work, step, trainer.state, identity),
    )
    workers = 0 if output.cache_pixels else settings.workers
    unreadable += run_steps(trainer, batches, stations, first, workers)
    if output.half:
        round_to_half(trainer.final_network())
    report = TrainReport(
        images=len(items),
        captions=int(tokens.offsets[-1]),
        unreadable=unreadable,
        corpus=tokens.fingerprint,
        resumed_at=first,
        seconds=round(time.monotonic() - started, 1),
        parameters=sum(value.numel() for value in model.network.parameters()),
        recall=trainer.recall(validation),
        settings=settings,
        versions={"torch": torch.__version__, "open_clip": open_clip.__version__},
    )
    _publish(replaced(model, trainer.final_network()), report, stations.log, output)
    return report


def _check(items: Sequence[CaptionedImage], output: TrainOutput) -> None:
    if (output.folder / WEIGHTS_FILE).exists() and not output.overwrite:
        raise UsageError(
            f"{output.folder} already contains a model", "set `overwrite`, or another `out`"
        )
    if len(items) < 2:
        raise DataError(f"contrastive training needs at least 2 images, not {len(items)}")
    with os_errors(output.work):
        output.work.mkdir(parents=True, exist_ok=True)


def _identity(
    network: torch.nn.Module, tokens: Tokens, settings: TrainSettings
) -> dict[str, object]:
    """Return what a resumed run must share with the killed one: all that changes its weights."""
    start = hashlib.sha256()
    for name, value in network.state_dict().items():
        start.update(name.encode())
        start.update(value.detach().cpu().contiguous().numpy().tobytes())
    return {
        **settings.identity(),
        "corpus": tokens.fingerprint,
        "start": start.hexdigest(),
        "torch": torch.__version__,
    }


def _prepare(
    items: Sequence[CaptionedImage],
    tokens: Tokens,
    decoder: Decoder,
    settings: TrainSettings,
    output: TrainOutput,
) -> tuple[Batches, int]:
    if not output.cache_pixels:
        return Batches(tokens, (items, decoder), settings), 0
    pixels = cache_pixels(items, decoder, output.work, tokens.fingerprint, settings.workers)
    check_readable(len(pixels.unreadable), len(items))
    return Batches(tokens, pixels, settings), len(pixels.unreadable)


def _publish(
    model: TrainableModel, report: TrainReport, log: TrainLog, output: TrainOutput
) -> None:
    """Write the folder, the weights last, and remove the work in progress."""
    ready = output.work / "ready"
    with os_errors(output.folder):
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        output.folder.mkdir(parents=True, exist_ok=True)
        save_folder(model, ready, half=output.half)
        plot_run(log.entries, ready / PLOT_FILE)
        shutil.copyfile(output.work / LOG_FILE, ready / LOG_FILE)
        (ready / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2) + "\n")
        for path in sorted(ready.iterdir(), key=lambda path: path.name == WEIGHTS_FILE):
            sync_path(path)
            path.replace(output.folder / path.name)
        sync_path(output.folder)
        shutil.rmtree(output.work)
