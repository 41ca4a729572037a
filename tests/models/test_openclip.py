"""The real open_clip model: parity, precision, memory, several devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from mmindex.core.errors import BusyError, InternalError
from mmindex.core.progress import Event
from mmindex.models.devices import DeviceGroup, Placement
from mmindex.models.encoder import good_rows
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.preprocess import Pixels, to_pixels
from mmindex.models.resolve import resolve_model
from support.images import draw
from support.loading import TEXTS, cosines, load, unit
from support.models import DIM, TinyModel


def pixels_of(encoder: OpenClipEncoder, count: int) -> Pixels:
    return np.stack([to_pixels(draw(number), encoder.preprocess) for number in range(count)])


def test_image_vectors_are_open_clips(tiny_model: TinyModel, encoder: OpenClipEncoder) -> None:
    """They equal those of open_clip's own preprocessing and model, loaded from the same file."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(tiny_model.name)
    model.eval()
    images = [draw(number, (640 - number, 480)) for number in range(6)]
    with torch.inference_mode():
        expected = unit(model.encode_image(torch.stack([transform(image) for image in images])))
    pixels = np.stack([to_pixels(image, encoder.preprocess) for image in images])
    actual = encoder.encode_images(pixels)
    assert actual.shape == (6, DIM)
    assert actual.dtype == np.float32
    assert cosines(actual, expected).min() > 0.999999
    assert good_rows(actual).all()
    assert cosines(actual[:1], actual[1:2]).max() < 0.999  # the images must differ


def test_text_vectors_are_open_clips_in_the_order_given(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(tiny_model.name)
    model.eval()
    tokenizer = open_clip.SimpleTokenizer(
        bpe_path=str(tiny_model.folder / "merges.txt.gz"), context_length=24
    )
    texts = TEXTS[:-1]
    with torch.inference_mode():
        expected = unit(model.encode_text(tokenizer(texts)))
    assert cosines(encoder.encode_texts(texts), expected).min() > 0.99999
    assert encoder.encode_texts([]).shape == (0, DIM)


def test_texts_longer_than_the_context_are_counted(tiny_model: TinyModel) -> None:
    encoder = load(tiny_model.name)
    encoder.encode_texts(["the red dog", "red " * 200, "", "x" * 100_000])
    assert encoder.cut_texts == 2
    encoder.encode_texts(["red " * 200])
    assert encoder.cut_texts == 3


def test_bfloat16_gives_nearly_the_same_vectors(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    coarse = load(tiny_model.name, precision="bf16")
    pixels = pixels_of(encoder, 4)
    assert cosines(coarse.encode_images(pixels), encoder.encode_images(pixels)).min() > 0.99
    assert cosines(coarse.encode_texts(TEXTS), encoder.encode_texts(TEXTS)).min() > 0.99


def test_if_memory_runs_out_the_batch_is_halved_permanently(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load(tiny_model.name)
    expected = encoder.encode_images(pixels_of(encoder, 11))
    sizes: list[int] = []
    original = type(encoder.model).encode_image

    def scarce(self: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        features: torch.Tensor = original(self, images)
        return features

    monkeypatch.setattr(type(encoder.model), "encode_image", scarce)
    actual = encoder.encode_images(pixels_of(encoder, 11))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    events = [record.msg for record in caplog.records if isinstance(record.msg, Event)]
    assert [event.values["now"] for event in events] == [5, 2]
    sizes.clear()
    encoder.encode_images(pixels_of(encoder, 4))
    assert sizes == [2, 2]


def test_no_memory_for_even_one_is_an_error_with_advice(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(tiny_model.name)

    def none_left(_self: torch.nn.Module, _images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(encoder.model), "encode_image", none_left)
    with pytest.raises(BusyError) as caught:
        encoder.encode_images(pixels_of(encoder, 4))
    assert "`device=cpu`" in caught.value.hint


def test_other_errors_of_the_model_are_not_treated_as_lack_of_memory(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(tiny_model.name)

    def broken(_self: torch.nn.Module, _images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(encoder.model), "encode_image", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode_images(pixels_of(encoder, 2))


@dataclass(slots=True)
class Queue:
    """A device that computes only when it is waited for, in order, and counts what is copied."""

    events: list[str] = field(default_factory=list)

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        self.events.append(f"send {len(tensor)}")
        return tensor.clone()

    def fetch(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        def wait() -> torch.Tensor:
            self.events.append(f"wait {len(tensor)}")
            return tensor

        return wait


def test_batches_are_started_before_any_is_waited_for(tiny_model: TinyModel) -> None:
    """On a GPU, the next batch is copied while the previous one is computed."""
    encoder = load(tiny_model.name)
    pixels = pixels_of(encoder, 7)
    expected = encoder.encode_images(pixels[:4]), encoder.encode_images(pixels[4:])
    encoder._transfer = queue = Queue()
    encoder._image_limit = 2
    buffer = pixels[:4].copy()
    first = encoder.start_images(buffer)
    buffer[:] = 0  # it may be filled again at once
    second = encoder.start_images(pixels[4:])
    assert queue.events == ["send 2", "send 2", "send 2", "send 1"]
    np.testing.assert_allclose(first(), expected[0], atol=1e-5)
    np.testing.assert_allclose(second(), expected[1], atol=1e-5)
    assert queue.events[4:] == ["wait 2", "wait 2", "wait 2", "wait 1"]
    queue.events.clear()
    encoder.encode_texts(["one", "two two", "three three three"])
    assert [event.split()[0] for event in queue.events] == ["send", "wait"]


def test_pixels_of_another_size_are_refused(encoder: OpenClipEncoder) -> None:
    with pytest.raises(InternalError):
        encoder.encode_images(np.zeros((1, 8, 8, 3), dtype=np.uint8))


def test_a_group_of_devices_gives_the_vectors_of_one(
    tiny_model: TinyModel, encoder: OpenClipEncoder
) -> None:
    request = resolve_model(tiny_model.name, None)
    group = load_encoder(request, Placement(("cpu", "cpu"), "fp32"))
    assert isinstance(group, DeviceGroup)
    try:
        assert group.info == encoder.info
        pixels = pixels_of(encoder, 5)
        np.testing.assert_allclose(
            group.encode_images(pixels), encoder.encode_images(pixels), atol=1e-5
        )
        np.testing.assert_allclose(
            group.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=1e-5
        )
        assert group.encode_texts(["one"]).shape == (1, DIM)
    finally:
        group.close()


def test_an_image_of_one_colour_is_encoded_like_any_other(encoder: OpenClipEncoder) -> None:
    flat = to_pixels(Image.new("RGB", (50, 50)), encoder.preprocess)
    assert good_rows(encoder.encode_images(flat[None])).all()
