"""Adapt a store's model: ``mmindex.adapt``, for programs and for the command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mmindex.core.arguments import as_path, expect
from mmindex.core.system import calm_openmp

if TYPE_CHECKING:
    from mmindex.adaptation.adapt import AdaptReport


def adapt(
    store: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    captions: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    progress: bool = False,
) -> AdaptReport:
    """Adapt a store's model to captions of its images, without opening an image.

    The result is a folder with a new model. ``mmindex.build(store, model=report.model)`` computes
    the new vectors from the old ones. If no candidate improves recall significantly, nothing
    is written.

    Args:
        store: the store's folder.
        out: folder for the new model; it must be new or empty.
        captions: a list of captions for the images in the store; None uses the store's captions.
        overwrite: replace an adapted model in ``out``.
        device: device for encoding the captions of a list: ``auto``, ``cpu``, ``cuda``, ...
        seed: seed of the folds, the polish and the intervals; equal seeds result in equal models.
        progress: show progress bars on stderr if it is a terminal.

    Returns:
        A report with ``adapted`` (whether a model was written), ``model`` (the model name for
        ``build``), recall ``before`` and ``after`` on images that were not used for the fit, and
        the difference ``gain``.

    Raises:
        TypeError: an argument has the wrong type.
        UsageError: ``out`` is not empty.
        NoInputError: there is no store, or it has no captions and none are given.
        DataError: too few images have captions, or something is damaged.
        ModelMismatchError: the store's model has changed.
        MmindexError: see :mod:`mmindex.core.errors`; ``out`` is then unchanged.
    """
    calm_openmp()
    from mmindex.core.progress import bars

    where, folder = as_path(store, "store"), as_path(out, "out")
    given = None if captions is None else as_path(captions, "captions")
    expect(device, str, "device", "a str")
    expect(seed, int, "seed", "an int")
    from mmindex.adaptation.adapt import AdaptRequest
    from mmindex.adaptation.adapt import adapt as run

    request = AdaptRequest(where, folder, given, overwrite=overwrite, device=device, seed=seed)
    with bars(progress):
        return run(request)
