"""Encoder for open_clip models."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmindex.core.errors import BusyError, DataError, InternalError, ModelMismatchError, first_lines
from mmindex.core.progress import get_logger
from mmindex.core.system import usable_cores
from mmindex.models.checkpoints import recognised, refuse_torchscript
from mmindex.models.devices import DeviceGroup, Placement
from mmindex.models.encoder import Encoder, Float32
from mmindex.models.fast_import import import_open_clip
from mmindex.models.files import ModelFiles, locate
from mmindex.models.fingerprint import UNTRAINED_SEED, describe
from mmindex.models.precision import compute_type, convert_weights
from mmindex.models.preprocess import Pixels, PreprocessSpec
from mmindex.models.quantize import quantize_linears
from mmindex.models.resolve import ModelRequest
from mmindex.models.sharded import as_one_file
from mmindex.models.tokenizer import Tokenizer, make_tokenizer, shorten
from mmindex.models.transfer import Transfer, transfer_to
from mmindex.models.trim import TextReader, TextTower, spans
from mmindex.store.manifest import EncoderInfo

if TYPE_CHECKING:
    import torch

_TEXT_BATCH = 256  # texts are short, so this number keeps a GPU busy
# This number of positions keeps a CPU busy. Texts of a small batch have similar lengths: with 2,048
# COCO captions sorted by length, almost no position is padding.
_CPU_TOKENS = 1_024
# The feature maps of the photos network are large; this batch stays in the processor's cache (one
# thread of an Intel Xeon: 25.6 images/s in batches of 4, 19.7 in batches of 32).
_CPU_IMAGES = 8


def load_encoder(request: ModelRequest, placement: Placement) -> Encoder:
    """Load the model of a request.

    Args:
        request: the model.
        placement: devices and precision; several devices have one worker process each.

    Raises:
        ModelMismatchError: the weights do not match the architecture.
        MmindexError: a file is missing or damaged, see :func:`mmindex.models.files.locate`.
    """
    files = locate(request)
    info = describe(request, files, placement.precision)
    log = get_logger("encode")
    if not info.trained:
        log.warning("UNTRAINED model: its answers are meaningless", model=request.name)
    make = partial(_load_on, info, files, placement.cores)
    if len(placement.devices) > 1:
        return DeviceGroup(info, files.preprocess, make, placement.devices)
    return make(device=placement.devices[0])


def _load_on(info: EncoderInfo, files: ModelFiles, cores: int | None, device: str) -> Encoder:
    import torch

    if device == "cpu":
        # One thread per core, and the same number of decode workers: measured on two cores with
        # ViT-B-32 and COCO photos, this reaches 96 % of the limit of model and decoding.
        torch.set_num_threads(cores or usable_cores())
    else:
        # Otherwise, page-locked memory would also take memory on the first GPU.
        torch.cuda.set_device(device)
    model, texts = _network(files)
    model.eval().requires_grad_(requires_grad=False)
    convert_weights(model, compute_type(info.precision))  # half the bytes to copy to the device
    model.to(torch.device(device))
    if info.precision == "int8":
        quantize_linears(model)
    return OpenClipEncoder(
        info=info,
        preprocess=files.preprocess,
        model=model,
        texts=texts,
        tokenize=make_tokenizer(files.tokenizer),
        device=device,
        _image_limit=_CPU_IMAGES if files.built_in and device == "cpu" else sys.maxsize,
    )


def _network(files: ModelFiles) -> tuple[torch.nn.Module, TextReader]:
    if files.adapted is not None:
        from mmindex.models.adapted_network import adapt_network

        parent, reader = _network(files.adapted.parent)
        return adapt_network(parent, reader, files.adapted.maps())
    if files.built_in and files.weights is not None:  # locate refuses a missing file
        from mmindex.models.photos import PhotosTexts, load_network

        with as_one_file(files.weights) as weights:
            network = load_network(files.config, weights)
        return network, PhotosTexts(network)
    model = build_network(files)
    return model, TextTower(model)


def build_network(files: ModelFiles, seed: int = UNTRAINED_SEED) -> torch.nn.Module:
    """Build the network in float32; without weights, it is initialised with ``seed``.

    Raises:
        DataError: the configuration or the weights are damaged.
        ModelMismatchError: the weights do not fit the architecture.
    """
    import_open_clip()
    import open_clip
    import torch

    with _quiet_root_logger(), torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            # Weights are loaded below, because create_model would choose them by its own rules and
            # use random ones if it finds none.
            model: torch.nn.Module = open_clip.create_model(
                files.base,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=bool(files.config.get("quick_gelu")),
            )
        except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
            raise DataError(f"{files.base}: the model cannot be created: {error}") from error
        if files.weights is not None:
            with as_one_file(files.weights) as weights:
                _load_weights(model, files, weights)
    return model


def _load_weights(model: torch.nn.Module, files: ModelFiles, weights: Path) -> None:
    import open_clip
    from safetensors import SafetensorError

    path = files.weights  # in messages: `weights` may be a temporary file
    refuse_torchscript(weights)
    try:
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        known = recognised(weights, error)
        raise known or DataError(f"weights {path}: damaged: {first_lines(error, 2)}") from error
    except (
        RuntimeError,
        AssertionError,
        KeyError,
        AttributeError,
        TypeError,
        StopIteration,
    ) as error:
        raise recognised(weights, error) or ModelMismatchError(
            f"weights {path} do not fit {files.base}: {first_lines(error, 2)}",
            "set `model` to the architecture that they were trained with",
        ) from error


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip from configuring the root logger on first use."""
    root, handler, was = logging.getLogger(), logging.NullHandler(), logging.getLogger().disabled
    root.addHandler(handler)
    # It also warns about random weights, although the real ones are loaded afterwards.
    root.disabled = True
    try:
        yield
    finally:
        root.disabled = was
        root.removeHandler(handler)


