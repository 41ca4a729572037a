"""Flickr8k-CN and COCO-CN as their authors publish them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import Note, NoteKind, Reason, Rejected, SourceItem
from mmindex.sources.chinese import read_numbered
from support.corpora import source_events
from support.images import png


@pytest.fixture
def flickr8k(tmp_path: Path) -> Path:
    """Captions in a subfolder, as in the repository of the authors; one photo is missing."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "flickr8kzhc.caption.txt").write_text(
        "667626_18933d713e.jpg#zhc#0 一个穿着泳装的女人躺在海水里。\n"
        "667626_18933d713e.jpg#zhc#1\t女人 在 海里\n"
        "\n"
        "3637013_c675de7705.jpg#zhc#0 一对恋人在公园河边拥抱。\r\n"
        "10815824_2997e03d76.jpg#zhc#0 马场一个小女孩。\n",
        "utf-8",
    )
    (data / "flickr8kzhb.caption.txt").write_text("667626_18933d713e.jpg#zhb#0 机器\n", "utf-8")
    (data / "flickr8ktest.txt").write_text("667626_18933d713e\n")
    (data / "flickr8ktrain.txt").write_text("3637013_c675de7705.jpg\n")
    images = tmp_path / "Flicker8k_Dataset"
    images.mkdir()
    for n, name in enumerate(("667626_18933d713e", "3637013_c675de7705")):
        (images / f"{name}.jpg").write_bytes(png(n))
    return tmp_path


def test_flickr8k_cn_has_the_captions_written_by_people(flickr8k: Path) -> None:
    first, second, missing, note = source_events(f"flickr8k-cn:{flickr8k}")
    assert isinstance(first, SourceItem)
    assert first.image_id == "flickr8k/667626_18933d713e"
    assert first.captions == ("一个穿着泳装的女人躺在海水里。", "女人 在 海里")
    assert first.split == "test"
    assert first.read() == png(0)
    assert isinstance(second, SourceItem)
    assert (second.split, second.captions) == ("train", ("一对恋人在公园河边拥抱。",))
    assert isinstance(missing, Rejected)
    assert (missing.image_id, missing.reason) == ("flickr8k/10815824_2997e03d76", Reason.MISSING)
    assert note == Note(NoteKind.CAPTIONS_OF_REJECTED_IMAGES, 1)


def test_a_split_is_selected_by_the_authors_lists(flickr8k: Path) -> None:
    [only] = source_events(f"flickr8k-cn:{flickr8k}#test")
    assert isinstance(only, SourceItem)
    assert only.image_id == "flickr8k/667626_18933d713e"
    with pytest.raises(NoInputError, match=r"flickr8kval\.txt not found"):
        source_events(f"flickr8k-cn:{flickr8k}#val")
    with pytest.raises(NoInputError, match="no split 'karpathy'"):
        source_events(f"flickr8k-cn:{flickr8k}#karpathy")


def test_other_captions_are_read_if_those_are_missing(flickr8k: Path) -> None:
    (flickr8k / "data" / "flickr8kzhc.caption.txt").unlink()
    [only] = source_events(f"flickr8k-cn:{flickr8k}")
    assert isinstance(only, SourceItem)
    assert only.captions == ("机器",)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Names without extension or language; val photos in a zip, train photos in a folder."""
    (tmp_path / "imageid.human-written-caption.txt").write_text(
        "COCO_train2014_000000108418#0\t一只猫坐在沙发上\n"
        "COCO_val2014_000000000042#zhm#0\t夜晚的街道\n"
        "COCO_val2014_000000000042#zhm#1\t城市夜景\n"
        "holiday#0\t奇怪\n",
        "utf-8",
    )
    (tmp_path / "coco-cn_train.txt").write_text("COCO_train2014_000000108418\n")
    (tmp_path / "coco-cn_test.txt").write_text("COCO_val2014_000000000042\n")
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / "COCO_train2014_000000108418.jpg").write_bytes(png(1))
    with zipfile.ZipFile(tmp_path / "val2014.zip", "w") as packed:
        packed.writestr("val2014/COCO_val2014_000000000042.jpg", png(2))
    return tmp_path


def test_coco_cn_finds_the_photos_in_their_own_parts(coco: Path) -> None:
    train, val, note = source_events(f"coco-cn:{coco}")
    assert isinstance(train, SourceItem)
    assert (train.image_id, train.split) == ("coco/train2014/000000108418", "train")
    assert isinstance(val, SourceItem)
    assert (val.image_id, val.split) == ("coco/val2014/000000000042", "test")
    assert val.captions == ("夜晚的街道", "城市夜景")
    assert val.read() == png(2)
    assert note == Note(NoteKind.CAPTIONS_OF_UNKNOWN_IMAGES, 1)


def test_photos_of_a_missing_part_are_counted(coco: Path) -> None:
    (coco / "val2014.zip").unlink()
    assert source_events(f"coco-cn:{coco}#test") == [Note(NoteKind.IMAGES_WITHOUT_FOLDER, 1)]


@pytest.mark.parametrize("kind", ["flickr8k-cn", "coco-cn"])
def test_an_empty_folder_says_what_is_expected(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NoInputError, match="no captions found") as error:
        source_events(f"{kind}:{tmp_path}")
    assert "expected" in error.value.hint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.jpg 一只猫\n".encode(), "1: expected NAME#LANGUAGE#NUMBER"),
        ("a.jpg#zhc#0 一\n#zhc#0 x\n".encode(), "2: expected"),
        ("a.jpg#zhc#0 一\nb.jpg#zhc#0\n".encode(), "2: expected"),
        (b"a.jpg#zhc#0 x\n\xff\n", "2: not UTF-8"),
    ],
)
def test_a_damaged_caption_file_names_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_numbered(path)


def test_a_name_never_leaves_the_folder(flickr8k: Path) -> None:
    (flickr8k / "data" / "flickr8kzhc.caption.txt").write_text("../../etc/passwd#zhc#0 x\n")
    rejected, _ = source_events(f"flickr8k-cn:{flickr8k}")
    assert isinstance(rejected, Rejected)
    assert rejected.reason is Reason.UNSAFE_PATH
