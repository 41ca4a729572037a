"""Adapting a store's model, as programs and as the command do it."""

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
    """Adapt a store's model to captions of its images; no image is opened.

    The result is a folder: ``mmindex.build(store, model=report.model)`` computes the new vectors
    from the old ones. Where no candidate is better than the unchanged model beyond the noise,
    nothing is written.

    Args:
        store: the store's folder.
        out: folder of the new model; it must not exist, or be empty.
        captions: a list of captions for the images in the store; None: the store's own captions.
        overwrite: replace an adapted model that is in ``out``.
        device: where the model runs, should captions have to be encoded: ``auto``, ``cpu`` ...
        seed: of the folds, the polish and the intervals; equal seeds give equal models.
        progress: draw progress bars on stderr where a terminal watches.

    Returns:
        ``adapted`` (whether a model was written), ``model`` (what ``build`` takes), recall
        ``before`` and ``after`` on images that were not fitted to, and their difference ``gain``.

    Raises:
        TypeError: an argument has the wrong type.
        UsageError: ``out`` holds something already.
        NoInputError: there is no store, or it has no captions and none are given.
        DataError: too few images have captions, or something is damaged.
        ModelMismatchError: the store's model is no longer what it was.
        MmindexError: see :mod:`mmindex.core.errors`; ``out`` is then as it was.
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
