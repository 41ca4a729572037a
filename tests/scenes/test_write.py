"""Corpora of scenes on disk: COCO's layout and webdataset shards."""

import hashlib
import io
import json
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from mmindex.core.errors import MmindexError, StorageError, UsageError
from mmindex.scenes import (
    SceneRange,
    captions,
    draw,
    encode,
    file_name,
    make_scene,
    number_of,
    write_coco,
    write_webdataset,
)
from mmindex.scenes.stored_zip import StoredZip


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_laid_out_as_coco_is(tmp_path: Path) -> None:
    write_coco(tmp_path, SceneRange(seed=9, count=6, first=40))
    document = json.loads((tmp_path / "annotations" / "captions_scenes.json").read_text())
    assert [image["id"] for image in document["images"]] == list(range(40, 46))
    assert document["images"][0] == {
        "id": 40,
        "file_name": "000000000040.jpg",
        "width": 224,
        "height": 224,
    }
    assert len({note["id"] for note in document["annotations"]}) == 30
    for number in range(40, 46):
        scene = make_scene(9, number)
        told = [n["caption"] for n in document["annotations"] if n["image_id"] == number]
        assert told == [caption.text for caption in captions(scene)]
        assert (tmp_path / "scenes" / file_name(number)).read_bytes() == encode(draw(scene))
    assert len(list((tmp_path / "scenes").iterdir())) == 6


def test_a_zip_is_valid_and_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_coco(tmp_path / name, SceneRange(9, 5), split="val", zipped=True)
    assert digest(tmp_path / "one/val.zip") == digest(tmp_path / "two/val.zip")
    note = "annotations/captions_val.json"
    assert digest(tmp_path / "one" / note) == digest(tmp_path / "two" / note)
    with zipfile.ZipFile(tmp_path / "one/val.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"val/{file_name(number)}" for number in range(5)]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("val/000000000003.jpg") == encode(draw(make_scene(9, 3)))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["annotations", "val.zip"]


def test_shards_for_webdataset(tmp_path: Path) -> None:
    paths = write_webdataset(tmp_path, SceneRange(9, 5), shard_size=2)
    assert [path.name for path in paths] == [f"scenes-00000{shard}.tar" for shard in range(3)]
    with tarfile.open(paths[1]) as tar:
        assert tar.getnames() == [
            f"00000000000{number}.{ext}" for number in (2, 3) for ext in ("jpg", "txt", "json")
        ]
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
        about = json.load(tar.extractfile("000000000003.json"))  # type: ignore[arg-type]
        text = tar.extractfile("000000000003.txt").read().decode()  # type: ignore[union-attr]
        image = Image.open(io.BytesIO(tar.extractfile("000000000003.jpg").read()))  # type: ignore[union-attr]
    assert (about["seed"], about["number"], len(about["captions"])) == (9, 3, 5)
    assert text == about["captions"][0]
    assert image.size == (224, 224)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    scenes = SceneRange(9, 150)
    write_coco(tmp_path / "one", scenes, zipped=True)
    write_coco(tmp_path / "two", scenes, zipped=True, workers=2)
    for name in ("scenes.zip", "annotations/captions_scenes.json"):
        assert digest(tmp_path / "one" / name) == digest(tmp_path / "two" / name)


def test_a_zip_with_more_members_than_16_bits_count_takes_no_memory_for_them(
    tmp_path: Path,
) -> None:
    """zipfile would keep some 40 MB of member objects for these 70,000."""
    path = tmp_path / "many.zip"
    tracemalloc.start()
    with StoredZip(path) as archive:
        for number in range(70_000):
            archive.add(f"many/{number:012d}.txt", b"%d" % number)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 70_000
        assert archive.read("many/000000069999.txt") == b"69999"


def test_a_zip_beyond_4_gib_is_read_back(tmp_path: Path) -> None:
    """The middle of the file is a hole, so it needs no disk space."""
    path = tmp_path / "big.zip"
    with StoredZip(path) as archive:
        archive.add("first", b"1")
        gap = 2**32 + 5
        archive._file.truncate(gap)
        archive._file.seek(gap)
        archive._offset = gap
        archive.add("last", b"22")
    with zipfile.ZipFile(path) as archive:
        assert archive.read("first") == b"1"
        assert archive.read("last") == b"22"


def test_a_failed_zip_is_left_without_a_directory(tmp_path: Path) -> None:
    """An incomplete corpus cannot look complete."""
    path = tmp_path / "half.zip"
    with pytest.raises(KeyError), StoredZip(path) as archive:
        archive.add("a", b"a")
        raise KeyError
    assert not zipfile.is_zipfile(path)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Once the drawings are cached, 600 scenes have the peak memory of 150."""
    write_coco(tmp_path / "warm", SceneRange(9, 600), zipped=True)
    peaks = []
    for count in (150, 600):
        tracemalloc.start()
        write_coco(tmp_path / str(count), SceneRange(9, count), zipped=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


@pytest.mark.parametrize(
    "name", ["000000000012.jpg", "scenes/000000000012.jpg", "scenes/000000000012"]
)
def test_the_scene_number_is_in_every_name(name: str) -> None:
    assert number_of(name) == 12


def test_impossible_ranges_are_refused(tmp_path: Path) -> None:
    for scenes in (
        {"seed": -1, "count": 1},
        {"seed": 0, "count": 0},
        {"seed": 0, "count": 1, "first": -1},
    ):
        with pytest.raises(UsageError):
            SceneRange(**scenes)
    with pytest.raises(UsageError):
        write_webdataset(tmp_path, SceneRange(0, 1), shard_size=0)


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    write_coco(tmp_path, SceneRange(9, 1))
    with pytest.raises(StorageError):
        write_coco(tmp_path, SceneRange(9, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(MmindexError):
        write_webdataset(tmp_path / "file", SceneRange(9, 1))
