"""The network of the embedded model for photographs, in plain torch.

An EfficientNet-Lite (M. Tan and Q. Le, ICML 2019; the Lite variants leave out
squeeze-and-excitation and use ReLU6) encodes images, a BERT encoder with the size of MiniLM (W.
Wang et al., NeurIPS 2020) encodes texts, and a small head on each side maps to a common space. It
is implemented here because importing timm and transformers takes longer than loading torch; tests
compare it with both.

Batch normalisation is folded into the convolutions when the weights are exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 # the usual name

from mmindex.core.errors import DataError, ModelMismatchError, first_lines
from mmindex.models.packing import PackedEmbedding, unpacked

_BERT_EPSILON: Final = 1e-12
# Keeps the gradient of the square root finite if a feature is zero.
_ROOT_OFFSET: Final = 0.01


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width.

    Attributes:
        expand: the expansion factor of a block.
        kernel: the kernel size of the depthwise convolution.
        stride: the stride of the first block.
        width: the number of output channels.
        repeat: number of blocks.
    """

    expand: int
    kernel: int
    stride: int
    width: int
    repeat: int


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: one more pixel at the end.

    Images have the layout (b, h, w, channels), so that 1 x 1 convolutions are linear layers: torch
    is slower with other operations for small batches.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (b, h, w, inputs) into (b, ceil(h / stride), ceil(w / stride), outputs)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, across = (_padding(side, kernel, stride) for side in images.shape[1:3])
        # A zero in front of an odd kernel makes the padding equal on both sides: the same result,
        # but several times faster than a padded copy of the images.
        weight = F.pad(self.weight, (across % 2, 0, down % 2, 0))
        padding = ((down + 1) // 2, (across + 1) // 2)
        channels_first = images.permute(0, 3, 1, 2)
        out = F.conv2d(channels_first, weight, self.bias, stride, padding, groups=self.groups)
        return out.permute(0, 2, 3, 1)


def _padding(side: int, kernel: int, stride: int) -> int:
    return max((-(-side // stride) - 1) * stride + kernel - side, 0)


class _Block(nn.Module):
    """Expand, filter each channel separately, project; the input is added if the shapes match."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = inputs * stage.expand
        self.expand = nn.Linear(inputs, inside) if stage.expand > 1 else None
        self.depthwise = _Convolution(inside, inside, stage.kernel, stride, inside)
        self.project = nn.Linear(inside, stage.width)
        self.adds = stride == 1 and inputs == stage.width

    def forward(self, images: Tensor) -> Tensor:
        wide = images if self.expand is None else F.relu6(self.expand(images), inplace=True)
        inner: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        if self.adds:
            inner += images
        return inner


class ImageTower(nn.Module):
    """An EfficientNet-Lite up to its pooled features."""

    def __init__(self, stem: int, stages: list[Stage], features: int) -> None:
        super().__init__()
        self.stem = _Convolution(3, stem, 3, 2, 1)
        blocks: list[nn.Module] = []
        width = stem
        for stage in stages:
            for number in range(stage.repeat):
                blocks.append(_Block(width, stage, 1 if number else stage.stride))
                width = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, features)

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images (b, 3, h, w) as pooled features (b, features)."""
        inner = F.relu6(self.stem(images.permute(0, 2, 3, 1)), inplace=True)
        return F.relu6(self.head(self.blocks(inner)), inplace=True).mean(dim=(1, 2))


class _Layer(nn.Module):
    """A layer of BERT: attention, then a feed-forward network, each followed by normalisation."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, _BERT_EPSILON)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, _BERT_EPSILON)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        parts = self.attend(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen = seen.transpose(1, 2).reshape(batch, length, width)
        tokens = self.attended_norm(tokens + self.attended(seen))
        normed: Tensor = self.norm(tokens + self.narrow(F.gelu(self.widen(tokens))))
        return normed


class TextTower(nn.Module):
    """A BERT encoder with the mean over the tokens of a text."""

    def __init__(
        self, pieces: int, context: int, width: int, heads: int, layers: int, inner: int
    ) -> None:
        super().__init__()
        self.words = PackedEmbedding(pieces, width)
        self.places = nn.Parameter(torch.empty(context, width))
        self.norm = nn.LayerNorm(width, _BERT_EPSILON)
        self.layers = nn.ModuleList(_Layer(width, heads, inner) for _ in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode tokens, int64 (b, length) with 0 as padding, as means (b, width)."""
        real = tokens != 0
        inner: Tensor = self.norm(self.words(tokens) + self.places[: tokens.shape[1]])
        mask = real[:, None, None, :]
        for layer in self.layers:
            inner = layer(inner, mask)
        weights = real.unsqueeze(-1).to(inner.dtype)
        return (inner * weights).sum(dim=1) / weights.sum(dim=1)


class PhotosNetwork(nn.Module):
    """Both towers and their heads.

    Attributes:
        logit_scale: the logarithm of the factor for cosine similarities before a softmax.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        vision, text, dim = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
        stages = [Stage(**stage) for stage in vision["stages"]]
        self.visual = ImageTower(vision["stem"], stages, vision["features"])
        self.text = TextTower(
            text["vocab_size"],
            text["context_length"],
            text["width"],
            text["heads"],
            text["layers"],
            text["inner"],
        )
        self.image_head = nn.Linear(vision["features"], dim)
        self.text_head = nn.Linear(text["width"], dim)
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode normalised images (b, 3, h, w) as vectors (b, dim), not of unit length."""
        vectors: Tensor = self.image_head(spread(self.visual(images)))
        return vectors

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode tokens, int64 (b, length) with 0 as padding, as vectors (b, dim)."""
        vectors: Tensor = self.text_head(self.text(tokens))
        return vectors


def spread(features: Tensor) -> Tensor:
    """Return the square root of pooled features, which contain few large and many small numbers.

    This is common for histograms (R. Arandjelović and A. Zisserman, Three things everyone should
    know to improve object retrieval, CVPR 2012).
    """
    return (features + _ROOT_OFFSET).sqrt()


@dataclass(frozen=True, slots=True)
class PhotosTexts:
    """The text side of this network; see :class:`mmindex.models.trim.TextReader`.

    Attributes:
        model: the network.
        trims: whether a batch is trimmed to its longest text.
    """

    model: PhotosNetwork
    trims: bool = True

    def lengths(self, tokens: Tensor) -> Tensor:
        """Return the number of positions that each text in int64 (b, c) needs: int64 (b,)."""
        return (tokens != 0).sum(dim=1)

    def encode(self, tokens: Tensor, length: int) -> Tensor:
        """Encode int64 (b, c) up to ``length`` as vectors (b, dim)."""
        return self.model.encode_text(tokens[:, :length])


def load_network(config: dict[str, Any], weights: Path) -> PhotosNetwork:
    """Build the network of a configuration and load a safetensors file.

    Args:
        config: ``model_cfg`` in the folder of the model.
        weights: float32 and float16 unchanged; int8 with a scale per row.

    Raises:
        DataError: the configuration or the file is damaged.
        ModelMismatchError: the weights do not match the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # On the meta device, because drawing random weights would take longer than reading these.
        with torch.device("meta"):
            network = PhotosNetwork(config)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"model_cfg does not describe this network: {error!r}") from error
    try:
        stored = load_file(weights)
    except SafetensorError as error:
        raise DataError(f"weights {weights}: damaged: {first_lines(error, 2)}") from error
    try:
        network.load_state_dict(unpacked(stored), assign=True)
    except RuntimeError as error:
        raise ModelMismatchError(
            f"weights {weights} do not fit their configuration: {first_lines(error, 2)}",
            "use the configuration file that belongs to the weights",
        ) from error
    network.visual.to(memory_format=torch.channels_last)
    return network
