"""Which parts of a picture carry its match with a text?

**Gradient** (vision transformers): the last layer where patches are still apart is taken, and each
patch ``p`` with features ``a_p`` gets ``max(0, <d cos / d a_p, a_p>)``: by how much the cosine
similarity grows, to first order, because of that patch. That is Grad-CAM (R. R. Selvaraju et al.,
ICCV 2017) patch by patch. The features are taken behind a layer norm: in front of one, gradient and
features are orthogonal (scaling its input changes nothing) and the map would be noise.

**Occlusion** (every other tower): a window in the model's neutral colour slides over the picture;
each place gets the mean drop of the cosine similarity over all windows that cover it (M. D. Zeiler
and R. Fergus, ECCV 2014).

Both are deterministic: no sampling, one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mmindex.encode.encoder import Encoder, Float32
from mmindex.encode.openclip import OpenClipEncoder
from mmindex.encode.preprocess import Pixels
from mmindex.errors import UsageError

if TYPE_CHECKING:
    import torch

Method = Literal["gradient", "occlusion"]

# A window covers a sixth of each side and moves by half of itself: 11 x 11 windows.
_WINDOWS_A_SIDE: Final = 6
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model looked at.

    Attributes:
        score: cosine similarity of picture and text.
        method: how the map was made.
        heat: float32 (rows, columns) over the model's view of the picture, top row first; 0 where
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


@dataclass(frozen=True, slots=True)
class _Tap:
    """The layer whose output holds one vector for each patch.

    Attributes:
        module: the layer; its output is (1, prefix + patches, width).
        prefix: tokens before the patches.
        grid: patches from top to bottom, and from left to right.
    """

    module: torch.nn.Module
    prefix: int
    grid: tuple[int, int]


def explain(
    encoder: Encoder, pixels: Pixels, text: Float32, method: Method | None = None
) -> Explanation:
    """Map where a picture matches a text.

    Args:
        encoder: the model.
        pixels: uint8 (height, width, 3), the picture as the model sees it.
        text: float32 (dim,), the text's vector.
        method: None: ``gradient`` where the tower allows it, else ``occlusion``.

    Raises:
        UsageError: ``gradient`` is asked of a tower that does not allow it.
    """
    tap = _find_tap(encoder)
    if tap is None and method == "gradient":
        raise UsageError(
            f"the vision tower of {encoder.info.model!r} keeps no patches apart to the end",
            "use --method occlusion, which works for every model",
        )
    if tap is None or method == "occlusion" or not isinstance(encoder, OpenClipEncoder):
        return _occlusion(encoder, pixels, text)
    return _gradient(encoder, tap, pixels, text)


def _find_tap(encoder: Encoder) -> _Tap | None:
    """Where the gradient is taken; None for towers that are not such transformers."""
    if not isinstance(encoder, OpenClipEncoder):
        return None
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    visual: Any = encoder.model.get_submodule("visual")
    if isinstance(visual, VisionTransformer):
        return _open_clip_tap(visual)
    if isinstance(visual, TimmModel):
        return _timm_tap(visual.trunk)
    return None


def _open_clip_tap(visual: Any) -> _Tap | None:
    if visual.attn_pool is not None:
        return None
    if visual.pool_type == "tok":
        # Patches reach the class token through the last block's attention, behind this norm.
        return _Tap(visual.transformer.resblocks[-1].ln_1, 1, tuple(visual.grid_size))
    if visual.pool_type == "avg" and not visual.final_ln_after_pool:
        return _Tap(visual.ln_post, 1, tuple(visual.grid_size))
    return None


def _timm_tap(trunk: Any) -> _Tap | None:
    from timm.models import vision_transformer
    from torch import nn

    plain: Any = vision_transformer.VisionTransformer
    # The exact type: a subclass may pool in a way of its own.
    if type(trunk) is not plain:
        return None
    prefix, grid = int(trunk.num_prefix_tokens), tuple(trunk.patch_embed.grid_size)
    if trunk.attn_pool is None and trunk.global_pool == "token":
        return _Tap(trunk.blocks[-1].norm1, prefix, grid)
    # Average and attention pooling read all patches behind the final norm, where there is one.
    return None if isinstance(trunk.norm, nn.Identity) else _Tap(trunk.norm, prefix, grid)


def _gradient(encoder: OpenClipEncoder, tap: _Tap, pixels: Pixels, text: Float32) -> Explanation:
    import torch

    features: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        # Nothing before this layer needs a gradient, so none is computed there.
        features.append(output.detach().requires_grad_())
        return features[-1]

    handle = tap.module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            model: Any = encoder.model
            features_of_all = model.encode_image(_normalised(encoder, pixels))
            vector = torch.nn.functional.normalize(features_of_all, dim=1)[0]
            score = vector @ torch.from_numpy(text).to(vector)
            [slope] = torch.autograd.grad(score, features)
    finally:
        handle.remove()
    shares = (slope * features[0].detach()).sum(dim=2)[0, tap.prefix :]
    heat = shares.clamp(min=0).float().cpu().numpy().reshape(tap.grid)
    return Explanation(float(score.detach()), "gradient", _scaled(heat))


def _normalised(encoder: OpenClipEncoder, pixels: Pixels) -> torch.Tensor:
    """One picture as the network takes it: float32 (1, 3, height, width) on its device."""
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
    """Half-overlapping windows that together cover a side: (first pixel, one past the last)."""
    length = max(1, -(-side // _WINDOWS_A_SIDE))
    step = max(1, length // 2)
    for start in range(0, max(1, side - length + step), step):
        yield min(start, side - length), min(start, side - length) + length


def _scaled(heat: NDArray[np.floating[Any]]) -> Float32:
    most = float(heat.max())
    scaled: Float32 = (heat / most if most > 0 else heat * 0).astype(np.float32)
    return scaled
