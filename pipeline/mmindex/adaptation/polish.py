"""The contrastive polish: a few steps of gradient descent on a retrieval loss.

The loss is InfoNCE (A. van den Oord, Y. Li and O. Vinyals, Representation learning with contrastive
predictive coding, arXiv 1807.03748, 2018) in CLIP's symmetric form: in a batch, each image should
be nearest to its own caption, and each caption to its own image. Noise is added to the vectors,
with the covariance of the ridge of the closed form: both regularise in the same way.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 # the usual name

from mmindex.adaptation.correlate import Fit, Noise, Settings
from mmindex.adaptation.pairs import Pairs

_BATCH: Final = 256  # images; a step takes about 20 ms on one core at 384 dimensions
_RATE: Final = 0.01  # Adam's learning rate, relative to the spread of a map
_TEMPERATURE: Final = 0.06
# Share of the ridge: full noise in every vector would hide the few pairs of a small corpus.
_NOISE: Final = 0.3


def polish(fit: Fit, pairs: Pairs, noise: Noise, settings: Settings, seed: int) -> Fit:
    """Lower the contrastive loss of both maps in ``settings.steps`` steps.

    Args:
        fit: the initial maps.
        pairs: the pairs to fit to; one caption of each image is drawn per step.
        noise: the :class:`Noise` of the vectors.
        settings: ridges and steps.
        seed: seed of the draws.
    """
    draw = np.random.default_rng(seed)
    lots = torch.Generator().manual_seed(seed)
    maps = [fit.image.clone().requires_grad_(), fit.text.clone().requires_grad_()]
    adam = torch.optim.Adam(
        [{"params": [one], "lr": _RATE * float(one.detach().std())} for one in maps]
    )
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
    image_noise = _spread(pairs.images, fit.image_centre, noise.image, settings.image_ridge)
    text_noise = _spread(pairs.texts, fit.text_centre, noise.text, settings.text_ridge)
    for _ in range(settings.steps):
        chosen = draw.permutation(len(pairs))[:_BATCH]
        said = pairs.starts[chosen] + draw.integers(pairs.counts[chosen])
        images = _noisy(pairs.images[chosen], fit.image_centre, image_noise, lots)
        texts = _noisy(pairs.texts[said], fit.text_centre, text_noise, lots)
        scores = F.normalize(images @ maps[0], dim=1) @ F.normalize(texts @ maps[1], dim=1).T
        goal = torch.arange(len(scores))
        loss = F.cross_entropy(scores / _TEMPERATURE, goal)
        loss = loss + F.cross_entropy(scores.T / _TEMPERATURE, goal)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch annotates it in part
        adam.step()
        fall.step()
    return fit.with_maps(maps[0].detach(), maps[1].detach())


def _spread(
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
    centre: Tensor,
    noise: Tensor,
    ridge: float,
) -> Tensor:
    """Return the matrix that turns standard normal rows into the noise: float32 (dim, dim)."""
    sample = torch.from_numpy(vectors[:4_096]).float() - centre
    scale = sample.pow(2).mean().double()
    root: Tensor = torch.linalg.cholesky(noise) * (_NOISE * ridge * scale).sqrt()
    return root.T.float()


def _noisy(
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
    centre: Tensor,
    noise: Tensor,
    lots: torch.Generator,
) -> Tensor:
    rows = torch.from_numpy(vectors).float() - centre
    return rows + torch.randn(rows.shape, generator=lots) @ noise
