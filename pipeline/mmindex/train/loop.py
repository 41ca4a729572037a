"""The steps of a run, with what happens along the way: log, validation, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mmindex.core.errors import DataError
from mmindex.core.progress import counter, get_logger
from mmindex.train.batches import Batches, batches_from
from mmindex.train.log import TrainLog
from mmindex.train.step import Trainer
from mmindex.train.validation import Validation

_LOG_EVERY: Final = 20  # steps: the loss of one batch is noise
_MOST_UNREADABLE: Final = 0.01  # share of the pictures, as in the index's quarantine...
_ALWAYS_TOLERATED: Final = 10  # ...and never fewer than so many


@dataclass(slots=True)
class Callbacks:
    """What happens along the way.

    Attributes:
        log: gets the loss, and recall.
        validation: what recall is measured on.
        save: writes a checkpoint after so many steps.
    """

    log: TrainLog
    validation: Validation
    save: Callable[[int], None]
    _losses: list[float] = field(default_factory=list)
    _seconds: float = 0.0

    def after(self, step: int, loss: float, seconds: float, trainer: Trainer) -> None:
        """Do what is due once ``step`` steps are done."""
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
    """All steps after the ``first`` ones; returns how many pictures could not be read.

    Raises:
        DataError: too many pictures cannot be read, or the loss is no number.
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
    """Raise DataError when more pictures cannot be read than may be left out."""
    if unreadable > max(_ALWAYS_TOLERATED, _MOST_UNREADABLE * seen):
        raise DataError(
            f"{unreadable} of {seen} training pictures cannot be read",
            "`mmindex crawl` on the same source lists them with their reasons",
        )
