"""Which parts of an image carry its match with a text?

**Gradient** (the default): integrated gradients (M. Sundararajan, A. Taly and Q. Yan, Axiomatic
Attribution for Deep Networks, ICML 2017) of the cosine similarity, along the straight path from the
model's neutral colour to the image, summed over each patch of a vision transformer, or over each
cell of a grid for other towers. Together they account for the whole difference between the
image's score and that of a neutral one; what speaks against the text is cut off at zero. (A
single gradient at the image itself says little: at a clear match the similarity has levelled
off, and small changes change nothing.)

**Occlusion**: a window in the neutral colour slides over the image; each place gets the mean drop
of the similarity over all windows that cover it (M. D. Zeiler and R. Fergus, Visualizing and
Understanding Convolutional Networks, ECCV 2014). It asks nothing of a model but its vectors.

Of 109 things in 40 unseen scenes, the peak lay in the box of the thing that was named in 83 % by
gradient and in 50 % by occlusion (chance: 9 %; benchmarks/bench_insight.py, the embedded model).

Both are deterministic: no sampling, one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import UsageError
from mmindex.models.encoder import Encoder, Float32
from mmindex.models.openclip import OpenClipEncoder
from mmindex.models.preprocess import Pixels

if TYPE_CHECKING:
    import torch

Float64 = NDArray[np.float64]
Method = Literal["gradient", "occlusion"]

# Points on the path: with 32 the sum over all places is right to a few hundredths.
_STEPS: Final = 32
_STEP_BATCH: Final = 8  # a backward pass keeps every layer's features in memory
_CELLS: Final = 14  # of a map of a tower without patches
# A window covers a quarter of each side and moves by a third of itself: 10 x 10 windows.
_WINDOWS_A_SIDE: Final = 4
_STEPS_A_WINDOW: Final = 3
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model looked at.

    Attributes:
        score: cosine similarity of image and text.
        method: how the map was made.
        heat: float32 (rows, columns) over the model's view of the image, top row first; 0 where
            a place carries nothing, 1 where it carries most. All zero where no place speaks for
            the text.
    """

    score: float
    method: Method
    heat: Float32

    @property
    def peak(self) -> tuple[float, float] | None:
        """Where it carries most: x and y in the model's view, 0 to 1; None where nothing does."""
        if not self.heat.any():
            return None
        row, column = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        height, width = self.heat.shape
        return (float(column) + 0.5) / width, (float(row) + 0.5) / height

    def grid(self, most: int) -> Float32:
        """The map with at most ``most`` rows and columns, for printing: means of blocks."""
        height, width = self.heat.shape
        rows = np.array_split(np.arange(height), min(most, height))
        columns = np.array_split(np.arange(width), min(most, width))
        means = [[self.heat[np.ix_(r, c)].mean() for c in columns] for r in rows]
        return np.array(means, dtype=np.float32)


def explain(
    encoder: Encoder, pixels: Pixels, text: Float32, method: Method | None = None
) -> Explanation:
    """Map where an image matches a text.

    Args:
        encoder: the model.
        pixels: uint8 (height, width, 3), the image as the model sees it.
        text: float32 (dim,), the text's vector.
        method: None: ``gradient`` where the encoder gives gradients, else ``occlusion``.

    Raises:
        UsageError: ``gradient`` is asked of an encoder that has none.
    """
    if not isinstance(encoder, OpenClipEncoder):
        if method == "gradient":
            raise UsageError(
                f"the model {encoder.info.model!r} has no gradients on this device",
                "use `method=occlusion`",
            )
        return _occlusion(encoder, pixels, text)
    if method == "occlusion":
        return _occlusion(encoder, pixels, text)
    score = float(encoder.encode_images(pixels[None])[0] @ text)
    shares = attributions(encoder, pixels, text)
    return Explanation(score, "gradient", _scaled(np.maximum(_cells(shares, _grid(encoder)), 0)))


