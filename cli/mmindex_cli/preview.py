"""Thumbnails in a terminal: kitty graphics, iTerm2 inline images, or sixel.

Protocols: https://sw.kovidgoyal.net/kitty/graphics-protocol/,
https://iterm2.com/documentation-images.html, https://vt100.net/docs/vt3xx-gp/chapter14.html
"""

from __future__ import annotations

import base64
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from mmindex.core.display import visible
from mmindex.core.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_PIXELS: Final = 192
_CHUNK: Final = 4096  # the longest chunk of base64 that kitty accepts
_COLOURS: Final = 64
_ANSWER_S: Final = 0.5


def image_drawer() -> Callable[[str], str]:
    """Return a function that draws the image with a uri as text for this terminal.

    Raises:
        UsageError: the output is not a terminal, or the terminal cannot show images.
    """
    encode = _protocol()
    if encode is None:
        raise UsageError(
            "--preview needs a terminal that can show images (kitty, iTerm2 or sixel)",
            "use --html FILE to write a page with thumbnails instead",
        )

    def draw(uri: str) -> str:
        from mmindex.pages.page import thumbnail

        found = thumbnail(uri, _PIXELS)
        return visible(found) if isinstance(found, str) else encode(found)

    return draw


def _protocol() -> Callable[[Image], str] | None:
    if not sys.stdout.isatty():
        return None
    program, term = os.environ.get("TERM_PROGRAM", ""), os.environ.get("TERM", "")
    if "KITTY_WINDOW_ID" in os.environ or term in {"xterm-kitty", "xterm-ghostty"}:
        return kitty
    if program in {"iTerm.app", "WezTerm"} or os.environ.get("LC_TERMINAL") == "iTerm2":
        return iterm2
    return sixel if _answers_sixel() else None


def _answers_sixel() -> bool:
    """Ask the terminal for its features (primary device attributes); 4 means sixel."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        return False
    import termios  # imported here, because Windows has neither
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    answer = b""
    try:
        tty.setcbreak(descriptor)
        sys.stdout.write("\x1b[c")
        sys.stdout.flush()
        while not answer.endswith(b"c") and select.select([descriptor], [], [], _ANSWER_S)[0]:
            answer += os.read(descriptor, 64)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    return b"4" in answer.removeprefix(b"\x1b[?").removesuffix(b"c").split(b";")


def kitty(image: Image) -> str:
    """Return an image in the kitty protocol: PNG in chunks of base64."""
    data = _encoded(image, "PNG")
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    first = "a=T,f=100,"
    return "".join(
        f"\x1b_G{first if number == 0 else ''}m={int(number < len(pieces) - 1)};{piece}\x1b\\"
        for number, piece in enumerate(pieces)
    )


def iterm2(image: Image) -> str:
    """Return an image in the iTerm2 protocol."""
    return f"\x1b]1337;File=inline=1:{_encoded(image, 'PNG')}\x07"


def sixel(image: Image) -> str:
    """Return an image as sixels: bands of six rows with each colour once per band."""
    import numpy as np

    few = image.quantize(_COLOURS)
    palette = few.getpalette() or []
    colours = [
        f"#{n};2;" + ";".join(str(round(value / 2.55)) for value in palette[3 * n : 3 * n + 3])
        for n in range(len(palette) // 3)
    ]
    pixels = np.asarray(few)
    pixels = np.pad(pixels, ((0, -len(pixels) % 6), (0, 0)), constant_values=255)
    bits = (1 << np.arange(6))[:, None]
    bands = []
    for top in range(0, len(pixels), 6):
        band = pixels[top : top + 6]
        lines = (
            f"#{n}" + "".join(_runs(((band == n) * bits).sum(axis=0).tolist()))
            for n in np.unique(band[band < 255]).tolist()
        )
        bands.append("$".join(lines))
    size = f'"1;1;{image.width};{image.height}'
    return f"\x1bP0;1q{size}{''.join(colours)}{'-'.join(bands)}\x1b\\"


def _runs(columns: list[int]) -> Iterator[str]:
    """Return columns of six pixels as characters, with run lengths."""
    start = 0
    for end in range(1, len(columns) + 1):
        if end == len(columns) or columns[end] != columns[start]:
            count, char = end - start, chr(63 + columns[start])
            yield f"!{count}{char}" if count > 3 else char * count
            start = end


def _encoded(image: Image, form: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
