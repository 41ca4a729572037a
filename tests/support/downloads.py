"""A small archive on a server, and its download into a store with short timeouts."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from pathlib import Path

from mmindex.core.config import FetchConfig
from mmindex.fetch.download import RemoteFile, download_files
from mmindex.store.layout import Layout
from support.hostile_server import HostileServer
from support.images import png

QUICK = FetchConfig(
    allow_private=True,
    backoff_s=0.001,
    retries=2,
    read_timeout_s=1,
    connect_timeout_s=1,
    retry_after_budget_s=2,
)
STEP = 64 * 1024


def coco_zip(images: int = 20) -> bytes:
    """Return a small zip in the layout of COCO's image archives, of about 800 KiB."""
    noise = random.Random(0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for n in range(images):
            archive.writestr(f"val2017/{n:012d}.jpg", png(n) + noise.randbytes(40_000))
    return buffer.getvalue()


BODY = coco_zip()
OTHER = BODY[:4] + bytes(reversed(BODY[4:]))


def remote(server: HostileServer, path: str = "/val.zip", **facts) -> RemoteFile:
    facts.setdefault("sha256", hashlib.sha256(BODY).hexdigest())
    return RemoteFile("val.zip", (server.url(path),), **facts)


def fetch(layout: Layout, *files: RemoteFile, settings: FetchConfig = QUICK) -> list[Path]:
    return download_files(layout, layout.downloads_dir / "coco", files, settings)


def nothing_usable(layout: Layout) -> bool:
    return not (layout.downloads_dir / "coco" / "val.zip").exists()