def _grid(encoder: OpenClipEncoder) -> tuple[int, int]:
    """Cells from top to bottom and from left to right: a transformer's own patches."""
    visual: Any = encoder.model.get_submodule("visual")
    # timm's towers stand inside open_clip's adapter.
    embedding = getattr(getattr(visual, "trunk", None), "patch_embed", None)
    patches = getattr(visual, "grid_size", None) or getattr(embedding, "grid_size", None)
    return (_CELLS, _CELLS) if patches is None else (int(patches[0]), int(patches[1]))


def attributions(encoder: OpenClipEncoder, pixels: Pixels, text: Float32) -> Float64:
    """Integrated gradients of the cosine similarity: float64 (height, width).

    Their sum is the image's score minus that of an image in the neutral colour, up to the
    error of the midpoint rule.
    """
    import torch

    model: Any = encoder.model
    picture = _normalised(encoder, pixels)  # the neutral colour is 0 here
    goal = torch.from_numpy(text).to(picture)
    total = torch.zeros_like(picture[0])
    # Squared: near the neutral image, where norms blow up faint patterns, steps must be small.
    times = ((torch.arange(_STEPS, device=picture.device) + 0.5) / _STEPS).view(-1, 1, 1, 1)
    for start in range(0, _STEPS, _STEP_BATCH):
        part = times[start : start + _STEP_BATCH]
        path = (part**2 * picture).requires_grad_()
        with torch.enable_grad():
            scores = torch.nn.functional.normalize(model.encode_image(path), dim=1) @ goal
            [slopes] = torch.autograd.grad(scores.sum(), path)
        total += (2 * part * slopes).sum(dim=0)
    shares: Float64 = (total / _STEPS * picture[0]).sum(dim=0).cpu().numpy().astype(np.float64)
    return shares


def _cells(shares: Float64, grid: tuple[int, int]) -> Float64:
    """Sums over the cells of a grid: float64 (rows, columns)."""
    rows, columns = min(grid[0], shares.shape[0]), min(grid[1], shares.shape[1])
    for axis, count in ((0, rows), (1, columns)):
        edges = np.arange(count) * shares.shape[axis] // count
        shares = np.add.reduceat(shares, edges, axis=axis)
    return shares


def _normalised(encoder: OpenClipEncoder, pixels: Pixels) -> torch.Tensor:
    """One image as the network takes it: float32 (1, 3, height, width) on its device."""
    import torch

    spec = encoder.preprocess
    values = (pixels / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    images = np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)
    return torch.from_numpy(images).to(encoder.device)


def _occlusion(encoder: Encoder, pixels: Pixels, text: Float32) -> Explanation:
    height, width = pixels.shape[:2]
    neutral = np.rint(np.array(encoder.preprocess.mean) * 255).astype(np.uint8)
    score = float(encoder.encode_images(pixels[None])[0] @ text)
    windows = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in _windows(height)
        for left, right in _windows(width)
    ]
    drops = np.zeros((height, width), dtype=np.float64)
    covered = np.zeros((height, width), dtype=np.int64)
    for start in range(0, len(windows), _BATCH):
        here = windows[start : start + _BATCH]
        hidden = np.repeat(pixels[None], len(here), axis=0)
        for number, window in enumerate(here):
            hidden[(number, *window)] = neutral
        left_over = encoder.encode_images(hidden) @ text
        for window, rest in zip(here, left_over.tolist(), strict=True):
            drops[window] += score - rest
            covered[window] += 1
    return Explanation(score, "occlusion", _scaled(np.maximum(drops / covered, 0)))


def _windows(side: int) -> Iterator[tuple[int, int]]:
    """Overlapping windows that together cover a side: (first pixel, one past the last)."""
    length = max(1, -(-side // _WINDOWS_A_SIDE))
    step = max(1, length // _STEPS_A_WINDOW)
    for start in range(0, max(1, side - length + step), step):
        yield min(start, side - length), min(start, side - length) + length


def _scaled(heat: NDArray[np.floating[Any]]) -> Float32:
    most = float(heat.max())
    scaled: Float32 = (heat / most if most > 0 else heat * 0).astype(np.float32)
    return scaled