@dataclass(slots=True)
class OpenClipEncoder:
    """A torch model on one device; see :class:`mmindex.models.encoder.Encoder`."""

    info: EncoderInfo
    preprocess: PreprocessSpec
    model: torch.nn.Module
    texts: TextReader
    tokenize: Tokenizer
    device: str
    cut_texts: int = 0
    _image_limit: int = sys.maxsize
    _text_limit: int = _TEXT_BATCH
    _transfer: Transfer = field(init=False)
    _mean: torch.Tensor = field(init=False)
    _std: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        import torch

        self._transfer = transfer_to(self.device)
        # Copied once, because each copy of a small tensor would wait for the device.
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )

    def encode_images(self, pixels: Pixels) -> Float32:
        """Encode uint8 (b, height, width, 3) into float32 (b, dim), unit length.

        Raises:
            BusyError: the device has not enough memory for a single image.
        """
        return self.start_images(pixels)()

    def start_images(self, pixels: Pixels) -> Callable[[], Float32]:
        """Start as :meth:`encode_images`; the returned function waits for the vectors."""
        import torch

        height, width = self.preprocess.height, self.preprocess.width
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, 3):
            raise InternalError(
                f"pixels {pixels.dtype} {pixels.shape}: expected {height} x {width} x 3"
            )

        def run(part: slice) -> torch.Tensor:
            batch = self._transfer.send(torch.from_numpy(pixels[part]))
            # uint8 is sent to the device, a quarter of the size of float32. With channels first,
            # the bytes keep their order, which is torch's channels_last format at no cost.
            images = batch.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
            features: torch.Tensor = self._model.encode_image(
                images.sub_(self._mean).div_(self._std)
            )
            return features

        parts, self._image_limit = self._in_parts(run, len(pixels), self._image_limit)
        return partial(self._finish, parts)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts of any script into float32 (b, dim), unit length, in the order given.

        Texts of similar length share a batch, which is trimmed to their length.

        Raises:
            BusyError: the device has not enough memory for a single text.
        """
        if not texts:
            return np.empty((0, self.info.dim), dtype=np.float32)
        import torch

        tower = self.texts
        rows = self.tokenize(shorten(texts))
        self.cut_texts += self.tokenize.count_cut(texts, rows)
        tokens = torch.from_numpy(rows)
        lengths = tower.lengths(tokens)
        order = lengths.argsort(stable=True)
        few = self.device == "cpu" and tower.trims
        budget = _CPU_TOKENS if few else _TEXT_BATCH * tokens.shape[1]
        parts: list[Callable[[], torch.Tensor]] = []
        for span in spans(lengths[order].tolist(), budget):
            chosen = order[span]

            def run(part: slice, chosen: torch.Tensor = chosen) -> torch.Tensor:
                some = chosen[part]
                return tower.encode(self._transfer.send(tokens[some]), int(lengths[some].max()))

            done, self._text_limit = self._in_parts(run, len(chosen), self._text_limit)
            parts += done
        out = np.empty((len(texts), self.info.dim), dtype=np.float32)
        out[order.numpy()] = self._finish(parts)
        return out

    @property
    def logit_scale(self) -> float:
        """The learned factor for cosine similarities before a softmax."""
        return float(self._model.logit_scale.exp())

    def close(self) -> None:
        """Do nothing: memory is released with the object."""

    @property
    def _model(self) -> Any:
        return self.model  # torch's Module knows no encode_image

    def _in_parts(
        self, run: Callable[[slice], torch.Tensor], count: int, limit: int
    ) -> tuple[list[Callable[[], torch.Tensor]], int]:
        """Start ``count`` rows, at most ``limit`` at once; halve it if memory runs out.

        Returns:
            functions that wait for the results, and the new limit.
        """
        import torch

        parts: list[Callable[[], torch.Tensor]] = []
        start = 0
        kind = self.device.partition(":")[0]
        dtype = compute_type(self.info.precision)
        while start < count:
            stop = min(start + limit, count)
            try:
                with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype is not None):
                    features = run(slice(start, stop)).to(torch.float32)
            except RuntimeError as error:
                limit = self._smaller(stop - start, error)
                continue
            parts.append(self._transfer.fetch(features))
            start = stop
        return parts, limit

    def _smaller(self, rows: int, error: RuntimeError) -> int:
        import torch

        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)):
            raise error
        if rows == 1:
            raise BusyError(
                f"{self.device}: not enough memory for a batch of one",
                "free memory on the device, or use `device=cpu` or a smaller model",
            ) from error
        get_logger("encode").warning(
            "out of memory: batch halved", device=self.device, rows=rows, now=rows // 2
        )
        if self.device != "cpu":
            torch.cuda.empty_cache()
        return rows // 2

    def _finish(self, parts: Sequence[Callable[[], torch.Tensor]]) -> Float32:
        import torch

        features = torch.cat([wait() for wait in parts]) if parts else torch.empty(0, self.info.dim)
        if features.shape[1] != self.info.dim:
            raise InternalError(
                f"the model returns {features.shape[1]} dimensions, not {self.info.dim}"
            )
        # A zero row becomes NaN here intentionally; see the protocol.
        unit = features / features.norm(dim=1, keepdim=True)
        return np.ascontiguousarray(unit.numpy(), dtype=np.float32)
