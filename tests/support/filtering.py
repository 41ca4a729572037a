"""A store of images with metadata, and random conditions with their meaning."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmindex.search.filters import select_images
from mmindex.store.snapshot import Snapshot
from support.stores import Side, captions_table, images_table, key_of, make_store

ROWS, DIM = 400, 16
LICENCES = ("CC BY 4.0", "CC BY-SA", "no rights", "O'Reilly", None)


@dataclass(frozen=True)
class Store:
    snapshot: Snapshot
    rows: list[dict[str, object]]
    image_ids: list[str]
    keys: list[str]
    vectors: np.ndarray

    def where(self, expression: str) -> list[int]:
        return np.flatnonzero(select_images(self.snapshot, expression)).tolist()


def units(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def metadata(rng: random.Random, n: int) -> list[dict[str, object]]:
    return [
        {
            "width": rng.choice([320, 480, 640, 1024]),
            "height": rng.choice([240, 480, 640]),
            "split": rng.choice(["train", "val", "test"]),
            "licence": rng.choice(LICENCES),
            "score": rng.choice([None, -1.5, 0.0, 2.25]),
            "public": rng.choice([True, False, None]),
        }
        for _ in range(n)
    ]


def filtered_store(folder: Path) -> Store:
    """Create 400 image rows with 390 contents (ten have two names), each with two captions."""
    rng, numbers = random.Random(7), np.random.default_rng(7)
    rows = metadata(rng, ROWS)
    names = [f"folder/test/{n:04d}" for n in range(ROWS)]
    contents = [key_of(f"image {n if n < 390 else n - 390}") for n in range(ROWS)]
    images = images_table(
        [(name, key, f"/p/{name}") for name, key in zip(names, contents, strict=True)]
    )
    for column, kind in (
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("score", pa.float64()),
        ("public", pa.bool_()),
    ):
        values = pa.array([row[column] for row in rows], kind)
        place = images.schema.get_field_index(column)
        images = (
            images.append_column(column, values)
            if place < 0
            else images.set_column(place, column, values)
        )
    texts = [(name, f"caption {i} of {n % 150}") for n, name in enumerate(names) for i in (0, 1)]
    captions = captions_table(texts)
    unique = list(dict.fromkeys(contents))
    said = list(dict.fromkeys(captions["key"].to_pylist()))
    vectors = units(numbers, len(unique))
    sides = {"image": Side(unique, vectors), "text": Side(said, units(numbers, len(said)))}
    snapshot = make_store(folder, images, captions, sides, None, group_rows=64)
    return Store(snapshot, rows, names, contents, vectors)


def random_condition(rng: random.Random, depth: int = 0):
    """Return SQL, and the same in Python: a function of a row (True, False or None for unknown)."""
    if depth < 3 and rng.random() < 0.6:
        kind = rng.choice(["and", "or", "not"])
        left, left_says = random_condition(rng, depth + 1)
        if kind == "not":
            return f"NOT ({left})", lambda r: None if (v := left_says(r)) is None else not v
        right, right_says = random_condition(rng, depth + 1)
        decisive = kind == "or"

        def says(r, a=left_says, b=right_says):
            values = (a(r), b(r))
            if decisive in values:
                return decisive
            return None if None in values else not decisive

        return f"({left}) {kind.upper()} ({right})", says
    return rng.choice([_number, _text, _null, _flag])(rng)


def _number(rng):
    column = rng.choice(["width", "height", "score"])
    value = rng.choice([-1.5, 0, 2.25, 240, 320, 480, 640, 1024])
    sign, compare = rng.choice(
        [(">=", lambda a, b: a >= b), ("<", lambda a, b: a < b), ("=", lambda a, b: a == b)]
    )
    return (
        f"{column} {sign} {value}",
        lambda r: None if r[column] is None else compare(r[column], value),
    )


def _text(rng):
    part = rng.choice(["BY", "CC", "rights", "'", "zz"])
    quoted = part.replace("'", "''")
    return (
        f"licence LIKE '%{quoted}%'",
        lambda r: None if r["licence"] is None else part in r["licence"],
    )


def _null(rng):
    column = rng.choice(["score", "licence", "public"])
    return f"{column} IS NULL", lambda r: r[column] is None


def _flag(_rng):
    return "public", lambda r: r["public"]
