"""Explanations point at the object that the text names, at its place in the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmindex.core.errors import UsageError
from mmindex.insight.explain import Explanation, Method, _normalised, attributions, explain
from mmindex.insight.overlay import explain_image, overlay, seen_box, with_legend
from mmindex.models.devices import place
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.preprocess import spec_from_config, to_pixels
from mmindex.models.resolve import resolve_model
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import open_snapshot
from support.models import FakeEncoder, save_tiny_model, tiny_config
from support.stores import image_store

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
CELL = 8
STEPS = 200


def square(
    rng: np.random.Generator, colours: list[str]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return gray noise, 32 x 32, with one cell of a 4 x 4 grid in each colour, and these cells."""
    pixels = rng.integers(90, 150, (32, 32, 3)).astype(np.uint8)
    cells = [divmod(int(n), 4) for n in rng.choice(16, size=len(colours), replace=False)]
    for (row, column), colour in zip(cells, colours, strict=True):
        pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = COLOURS[colour]
    return pixels, cells


# The vectors of the texts "a red square" and so on, and "nothing": orthogonal unit vectors.
TEXTS = dict(zip([*COLOURS, ""], np.eye(4, 24, dtype=np.float32), strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenClipEncoder]:
    """A small vision transformer trained on red, green and blue squares, and on images without."""
    import open_clip

    threads = torch.get_num_threads()
    model = save_tiny_model(tmp_path_factory.mktemp("vit"))
    encoder = load_encoder(resolve_model(model.name, None), place("cpu"))
    assert isinstance(encoder, OpenClipEncoder)
    torch.set_num_threads(1)  # such a small network is slower on several cores
    torch.manual_seed(0)
    network = encoder.model
    fresh = open_clip.create_model(model.name, load_weights=False)
    network.load_state_dict(fresh.state_dict())
    network.requires_grad_(requires_grad=True)
    optimiser = torch.optim.Adam(network.visual.parameters(), 3e-3)
    goals, names = torch.from_numpy(np.stack(list(TEXTS.values()))), list(TEXTS)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        labels = rng.integers(4, size=32)
        drawn = [square(rng, [names[n]] if names[n] else [])[0] for n in labels]
        batch = torch.cat([_normalised(encoder, pixels) for pixels in drawn])
        images = torch.nn.functional.normalize(network.encode_image(batch), dim=1)
        loss = torch.nn.functional.cross_entropy(10 * images @ goals.T, torch.from_numpy(labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1
    network.requires_grad_(requires_grad=False)
    yield encoder
    torch.set_num_threads(threads)


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_the_map_points_at_what_the_text_names(trained: OpenClipEncoder, method: Method) -> None:
    """With two squares of different colours, the peak is on the one that the text names."""
    rng = np.random.default_rng(1)
    right = 0
    for _ in range(40):
        colours = rng.permutation(list(COLOURS))[:2].tolist()
        pixels, cells = square(rng, colours)
        found = explain(trained, pixels, TEXTS[colours[0]], method)
        assert found.method == method
        if found.peak is not None:
            right += (int(found.peak[1] * 4), int(found.peak[0] * 4)) == cells[0]
    assert right >= 34, right  # chance: 2.5


def test_the_same_query_gets_the_same_map(tiny_model) -> None:
    encoder = load_encoder(resolve_model(tiny_model.name, None), place("cpu"))
    pixels, _ = square(np.random.default_rng(3), ["red"])
    [text] = encoder.encode_texts(["a red dog"])
    for method in ("gradient", "occlusion"):
        first, second = (
            explain(encoder, pixels, text, method),
            explain(encoder, pixels, text, method),
        )
        assert first.heat.tobytes() == second.heat.tobytes()
        assert first.score == second.score
        assert (first.heat.min(), first.heat.max()) == (0.0, 1.0)


def test_the_patches_account_for_the_whole_score(trained: OpenClipEncoder) -> None:
    """Completeness: attributions add up to the score minus that of the neutral image."""
    rng = np.random.default_rng(4)
    with torch.no_grad():
        neutral = trained.model.encode_image(torch.zeros(1, 3, 32, 32))[0].numpy()
    neutral /= np.linalg.norm(neutral)
    for colour in COLOURS:
        pixels, _ = square(rng, [colour])
        score = trained.encode_images(pixels[None])[0] @ TEXTS[colour]
        total = attributions(trained, pixels, TEXTS[colour]).sum()
        assert total == pytest.approx(score - neutral @ TEXTS[colour], abs=0.08)


def test_towers_without_patches_are_explained_too(tmp_path: Path) -> None:
    """A ResNet, as in the embedded model, and an encoder without gradients."""
    config = tiny_config()
    config["model_cfg"]["vision_cfg"] = {
        "image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None,
    }  # fmt: skip
    model = save_tiny_model(tmp_path, config=config)
    encoder = load_encoder(resolve_model(model.name, None), place("cpu"))
    pixels, _ = square(np.random.default_rng(5), ["red"])
    [text] = encoder.encode_texts(["a red dog"])
    found = explain(encoder, pixels, text)
    assert (found.method, found.heat.shape) == ("gradient", (14, 14))
    found = explain(encoder, pixels, text, "occlusion")
    assert (found.method, found.heat.shape) == ("occlusion", (32, 32))
    small = np.zeros((8, 8, 3), dtype=np.uint8)
    assert explain(FakeEncoder(), small, np.ones(16, np.float32) / 4).method == "occlusion"
    with pytest.raises(UsageError, match="no gradients") as error:
        explain(FakeEncoder(), small, text, "gradient")
    assert "occlusion" in error.value.hint


def test_a_timm_transformer_is_explained_by_its_gradient(tmp_path: Path) -> None:
    config = tiny_config()
    config["model_cfg"]["vision_cfg"] = {
        "timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "token",
        "timm_proj": "linear", "image_size": 160,
    }  # fmt: skip
    model = save_tiny_model(tmp_path, config=config)
    encoder = load_encoder(resolve_model(model.name, None), place("cpu"))
    pixels = np.random.default_rng(6).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    [text] = encoder.encode_texts(["a red dog"])
    found = explain(encoder, pixels, text)
    assert found.method == "gradient"
    assert found.heat.shape == (10, 10)


def test_an_image_that_does_not_match_has_an_empty_map() -> None:
    """In a plain image in the model's neutral colour, hiding any part changes nothing."""
    encoder = FakeEncoder()
    neutral = tuple(round(value * 255) for value in encoder.preprocess.mean)
    pixels = np.full((8, 8, 3), neutral, dtype=np.uint8)
    found = explain(encoder, pixels, encoder.encode_texts(["red"])[0])
    assert found.peak is None or found.heat.max() == 1.0
    flat = replace(found, heat=np.zeros((2, 3), dtype=np.float32))
    assert flat.peak is None


def test_the_peak_is_given_in_shares_of_the_view() -> None:
    heat = np.zeros((2, 4), dtype=np.float32)
    heat[1, 3] = 1
    found = explain(FakeEncoder(), np.zeros((8, 8, 3), np.uint8), np.ones(16, np.float32) / 4)
    assert replace(found, heat=heat).peak == (0.875, 0.75)
    assert replace(found, heat=heat).grid(1).tolist() == [[0.125]]


@pytest.mark.parametrize(
    ("mode", "size", "box"),
    [
        ("shortest", (400, 200), (100, 0, 300, 200)),
        ("shortest", (200, 400), (0, 100, 200, 300)),
        ("longest", (400, 200), (0, -100, 400, 300)),
        ("squash", (400, 200), (0, 0, 400, 200)),
    ],
)
def test_the_seen_part_of_an_image_follows_the_preprocessing(mode, size, box) -> None:
    spec = spec_from_config(32, {"resize_mode": mode, "fill_color": 0})
    assert seen_box(size, spec) == box
    # A mark in the model's view is at the same place in the image.
    image = Image.new("RGB", size, "black")
    left, top, right, bottom = (max(0, edge) for edge in box)
    x, y = left + (min(right, size[0]) - left) // 4, top + (min(bottom, size[1]) - top) // 4
    image.paste("white", (int(x) - 12, int(y) - 12, int(x) + 12, int(y) + 12))
    view = to_pixels(image, spec).mean(axis=2)
    row, column = np.unravel_index(int(view.argmax()), view.shape)
    shown = (
        box[0] + (column + 0.5) / 32 * (box[2] - box[0]),
        box[1] + (row + 0.5) / 32 * (box[3] - box[1]),
    )
    assert shown == pytest.approx((x, y), abs=20)


def test_strong_points_are_bright_and_cropped_parts_are_dark() -> None:
    spec = spec_from_config(32, {})
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 1.0
    gray = Image.new("RGB", (400, 200), (128, 128, 128))
    shown = np.asarray(overlay(gray, heat, spec)).astype(int)
    assert shown.shape == (200, 400, 3)
    hot, cold, cropped = shown[10, 110], shown[150, 250], shown[100, 20]
    assert hot.sum() > cold.sum() + 60
    assert cold.tolist() == [128, 128, 128]
    assert cropped.max() < 60


def test_large_images_are_reduced_and_small_ones_unchanged() -> None:
    spec = spec_from_config(32, {})
    heat = np.ones((4, 4), dtype=np.float32)
    assert overlay(Image.new("RGB", (4000, 2000)), heat, spec).size == (1024, 512)
    assert overlay(Image.new("RGB", (3, 900)), heat, spec).size == (3, 900)


@pytest.mark.parametrize(
    "text", ["red", "$x_1$ %s", "一只猫" * 400, "e" + "\u0301" * 40, "\x1b[2J"]
)
def test_a_legend_below_the_image_shows_any_text(text: str) -> None:
    found = Explanation(0.25, "gradient", np.ones((4, 4), dtype=np.float32))
    shown = Image.new("RGB", (500, 300), "red")
    page = with_legend(shown, text, found)
    assert page.size[0] == 500
    assert page.crop((0, 0, 500, 300)).tobytes() == shown.tobytes()
    legend = page.crop((0, 300, 500, page.height))
    assert len(legend.getcolors(1 << 20) or []) > 50
    edge = np.asarray(legend)[:, -5:]
    assert (edge == 255).all()  # the text ends before the edge
    assert with_legend(Image.new("RGB", (3, 900)), text, found).width > 300


def test_an_overlay_is_a_png_of_the_upright_image(tmp_path: Path) -> None:
    upright = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    exif[0x010E] = "SECRET"
    upright.save(tmp_path / "turned.jpg", exif=exif)
    image_store(tmp_path / "s", {"a": tmp_path / "turned.jpg"}, [], FakeEncoder())
    vectorizer = Vectorizer(open_snapshot(tmp_path / "s"), FakeEncoder)
    for name in ("a", str(tmp_path / "turned.jpg")):
        explain_image(vectorizer, name, "red", tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as out:
            assert out.format == "PNG"
            width, height = out.size
            left = (width - 20) // 2
            assert height > 40
            red = np.asarray(out.convert("RGB"))[:40, left : left + 20]
            assert (red[..., 0] > red[..., 1]).all()  # upright, whole, above the legend
        assert b"SECRET" not in (tmp_path / "out.png").read_bytes()
