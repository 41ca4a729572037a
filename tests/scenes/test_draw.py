"""Images of scenes: the same each time, with every object visible."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmindex.scenes import Scene, Spot, Thing, draw, encode, make_scene
from mmindex.scenes.sprites import PAINTERS, sprite
from mmindex.scenes.vocabulary import COLOURS, KINDS, SIZE_PX, SIZES

HASH_OF_FIVE = (
    "import hashlib; from mmindex.scenes import draw, encode, make_scene;"
    "print(hashlib.sha256(b''.join(encode(draw(make_scene(8, n))) for n in range(5))).hexdigest())"
)


def test_an_image_is_224_pixels_square_and_readable_as_jpeg() -> None:
    image = draw(make_scene(6, 0))
    assert (image.size, image.mode) == ((SIZE_PX, SIZE_PX), "RGB")
    again = Image.open(io.BytesIO(encode(image)))
    assert (again.size, again.mode, again.format) == ((SIZE_PX, SIZE_PX), "RGB", "JPEG")


def test_other_processes_draw_the_same_bytes_whatever_their_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", HASH_OF_FIVE],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_earlier_drawings_do_not_change_an_image() -> None:
    first = draw(make_scene(6, 3)).tobytes()
    for number in range(40):
        draw(make_scene(6, number))
    assert draw(make_scene(6, 3)).tobytes() == first


def test_every_kind_is_drawn_within_the_extent_that_the_layout_counts_on() -> None:
    assert set(PAINTERS) == set(KINDS)
    for kind in KINDS.values():
        image = sprite(kind.name, kind.colours[0], "large", False)
        edge = kind.span * SIZES["large"]
        box = image.getchannel("A").getbbox()
        assert box is not None
        for drawn, counted in ((box[2] - box[0], kind.wide), (box[3] - box[1], kind.tall)):
            assert 0.82 * counted <= (drawn - 2) / edge <= counted + 0.06  # 2: the outline


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_has_much_of_its_colour(kind: str) -> None:
    """At least a tenth of an object has its colour or a shade of it; a snowman is mostly snow."""
    for colour in KINDS[kind].colours:
        pixels = np.asarray(sprite(kind, colour, "large", False)).reshape(-1, 4)
        solid = pixels[pixels[:, 3] == 255][:, :3].astype(int)
        distance = np.abs(solid - np.array(COLOURS[colour])).max(axis=1)
        assert (distance < 70).mean() > 0.1


def test_images_of_one_place_with_different_things_differ_where_the_things_are() -> None:
    spot = (Spot(112, 150, False),)
    cat = Scene(
        1, 0, "snow", "day", "clear", 0, (Thing("cat", "black", "medium", 1, "ground", spot),)
    )
    none = Scene(1, 0, "snow", "day", "clear", 0, ())
    change = np.abs(np.asarray(draw(cat)).astype(int) - np.asarray(draw(none)).astype(int)).max(
        axis=2
    )
    rows, columns = np.nonzero(change > 40)
    assert 80 < rows.min() < rows.max() < 158
    assert 80 < columns.min() < columns.max() < 145
