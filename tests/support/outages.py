"""The jobs for simulated power losses: every kind of job that writes to a store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from mmindex.core.config import FetchConfig
from mmindex.core.errors import DataError
from mmindex.core.records import ItemError
from mmindex.fetch import transfer
from mmindex.fetch.download import RemoteFile, download_files
from mmindex.media.uris import read_uri
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.objects import Objects
from mmindex.store.publish import write_file
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget
from mmindex.upkeep.gc import Retention, gc
from mmindex.upkeep.rollback import rollback
from support.dying import dying
from support.fakestore import run_build, truncated_jpeg, write_photos
from support.hostile_server import hostile_server
from support.outage import Recording, Step, record
from support.range_server import RangeFile

_PIECE = 16 * 1024


def _folder_with(folder: Path, *numbers: int) -> Callable[[], object]:
    """Return a function that makes the folder contain these photos and one damaged file."""
    images = {f"{n}.jpg": n for n in numbers}
    return lambda: write_photos(folder / "photos", images, broken={"torn.jpg": truncated_jpeg(9)})


def builds(folder: Path) -> list[Step]:
    """A first build, and one with changes."""

    def build() -> None:
        run_build(folder / "store", folder / "photos", limits__max_removed=1.0)

    return [
        Step("first build", build, _folder_with(folder, 1, 2, 3)),
        Step("changed build", build, _folder_with(folder, 2, 3, 4, 5)),
    ]


def life(folder: Path) -> Recording:
    """A store from its first build to a forgotten image."""
    root, begin = folder / "store", builds(folder)
    build = begin[0].do

    def killed_build() -> None:
        with dying(root, before="CURRENT") as life:
            build()
        assert life.ended

    steps = [
        *begin,
        Step("unchanged build", build, _folder_with(folder, 2, 3, 4, 5)),
        Step(
            "killed build", killed_build, _folder_with(folder, 2, 3, 4, 6), fails=True, exact=False
        ),
        Step("build after a kill", build, _folder_with(folder, 3, 4, 6)),
        Step("rollback", lambda: rollback(root, None, "rollback"), once=True),
        Step("gc", lambda: gc(root, Retention(keep_versions=2, keep_days=0))),
        Step("build after gc", build, _folder_with(folder, 3, 4, 6, 7)),
        Step("forget", lambda: forget(root, ["folder/photos/4.jpg"], "forget")),
    ]
    return record(root, steps)


def taken_up(folder: Path) -> Recording:
    """A run is killed between a rename and its sync, and the next run relies on the name."""
    root, (begin, change) = folder / "store", builds(folder)

    def killed() -> None:
        with dying(root, objects=4) as life:  # three tables, then a shard of vectors
            begin.do()
        assert life.ended

    def killed_at_its_commit() -> None:
        with dying(root, after="CURRENT") as life:
            change.do()
        assert life.ended

    steps = [
        Step("killed before a sync", killed, begin.prepare, fails=True, exact=False),
        Step("build that takes it up", begin.do, begin.prepare),
        Step("killed at its commit", killed_at_its_commit, change.prepare, fails=True),
        # It reports that nothing changed, so the version that it found must stay.
        Step("build with nothing to do", change.do, change.prepare, unsure=True),
    ]
    return record(root, steps)


def forgotten_again(folder: Path) -> Recording:
    """An old list of unchanged files returns from a backup, and forgetting is repeated.

    Only this list is then rewritten, and no later write makes its name safe.
    """
    root = folder / "store"
    layout, photos = (
        Layout(root),
        write_photos(folder / "photos", {f"{n}.jpg": n for n in range(9)}),
    )
    saved: list[bytes] = []

    def build() -> None:
        run_build(root, photos)

    def again() -> None:
        forget(root, ["folder/photos/4.jpg"], "forget")

    def nothing_is_left(ended: bool) -> list[str]:
        return list(check(layout.root, full=True).problems) if ended else []

    steps = [
        Step("build", build),
        Step("forget", again, prepare=lambda: saved.append(layout.stamps_file.read_bytes())),
        Step("backup", lambda: write_file(layout, layout.stamps_file, saved[0]), alone=True),
        Step("forget again", again, verdict=nothing_is_left, alone=True),
    ]
    return record(root, steps)


def drawn(folder: Path) -> Recording:
    """A store with a corpus that it draws itself, written to a staged folder."""
    root = folder / "store"

    def build() -> None:
        run_build(root, folder, source=["scenes:3"])

    def all_images_are_there(_ended: bool) -> list[str]:
        layout = Layout(root)
        try:
            current = versions.read_current(layout) if layout.format_file.exists() else None
        except DataError as error:
            return [error.message]
        table = current.find("images") if current else None
        if table is None:
            return []
        try:
            rows = Objects(layout).read_table(table, ["uri", "key"]).to_pylist()
        except DataError as error:
            return [error.message]
        return [f"{row['uri']} is damaged or gone" for row in rows if not _sound(**row)]

    return record(root, [Step("drawing build", build, verdict=all_images_are_there)])


def _sound(uri: str, key: str) -> bool:
    try:
        return hashlib.sha256(read_uri(uri)).hexdigest() == key
    except ItemError:
        return False


@contextmanager
def fetched(folder: Path) -> Iterator[Recording]:
    """A download in pieces without a known checksum, so that damage would not be detected."""
    layout = versions.create_layout(folder / "store")
    target = layout.downloads_dir / "corpus" / "val.zip"
    body = b"PK\x03\x04" + bytes(range(256)) * 400
    settings = FetchConfig(allow_private=True, backoff_s=0.001, retries=20)

    def fetch() -> None:
        url = server.url("/val.zip")
        file = RemoteFile("val.zip", (url,), size_bytes=len(body))
        download_files(layout, target.parent, [file], settings)

    def right(ended: bool) -> list[str]:
        found = []
        if target.exists() and target.read_bytes() != body:
            found.append("the finished file is damaged")
        if ended and not target.exists():
            found.append("the finished file is gone")
        if layout.downloads_dir.is_dir() and layout.staging_dir.is_dir():
            server.routes["/val.zip"] = RangeFile(body)
            fetch()
            if target.read_bytes() != body:
                found.append("the resumed file is damaged")
        return found

    with hostile_server() as server, mock.patch.object(transfer, "_SYNC_BYTES", _PIECE):
        server.routes["/val.zip"] = RangeFile(body, cut_after=len(body) // 3)
        shutil.rmtree(layout.root)
        layout.root.mkdir()

        def start() -> None:
            versions.create_layout(layout.root)
            fetch()

        yield record(layout.root, [Step("download", start, verdict=right, alone=True)])
