"""Videos that show the time: each second has its own colour."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import av
from PIL import Image

Colour = tuple[int, int, int]


def colour_of(second: int) -> Colour:
    """Return the colour of a video in a second."""
    return (40 + second * 53 % 200, 40 + second * 97 % 200, 40 + second * 29 % 200)


def is_second(image: Image.Image, second: int) -> bool:
    """Return whether an image is from that second, allowing for compression."""
    found = image.getpixel((image.width // 2, image.height // 2))
    return all(abs(a - b) < 16 for a, b in zip(found, colour_of(second), strict=True))


def dies_or_hangs(path: str, _: object) -> None:
    """Limit what a hostile video can do to the process that opens it."""
    if path == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def write_video(
    path: Path,
    seconds: float = 6,
    *,
    size: tuple[int, int] = (96, 64),
    codec: str = "mpeg4",
    tags: dict[str, str] | None = None,
    gop: int = 40,
) -> Path:
    """Write a video with 20 images per second; every ``gop``-th is a key frame."""
    options = {"movflags": "use_metadata_tags"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=20)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size, stream.bit_rate = "yuv420p", gop, 2_000_000
        for number in range(int(seconds * 20)):
            image = Image.new("RGB", size, colour_of(number // 20))
            for packet in stream.encode(av.VideoFrame.from_image(image)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
