"""Complete builds in a tenth of a second: real stages and publishing, with a fake model.

Nothing here imports torch. Put stores into :func:`fast_folder`, where fsync takes no time.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from mmindex.core.config import Config
from mmindex.encode.work import EncoderSource
from mmindex.runs import part, stages
from mmindex.runs.run import STAGES, RunSummary, run
from mmindex.runs.settings import settings
from mmindex.store.manifest import EncoderInfo
from support.corpora import jpeg
from support.mapped import MAPS, AdaptedEncoder
from support.models import FakeEncoder

# Long ago, because the next crawl reads files again that were modified just before a crawl.
_MODIFIED_NS = 1_600_000_000_000_000_000


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Create a folder in memory if possible, and remove it at the end."""
    shm = Path("/dev/shm")
    where = shm if os.access(shm, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="mmindex-torture-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def write_photos(
    folder: Path,
    images: Mapping[str, int],
    captions: Mapping[str, Sequence[str]] | None = None,
    broken: Mapping[str, bytes] | None = None,
) -> Path:
    """Make ``folder`` contain exactly these files, all modified long ago.

    Args:
        folder: created if it does not exist.
        images: number of the drawing by file name.
        captions: captions by file name; by default two for each image.
        broken: other files' bytes by name.
    """
    files = {name: jpeg(number) for name, number in images.items()} | dict(broken or {})
    if captions is None:
        captions = {name: [f"drawing {n}", f"a square {n}"] for name, n in images.items()}
    lines = [json.dumps({"file": name, "captions": list(captions[name])}) for name in captions]
    files["captions.jsonl"] = "\n".join(lines).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            # Other content gets another second, as in real use.
            number = int.from_bytes(data[-4:], "big") % 1_000_000
            os.utime(path, ns=(_MODIFIED_NS, _MODIFIED_NS + number * 1_000_000_000))
    return folder


def truncated_jpeg(number: int) -> bytes:
    """Return an image with a valid header and truncated pixels, which fails when encoded."""
    data = jpeg(number)
    return data[: len(data) * 3 // 5]


@contextmanager
def fake_model(encoder: FakeEncoder) -> Iterator[None]:
    """Make builds in this process use ``encoder``, independent of their settings."""

    def source(_config: Config, _known: EncoderInfo | None) -> EncoderSource:
        return EncoderSource(
            info=encoder.info,
            preprocess=lambda: encoder.preprocess,
            load=lambda: encoder,
            maps=(lambda: MAPS) if isinstance(encoder, AdaptedEncoder) else None,
        )

    with (
        mock.patch.object(stages, "encoder_source", source),
        mock.patch.object(part, "encoder_source", source),
    ):
        yield


def run_build(
    root: Path,
    photos: Path,
    *,
    encoder: FakeEncoder | None = None,
    wanted: Sequence[str] = STAGES,
    run_id: str | None = None,
    **values: Any,
) -> RunSummary:
    """Build the store at ``root`` from the folder ``photos`` in this process.

    Args:
        root: the store.
        photos: see :func:`write_photos`.
        encoder: the model; another seed is another model.
        wanted: stages.
        run_id: random by default.
        **values: settings by dotted name with ``__`` for the dot: ``encode__shard_rows=4``.
    """
    given = {
        "source": [f"folder:{photos}"],
        "encode.workers": 0,
        "index.threads": 1,
        "index.gpu": "never",
        **{name.replace("__", "."): value for name, value in values.items()},
    }
    with fake_model(encoder or FakeEncoder()):
        return run(root, settings(root, None, given), run_id or uuid.uuid4().hex, wanted)


def run_command(argv: Sequence[str], encoder: FakeEncoder | None = None) -> int:
    """Run ``mmindex ARGV...`` in this process through its real entry point; return the exit code.

    The command changes SIGTERM and the standard streams, so use it in separate processes (see
    :mod:`support.zygote`), not in that of a test.
    """
    from mmindex_cli.app import main

    with fake_model(encoder or FakeEncoder()), mock.patch.object(sys, "argv", ["mmindex", *argv]):
        try:
            main()
        except SystemExit as ending:
            code = ending.code
            return code if isinstance(code, int) else int(code is not None)
    return 0
