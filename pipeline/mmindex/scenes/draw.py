"""Draw scenes."""

from functools import lru_cache
from io import BytesIO
from typing import Final

from PIL import Image, ImageDraw

from mmindex.scenes.backdrops import backdrop
from mmindex.scenes.scene import Scene, Thing
from mmindex.scenes.sky import falling
from mmindex.scenes.sprites import sprite
from mmindex.scenes.vocabulary import KINDS, Size

JPEG_QUALITY: Final = 88
_SHADE: Final = (22, 24, 44)


def draw(scene: Scene) -> Image.Image:
    """Return the image of `scene`, far things first: RGB, 224 x 224. Same scene, same pixels."""
    image = backdrop(scene.background, scene.time, scene.weather, scene.variant).copy()
    copies = [(thing.lane, spot.y, thing, spot) for thing in scene.things for spot in thing.spots]
    for _, _, thing, spot in sorted(copies, key=lambda copy: copy[:2]):
        _put(image, thing, spot.x, spot.y, spot.flip)
    veil = falling(scene.weather, scene.variant)
    if veil is not None:
        image.paste((238, 244, 252), (0, 0), veil)
    return image


def encode(image: Image.Image) -> bytes:
    """Encode an image as JPEG."""
    out = BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _put(canvas: Image.Image, thing: Thing, x: float, y: float, flip: bool) -> None:
    kind = KINDS[thing.kind]
    image = sprite(thing.kind, thing.colour, thing.size, flip)
    edge = image.width
    left = round(x - edge / 2)
    if thing.lane_type in ("sky", "water"):
        top = round(y - _middle(thing.kind, thing.size))
    else:
        top = round(y - edge + 1)
        wide = round(edge * kind.wide * 0.9)
        shadow = _shadow(wide)
        dark = (220, 240, 248) if thing.lane_type == "surface" else _SHADE
        canvas.paste(dark, (round(x - wide / 2), round(y - shadow.height * 0.62)), shadow)
    canvas.paste(image, (left, top), image)


@lru_cache(maxsize=256)
def _middle(kind: str, size: Size) -> float:
    """Return the distance in pixels from the sprite's upper edge to the middle of what is drawn."""
    box = sprite(kind, KINDS[kind].colours[0], size, False).getbbox()
    return (box[1] + box[3]) / 2 if box else 0.0


@lru_cache(maxsize=256)
def _shadow(wide: int) -> Image.Image:
    tall = max(4, wide // 8)
    mask = Image.new("L", (wide * 2, tall * 2), 0)
    ImageDraw.Draw(mask).ellipse((0, 0, wide * 2 - 1, tall * 2 - 1), 80)
    return mask.reduce(2)
