"""Things as small images with transparency, drawn once for each kind, colour and size."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from PIL import Image, ImageChops, ImageFilter

from mmindex.scenes import draw_animals, draw_sky, draw_things, draw_water
from mmindex.scenes.pen import INK, OVERSIZE, Paint, Pen, paint_of
from mmindex.scenes.vocabulary import KINDS, SIZES, Size

PAINTERS: Final[dict[str, Callable[[Pen, Paint], None]]] = {
    **draw_sky.PAINTERS,
    **draw_animals.PAINTERS,
    **draw_things.PAINTERS,
    **draw_water.PAINTERS,
}
_OUTLINE: Final = 215  # opacity of the ink around a thing, which distinguishes white from snow

_PALE_INK: Final = (128, 128, 142)  # around black things, which would be invisible at night


@lru_cache(maxsize=3000)  # about 900 drawings, each also mirrored, of about 25 KB
def sprite(kind: str, colour: str, size: Size, flip: bool) -> Image.Image:
    """Return the thing in RGBA, `edge` pixels square plus a pixel on each side for its outline."""
    if flip:
        return sprite(kind, colour, size, False).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    edge = round(KINDS[kind].span * SIZES[size])
    pen = Pen(edge * OVERSIZE)
    PAINTERS[kind](pen, paint_of(colour))
    small = pen.image.reduce(OVERSIZE)
    body = Image.new("RGBA", (edge + 2, edge + 2), (*INK, 0))
    body.paste(small, (1, 1))
    alpha = body.getchannel("A")
    around = alpha.filter(ImageFilter.MaxFilter(3)).point(lambda value: value * _OUTLINE // 255)
    ink = _PALE_INK if colour == "black" else INK
    outlined = Image.merge("RGBA", (*(Image.new("L", body.size, v) for v in ink), around))
    outlined.paste(body, (0, 0), alpha)
    outlined.putalpha(ImageChops.lighter(around, alpha))
    return outlined
