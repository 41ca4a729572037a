"""One of many writers succeeds, and readers see the old or the new version (2 and 6)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mmindex.core.errors import MmindexError
from mmindex.store.layout import Layout
from mmindex.store.snapshot import open_snapshot
from mmindex.store.versions import read_current
from mmindex.upkeep.check import check
from mmindex.upkeep.gc import Retention, gc
from support.command import MMINDEX, write_coco
from support.contenders import CONTEXT, K, build_with_others, crowd, read_all_along
from support.fakestore import fast_folder, run_build, write_photos
from support.model import Images, best_keys, wrong_answers
from support.models import TinyModel
from support.naive import naive_writer
from support.tally import Tally

pytestmark = pytest.mark.timeout(1800)
BUILDERS, READERS = 20, 4
PUBLISHES = (1_000, 20)  # full, bounded
COLLECT_EVERY = 5


@pytest.mark.parametrize("store", ["new", "existing"])
def test_of_20_builds_at_once_one_publishes_and_19_say_busy(
    store: str, fast_dir: Path, tally: Tally
) -> None:
    """The successful build waits until all others have given up, so that all find it busy."""
    folder = fast_dir / f"builds-{store}"
    root, out = folder / "store", folder / "out"
    out.mkdir(parents=True)
    photos = write_photos(folder / "photos", {f"{n}.jpg": n for n in range(4)})
    if store == "existing":
        run_build(root, photos)
        write_photos(photos, {f"{n}.jpg": n for n in range(5)})
    gate, losers = CONTEXT.Barrier(BUILDERS), CONTEXT.Semaphore(0)
    job = (build_with_others, (root, photos, BUILDERS, gate, losers, out))
    with crowd([job] * BUILDERS):
        pass
    ended = [json.loads(path.read_text()) for path in out.iterdir()]
    assert Counter(code for code, _ in ended) == {0: 1, 75: BUILDERS - 1}
    assert all("another mmindex run is writing" in text for code, text in ended if code)
    current = read_current(Layout(root))
    assert current is not None
    assert current.version == (2 if store == "existing" else 1)
    assert not check(root, full=True).problems
    tally.add("builds at once", tried=BUILDERS, published=1, busy=BUILDERS - 1)


def test_real_builds_at_once(tmp_path: Path, tiny_model: TinyModel) -> None:
    """A build that starts during another exits with 75; a later one has nothing to do."""
    corpus, root = write_coco(tmp_path / "coco", 30), tmp_path / "store"
    argv = [MMINDEX, "build", "--store", root, "--source", f"coco:{corpus}"]
    running = [
        subprocess.Popen(
            [*argv, "--model", tiny_model.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=250) for process in running]
    codes = [process.returncode for process in running]
    assert set(codes) <= {0, 75}, said
    assert sum("published version 1" in out for out, _ in said) == 1
    assert codes.count(0) == sum("published" in o or "nothing changed" in o for o, _ in said)
    for code, (_, err) in zip(codes, said, strict=True):
        assert code == 0 or "another mmindex run is writing" in err
    assert not check(root, full=True).problems


def images_of(version: int) -> Images:
    """Each version has one image that the previous one lacked, and lacks one that it had."""
    return {f"{n}.jpg": n for n in range(version, version + 6)}


def publish_and_read(folder: Path, count: int, *, patient: bool = True) -> list[str]:
    """Publish versions 1 to ``count`` while four processes read; return the lines that they wrote.

    Unless ``patient`` is set, stop as soon as one of them has failed.
    """
    root, photos, out = folder / "store", folder / "photos", folder / "out"
    shutil.rmtree(folder, ignore_errors=True)
    out.mkdir(parents=True)
    run_build(root, write_photos(photos, images_of(1)))
    ready, failed, stop = CONTEXT.Semaphore(0), CONTEXT.Event(), CONTEXT.Event()
    with crowd([(read_all_along, (root, out, ready, failed, stop))] * READERS):
        try:
            for _ in range(READERS):
                assert ready.acquire(timeout=60)
            for version in range(2, count + 1):
                run_build(root, write_photos(photos, images_of(version)), limits__max_removed=1.0)
                if version % COLLECT_EVERY == 0:
                    gc(root, Retention(keep_versions=1, keep_days=0))
                if failed.is_set() and not patient:
                    break
        finally:
            stop.set()
    return [line for path in out.iterdir() for line in path.read_text().splitlines()]


def test_readers_during_publishes_see_whole_versions(
    fast_dir: Path, full: bool, tally: Tally
) -> None:
    count, folder = PUBLISHES[0 if full else 1], fast_dir / "readers"
    lines = publish_and_read(folder, count)
    seen = set()
    for answer in map(json.loads, lines):
        tally.add("answer sets under publishes", read=1, mixed_or_failed=1)
        assert "failed" not in answer, answer
        version = answer["version"]
        assert not best_keys(images_of(version), K).wrong(answer["keys"])
        names = {f"folder/photos/{n}" for n in images_of(version)}
        assert {name for row in answer["ids"] for name in row} <= names
        tally.add("answer sets under publishes", mixed_or_failed=-1)
        seen.add(version)
    tally.add("publishes under readers", done=count, seen=len(seen))
    last = open_snapshot(folder / "store")
    assert last.manifest.version == count
    assert not wrong_answers(last, images_of(count))
    assert not check(last.layout.root, full=True).problems


def test_readers_notice_a_naive_writer() -> None:
    """A negative control: readers fail if files are overwritten in place."""
    try:
        with fast_folder() as folder, naive_writer(pause_s=0.002):
            lines = publish_and_read(folder / "run", 200, patient=False)
    except MmindexError:
        return  # the writer itself failed because of what it had written
    assert any("failed" in line for line in lines)
