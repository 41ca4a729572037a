"""Stores with several versions, to test what happens to the older ones."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from support.manifests import manifest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def publish_days_ago(root: Path, *days: float, **fields: object) -> list[Manifest]:
    """Publish a version for each age, counted back from :data:`NOW`.

    Each version lists one object that all share, and one that only it has.
    """
    objects = Objects(versions.create_layout(root))
    made = []
    for age in days:
        current = versions.read_current(objects.layout)
        number = current.version + 1 if current else 1
        refs = (write(objects, "index/all", b"shared"), write(objects, "index/own", b"%d" % number))
        draft = manifest(
            version=number,
            parent=number - 1 or None,
            created_at=(NOW - timedelta(days=age)).isoformat(),
            objects=refs,
            **{"floor": current.floor if current else 1, **fields},
        )
        made.append(versions.publish_version(objects, draft))
    return made


def write(objects, name, content):
    """Write a raw object."""
    return objects.write(name, lambda staged: staged.write(content))


def own(layout: Layout, made: Manifest) -> Path:
    """Return the object that only this version lists."""
    return layout.object(made.find("index/own").sha256)


_READER = """
import sys
from pathlib import Path
from mmindex.store import holds, versions
hold = holds.take_current(versions.open_layout(Path(sys.argv[1])))
print(hold.manifest.version, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reader(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the published version until it is killed or the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _READER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdecimal()
        try:
            yield process
        finally:
            process.kill()


def snapshot(root: Path) -> dict[str, bytes]:
    """Return every file of a store except the lock, by path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "LOCK"
    }
