"""COCO as published: folders or zips, read in place, and hostile annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import Expected
from mmindex.sources.spec import SourceOptions, open_source, parse_spec
from mmindex.store.layout import Layout
from support.corpora import (
    coco_content,
    crawl_specs,
    items,
    jpeg,
    new_store,
    noted,
    rejections,
    rows_of,
    source_events,
    write_coco,
    write_files,
    write_zip,
)

CAPTIONS = {1: ["a", "b"], 2: ["c"], 3: ["d", "a"]}
FIRST = "coco/val2017/000000000001"


def events(path: Path, split: str | None = None) -> list[Any]:
    return source_events(f"coco:{path}" + (f"#{split}" if split else ""))


def test_a_folder_gives_images_with_captions_and_licence(tmp_path: Path) -> None:
    found = items(events(write_coco(tmp_path, coco_content(CAPTIONS))))
    assert list(found) == [f"coco/val2017/{n:012d}" for n in (1, 2, 3)]
    first = found[FIRST]
    assert first.uri == str(tmp_path / "val2017" / "000000000001.jpg")
    assert (first.split, first.captions) == ("val2017", ("a", "b"))
    assert first.metadata == {"license": "Attribution License", "flickr_url": "u1"}
    assert first.read() == jpeg(1)
    size, mtime, inode = first.stamp or (0, 0, 0)
    status = (tmp_path / "val2017" / "000000000001.jpg").stat()
    assert (size, mtime, inode) == (status.st_size, status.st_mtime_ns, status.st_ino)


@pytest.mark.parametrize("inside", ["val2017/", "", "images/val2017/"])
def test_a_zip_gives_the_same_rows_but_for_the_uri(tmp_path: Path, inside: str) -> None:
    content = coco_content(CAPTIONS)
    folder = write_coco(tmp_path / "folder", content)
    packed = write_files(
        tmp_path / "zip", {"annotations/captions_val2017.json": json.dumps(content)}
    )
    images = {f"{inside}{n:012d}.jpg": jpeg(n) for n in (1, 2, 3)}
    place = packed / "images" if inside.startswith("images") else packed
    place.mkdir(exist_ok=True)
    write_zip(place / "val2017.zip", images)
    plain, zipped = items(events(folder)), items(events(packed))
    assert list(plain) == list(zipped)
    for image_id, item in zipped.items():
        assert item.captions == plain[image_id].captions
        assert item.read() == plain[image_id].read()
        assert ".zip!" in item.uri


def test_annotations_can_stay_in_the_archive(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content({}))
    plain = tmp_path / "annotations" / "captions_val2017.json"
    data = json.dumps(coco_content(CAPTIONS)).encode()
    write_zip(
        tmp_path / "annotations_trainval2017.zip",
        {"annotations/captions_val2017.json": data, "annotations/instances_val2017.json": b"{}"},
    )
    assert not items(events(tmp_path))  # a plain file wins
    plain.unlink()
    assert len(items(events(tmp_path))) == 3


def test_every_split_that_has_images_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content({1: ["v"]}), "val2017", 1)
    write_coco(tmp_path, coco_content({1: ["t"]}), "train2017", 1)
    write_coco(tmp_path, coco_content({1: ["x"]}), "test2017", 0)
    found = events(tmp_path)
    assert [item.split for item in items(found).values()] == ["train2017", "val2017"]
    assert noted(found)["splits_without_images"] == 1
    assert list(items(events(tmp_path, "val2017"))) == [FIRST]


def test_images_below_an_images_folder_are_found(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "annotations/captions_val2017.json": json.dumps(coco_content({1: ["a"]})),
            "images/val2017/000000000001.jpg": jpeg(1),
        },
    )
    assert items(events(tmp_path))[FIRST].read() == jpeg(1)


@pytest.mark.parametrize(
    ("split", "layout", "words"),
    [
        (None, {"val2017/1.jpg": b""}, "no captions found"),
        ("val2017", {"annotations/captions_train2017.json": b"{}"}, "found: train2017"),
        (None, {"annotations/captions_val2017.json": b"{}"}, "captions but no images"),
        ("val2017", {"annotations/captions_val2017.json": b"{}"}, "no images there"),
    ],
)
def test_missing_files_are_named(
    tmp_path: Path, split: str | None, layout: dict[str, bytes], words: str
) -> None:
    write_files(tmp_path, layout)
    with pytest.raises(NoInputError, match=words):
        events(tmp_path, split)


def test_files_that_are_missing_or_outside_are_rejected_one_by_one(tmp_path: Path) -> None:
    content = coco_content({n: [f"{n}"] for n in range(1, 7)})
    names = ["000000000001.jpg", "../../secret.jpg", "/etc/passwd", "leak.jpg", "gone.jpg", ""]
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    folder = write_coco(tmp_path / "coco", content, count=1)
    write_files(tmp_path, {"secret.jpg": jpeg(9)})
    (folder / "val2017" / "leak.jpg").symlink_to(tmp_path / "secret.jpg")
    found = events(folder)
    assert list(items(found)) == [FIRST]
    assert sorted(rejections(found).values()) == ["missing", *["unsafe_path"] * 4]
    assert noted(found) == {"captions_of_rejected_images": 5}


def test_oddities_are_counted_and_the_choice_is_the_first(tmp_path: Path) -> None:
    content = coco_content({1: ["a"], 2: [], 3: ["c"]})
    content["images"].append({"id": 1, "file_name": "000000000002.jpg"})
    content["annotations"] += [{"image_id": 99, "caption": "x"}, {"image_id": 98, "caption": "y"}]
    found = events(write_coco(tmp_path, content))
    assert items(found)[FIRST].captions == ("a",)
    assert len(items(found)) == 3
    assert rejections(found) == {"coco/val2017/000000000002": "duplicate_id"}
    assert noted(found) == {
        "captions_of_unknown_images": 2,
        "duplicate_image_numbers": 1,
        "images_without_captions": 1,
    }
    assert events(tmp_path)[0].image_id == found[0].image_id


def test_captions_are_read_exactly(tmp_path: Path) -> None:
    texts = ["", "x" * 1_000_000, "a\0b", "\u202eevil", "one\ntwo", "<script>", "=HYPERLINK(1)"]
    data = json.dumps(coco_content({1: texts})).replace("one\\ntwo", "\\ud800half")
    objects = new_store(tmp_path / "store")
    folder = write_coco(tmp_path / "coco", data.encode(), count=1)
    report = crawl_specs(objects, f"coco:{folder}")
    _, captions = rows_of(objects, report)
    texts[4] = "\ufffdhalf"
    assert [row["text"] for row in captions] == texts[1:]  # an empty one counts as none
    assert [row["caption_id"] for row in captions] == [f"{FIRST}#{n}" for n in range(1, 7)]
    assert report.sources[0].notes == {"empty_captions": 1, "lone_surrogates_replaced": 1}


def test_a_captions_file_that_is_cut_in_half_ends_the_run_with_the_byte(tmp_path: Path) -> None:
    data = json.dumps(coco_content(CAPTIONS)).encode()
    half = len(data) // 2
    folder = write_coco(tmp_path, data[:half])
    with pytest.raises(DataError, match=rf"captions_val2017\.json.* at byte {half}"):
        events(folder)


def test_instances_instead_of_captions_are_named(tmp_path: Path) -> None:
    content = coco_content({1: []})
    content["annotations"] = [{"image_id": 1, "bbox": [0, 0, 1, 1]}]
    with pytest.raises(DataError, match=r"`caption` - at `\$\.annotations\[0\]`"):
        events(write_coco(tmp_path, content))


def test_real_coco_from_folder_and_zip(real_photos: Path, tmp_path: Path) -> None:
    """159 photos with 795 captions: the same rows except for the uri."""
    source = real_photos / "coco_val2017"
    (tmp_path / "annotations").symlink_to(source / "annotations")
    photos = sorted((source / "val2017").iterdir())
    write_zip(
        tmp_path / "val2017.zip", {f"val2017/{path.name}": path.read_bytes() for path in photos}
    )
    objects = new_store(tmp_path / "store")
    plain = crawl_specs(objects, f"coco:{source}")
    zipped = crawl_specs(objects, f"coco:{tmp_path}#val2017")
    assert (plain.seen, plain.images.rows, plain.captions.rows) == (159, 159, 795)
    assert zipped.captions == plain.captions
    rows, packed = rows_of(objects, plain)[0], rows_of(objects, zipped)[0]
    for row, other in zip(rows, packed, strict=True):
        assert other.pop("uri") == f"{tmp_path}/val2017.zip!val2017/{Path(row.pop('uri')).name}"
        del row["modified"]  # members of an archive have no modification time
        assert row == other


def test_a_list_states_the_expected_number_of_images(tmp_path: Path) -> None:
    """For the progress bar of the crawl."""
    spec = parse_spec(f"coco:{write_coco(tmp_path, coco_content(CAPTIONS))}")
    found = list(open_source(spec, SourceOptions(Layout(tmp_path / "unused"), 1 << 20)))
    assert [event.images for event in found if isinstance(event, Expected)] == [3]
    assert isinstance(found[0], Expected)
