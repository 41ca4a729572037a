"""Damage the bytes of a file in different ways."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

Damage = Callable[[bytes, random.Random], bytes]


def one_bit(data: bytes, dice: random.Random) -> bytes:
    """Flip one bit."""
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def longer(data: bytes, dice: random.Random) -> bytes:
    return data + dice.randbytes(dice.randint(1, 4_096))


def zeroed(data: bytes, dice: random.Random) -> bytes:
    """Zero one sector, as if it had never been written."""
    place = dice.randrange(0, max(1, len(data) - 512), 512)
    return data[:place] + bytes(len(data[place : place + 512])) + data[place + 512 :]


def garbage(data: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(len(data))


def turned_round(data: bytes, dice: random.Random) -> bytes:
    """Swap two pieces of the file."""
    size = max(1, len(data) // 8)
    first, second = sorted(dice.sample(range(len(data) // size), 2))
    one, other = (data[n * size : (n + 1) * size] for n in (first, second))
    between = data[(first + 1) * size : second * size]
    return data[: first * size] + other + between + one + data[(second + 1) * size :]


def short_and_padded(data: bytes, dice: random.Random) -> bytes:
    """Keep the size but zero the end, as after a crash with delayed allocation."""
    kept = dice.randrange(len(data))
    return data[:kept] + bytes(len(data) - kept)


DAMAGES: Final[dict[str, Damage]] = {
    function.__name__: function
    for function in (one_bit, cut, longer, zeroed, garbage, turned_round, short_and_padded)
}


def damaged(data: bytes, how: str, dice: random.Random) -> bytes:
    """Return bytes other than ``data``, damaged in the way called ``how``."""
    for _ in range(100):
        found = DAMAGES[how](data, dice)
        if found != data:
            return found
    return one_bit(data, dice)  # zeroing zeros changes nothing
