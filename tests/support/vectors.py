"""Files of vectors as other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

DIM = 16


def random_units(rows: int, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Return random vectors of length 1: float32 (rows, dim)."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_table(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def write_npy(path: Path, vectors: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return path


def write_clip_retrieval(folder: Path, rows: int = 6, *, files: int = 1, seed: int = 0) -> Path:
    """Write a folder like ``clip-retrieval inference``, with ``rows`` in each file."""
    for number in range(files):
        first = number * rows
        write_npy(
            folder / "img_emb" / f"img_emb_{number}.npy",
            random_units(rows, seed=seed + number).astype(np.float16),
        )
        write_npy(
            folder / "text_emb" / f"text_emb_{number}.npy",
            random_units(rows, seed=seed + 1000 + number).astype(np.float16),
        )
        write_table(
            folder / "metadata" / f"metadata_{number}.parquet",
            {
                "image_path": [f"https://example.org/{first + n}.jpg" for n in range(rows)],
                "caption": [f"caption {first + n}" for n in range(rows)],
                "key": [f"{first + n:09d}" for n in range(rows)],
                "width": list(range(100, 100 + rows)),
                "NSFW": ["UNLIKELY"] * rows,
            },
        )
    return folder


def list_column(vectors: NDArray[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Return vectors as a column of lists, by default of fixed length and with the array's type."""
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return fixed if kind is None else pa.array(vectors.tolist(), pa.list_(kind))
