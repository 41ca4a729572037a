"""Parts of an encoding in any order, alongside other commands, with the same bytes at the end."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.encode.part import Part, PartReport, parse_part
from mmindex.runs.part import run_part
from mmindex.runs.settings import settings
from mmindex.store.layout import Layout
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.manifest import Manifest
from mmindex.store.versions import open_layout, read_current
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget
from mmindex.upkeep.gc import Retention, gc
from support.fakestore import fake_model, fast_folder, run_build, write_photos
from support.models import FakeEncoder
from support.parts import ended, start

VALUES = {"encode__batch_size": 2, "encode__shard_rows": 4}
IMAGES = {f"{number:03}.jpg": number for number in range(26)}


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as made:
        write_photos(made / "photos", IMAGES)
        yield made


def crawled(folder: Path, name: str = "store") -> Path:
    run_build(folder / name, folder / "photos", wanted=["crawl"], **VALUES)
    return folder / name


def build(folder: Path, name: str = "store", encoder: FakeEncoder | None = None) -> Manifest:
    return run_build(folder / name, folder / "photos", encoder=encoder, **VALUES).manifest


def encode_part(root: Path, part: str, encoder: FakeEncoder | None = None) -> PartReport:
    given = {"encode.workers": 0, "encode.batch_size": 2, "encode.shard_rows": 4}
    with fake_model(encoder or FakeEncoder()):
        return run_part(root, settings(root, None, given), parse_part(part))


def argv(folder: Path, command: str, *more: str, store: str = "store") -> list[str]:
    config = folder / "config.toml"
    config.write_text(
        f'[[source]]\nspec = "folder:{folder}/photos"\n'
        "[encode]\nworkers = 0\nbatch_size = 2\nshard_rows = 4\n"
        "[index]\nthreads = 1\ngpu = 'never'\n"
    )
    where = ["--store", str(folder / store), "--config", str(config), "--format", "json"]
    return [command, *where, *more]


def objects(manifest: Manifest) -> dict[str, str]:
    return {ref.name: ref.sha256 for ref in manifest.objects}


def nothing_staged(root: Path) -> bool:
    return not list(Layout(root).staging_dir.iterdir())


def wait_for_shards(root: Path, more_than: int, process: subprocess.Popen[str]) -> None:
    while len(list(Layout(root).objects_dir.glob("*/*"))) <= more_than:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)], ids=str)
def test_three_parts_and_a_build_write_the_same_bytes_as_one_run(
    folder: Path, order: tuple[int, ...]
) -> None:
    alone = build(folder, "alone")
    root = crawled(folder)
    reports = [encode_part(root, f"{number}/3") for number in order]
    assert sum(report.encoded_images for report in reports) == len(IMAGES)
    assert sum(report.encoded_texts for report in reports) == 2 * len(IMAGES)
    assert max(r.units for r in reports) - min(r.units for r in reports) <= 1
    assert nothing_staged(root)
    encoder = FakeEncoder()
    assert objects(build(folder, encoder=encoder)) == objects(alone)
    assert encoder.image_batches == encoder.text_batches == []


def test_a_part_that_is_run_again_has_nothing_to_do_and_loads_nothing(folder: Path) -> None:
    root = crawled(folder)
    first = encode_part(root, "2/2")
    encoder = FakeEncoder()
    again = encode_part(root, "2/2", encoder)
    assert (again.units, again.done_before) == (first.units, first.units)
    assert encoder.image_batches == encoder.text_batches == []


def test_parts_that_are_missing_are_encoded_by_the_build(folder: Path) -> None:
    alone = build(folder, "alone")
    root = crawled(folder)
    encode_part(root, "2/3")
    made = build(folder)
    assert objects(made) == objects(alone)


def test_parts_encode_what_a_changed_corpus_lacks(folder: Path) -> None:
    """Units are the rows of the published tables that the published version has no vectors for."""
    for name in ("alone", "store"):
        build(folder, name)
    more = IMAGES | {f"more{number:03}.jpg": 100 + number for number in range(9)}
    write_photos(folder / "photos", more)
    alone = build(folder, "alone")
    root = crawled(folder)
    reports = [encode_part(root, f"{number}/2") for number in (2, 1)]
    assert sum(report.encoded_images for report in reports) == 9
    encoder = FakeEncoder()
    made = build(folder, encoder=encoder)
    assert encoder.image_batches == []
    shards = [ref.sha256 for ref in made.named("embeddings/")]
    assert shards == [ref.sha256 for ref in alone.named("embeddings/")]


def test_a_damaged_shard_of_a_part_is_encoded_again(folder: Path) -> None:
    root = crawled(folder)
    before = set(Layout(root).objects_dir.glob("*/*"))
    encode_part(root, "1/1")
    victim = sorted(set(Layout(root).objects_dir.glob("*/*")) - before)[0]
    data = victim.read_bytes()
    victim.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
    again = encode_part(root, "1/1")
    assert again.done_before == again.units - 1
    assert victim.read_bytes() == data


def test_more_parts_than_units_leave_some_with_nothing(folder: Path) -> None:
    root = crawled(folder)
    reports = [encode_part(root, f"{number}/40") for number in range(1, 41)]
    assert {report.units for report in reports} == {0, 1}
    assert sum(report.encoded_images for report in reports) == len(IMAGES)


def test_a_part_requires_a_crawled_version(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError):
        run_part(tmp_path / "none", settings(tmp_path / "none", None, {}), Part(1, 2))
    root = folder / "empty"
    with pytest.raises(DataError):
        write_photos(folder / "nothing", {}, {}, {"bad.jpg": b"bad"})
        run_build(root, folder / "nothing", wanted=["crawl"])
    with pytest.raises(NoInputError, match="nothing is published yet") as caught:
        encode_part(root, "1/2")
    assert "mmindex crawl" in caught.value.hint
    assert nothing_staged(root)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "-1/3", "1/0", "1/3/5", "a/b", "１/３"])
def test_an_invalid_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="I/N"):
        parse_part(text)
    assert str(parse_part("03/12")) == "3/12"


def test_two_parts_at_once_and_a_killed_one_give_the_bytes_of_one_run(folder: Path) -> None:
    alone = build(folder, "alone")
    root = crawled(folder)
    there = len(list(Layout(root).objects_dir.glob("*/*")))
    first = start(argv(folder, "encode", "--part", "1/2"), folder / "gate", batches=2)
    wait_for_shards(root, there, first)
    second = start(argv(folder, "encode", "--part", "2/2"))
    while len(list(Layout(root).staging_dir.iterdir())) < 4:  # a folder and a lock for each
        assert first.poll() is second.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert ended(second)["encoded_images"]
    again = ended(start(argv(folder, "encode", "--part", "1/2")))
    assert again["done_before"]
    encoder = FakeEncoder()
    assert objects(build(folder, encoder=encoder)) == objects(alone)
    assert encoder.image_batches == []
    assert nothing_staged(root)  # also the staged files of the killed one
    assert not check(root, full=True).problems


def test_a_part_keeps_its_folder_while_others_write(folder: Path) -> None:
    """A build, gc and the cleaning of every writer, all while a part runs."""
    alone = build(folder, "alone")
    root = crawled(folder)
    there = len(list(Layout(root).objects_dir.glob("*/*")))
    process = start(argv(folder, "encode", "--part", "1/2"), folder / "gate", batches=2)
    wait_for_shards(root, there, process)
    staged = sorted(path.name for path in Layout(root).staging_dir.iterdir())
    assert len(staged) == 2
    (Layout(root).staging_dir / "left.tmp").write_bytes(b"half")
    build(folder)
    gc(root, Retention(1, 0.0))
    remove_leftovers(open_layout(root))
    assert process.poll() is None
    assert sorted(path.name for path in Layout(root).staging_dir.iterdir()) == staged
    (folder / "gate").touch()
    ended(process)
    assert nothing_staged(root)
    assert objects(build(folder)) == objects(alone)
    assert not check(root, full=True).problems


def test_sigterm_stops_a_part_and_leaves_nothing_staged(folder: Path) -> None:
    root = crawled(folder)
    there = len(list(Layout(root).objects_dir.glob("*/*")))
    process = start(argv(folder, "encode", "--part", "1/1"), folder / "gate", batches=2)
    wait_for_shards(root, there, process)
    process.terminate()
    ended(process, code=143)
    assert nothing_staged(root)


def test_items_forgotten_during_a_part_do_not_return(folder: Path) -> None:
    root = crawled(folder)
    build(folder)
    write_photos(folder / "photos", IMAGES | {"a.jpg": 200, "b.jpg": 201, "c.jpg": 202})
    crawled(folder)
    there = set(Layout(root).objects_dir.glob("*/*"))
    process = start(argv(folder, "encode", "--part", "1/1"), folder / "gate", batches=1)
    while len(list(Layout(root).staging_dir.iterdir())) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    [gone] = [name for name in ids(root) if name.endswith("a.jpg")]
    report = forget(root, [gone], "forgetting")
    assert report.held  # by the part
    (folder / "gate").touch()
    ended(process)
    assert set(Layout(root).objects_dir.glob("*/*")) - there
    build(folder)
    manifest = read_current(Layout(root))
    assert manifest is not None
    listed = {ref.sha256 for ref in manifest.objects}
    gc(root, Retention(1, 0.0))
    assert {path.name for path in Layout(root).objects_dir.glob("*/*")} == listed
    assert gone not in ids(root)
    assert not check(root, full=True).problems


def ids(root: Path) -> list[str]:
    from mmindex.store.objects import Objects

    manifest = read_current(Layout(root))
    assert manifest is not None
    table = Objects(Layout(root)).read_table(manifest.require("crawl/images"), ["image_id"])
    return [str(one) for one in table["image_id"].to_pylist()]
