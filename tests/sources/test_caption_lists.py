"""Caption lists: every common form is read, or refused with the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmindex.core.errors import DataError
from mmindex.sources.caption_lists import CaptionList, read_captions


def read(folder: Path, content: str | bytes, name: str = "captions.txt") -> CaptionList:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_captions(path)


def texts(listed: CaptionList) -> dict[str, list[str]]:
    return {name: described.captions for name, described in listed.images.items()}


def refusal(folder: Path, content: str | bytes, name: str = "captions.txt") -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, name)
    return caught.value.message.removeprefix(f"{folder / name}")


def test_tab_separated_with_caption_numbers(tmp_path: Path) -> None:
    content = '1.jpg#0\tA "dog" , running .\n1.jpg#1\tTwo\ttabs|and|pipes\n\n2.jpg\t\n'
    expected = {"1.jpg": ['A "dog" , running .', "Two\ttabs|and|pipes"], "2.jpg": [""]}
    for text in (content, content.replace("\n", "\r\n"), "\ufeff" + content):
        assert texts(read(tmp_path, text)) == expected


def test_tab_separated_with_languages_and_caption_numbers(tmp_path: Path) -> None:
    """The layout of Flickr8k-CN; only such an ending is a number and not part of the name."""
    content = (
        "667626_18933d713e.jpg#zhm#0\t一个穿着泳装的女人\n667626_18933d713e.jpg#zhm#1\t在水里\n"
        "b.jpg#enc#4\ta girl\nc#1.jpg\tthe name keeps its own mark\nd.jpg#zh\tno number\n"
    )
    assert texts(read(tmp_path, content)) == {
        "667626_18933d713e.jpg": ["一个穿着泳装的女人", "在水里"],
        "b.jpg": ["a girl"],
        "c#1.jpg": ["the name keeps its own mark"],
        "d.jpg#zh": ["no number"],
    }


def test_pipe_separated_with_a_header(tmp_path: Path) -> None:
    """Kaggle's results.csv, including the row without a separator in the published file."""
    content = (
        "image_name| comment_number| comment\n"
        '1.jpg| 0| A man in "blue" | standing .\n'
        "1.jpg| 1| Second .\n"
        "2199200615.jpg| 4   A dog runs across the grass .\n"
    )
    listed = read(tmp_path, content, "results.csv")
    assert texts(listed) == {
        "1.jpg": ['A man in "blue" | standing .', "Second ."],
        "2199200615.jpg": ["A dog runs across the grass ."],
    }
    assert listed.notes["lost_separators_mended"] == 1


def test_comma_separated_with_a_header_and_quotes(tmp_path: Path) -> None:
    content = 'image,caption\n1.jpg,plain\n1.jpg,"a ""b"", c\nnext line"\n'
    expected = {"1.jpg": ["plain", 'a "b", c\nnext line']}
    assert texts(read(tmp_path, content)) == expected
    assert texts(read(tmp_path, "\ufeff" + content)) == expected
    crlf = 'image,caption\r\n1.jpg,plain\r\n1.jpg,"a ""b"", c\nnext line"\r\n'
    assert texts(read(tmp_path, crlf)) == expected


def test_comma_separated_without_a_header(tmp_path: Path) -> None:
    assert texts(read(tmp_path, '1.jpg,one\n./2.jpg,"two, quoted"\n')) == {
        "1.jpg": ["one"],
        "2.jpg": ["two, quoted"],
    }


def test_the_header_of_a_table_determines_the_separator(tmp_path: Path) -> None:
    rows = [("image", "caption"), ("1.jpg", "one"), ("2.jpg", "two")]
    for separator in "\t|,":
        content = "\r\n".join(separator.join(row) for row in rows)
        assert texts(read(tmp_path, content)) == {"1.jpg": ["one"], "2.jpg": ["two"]}


def test_numbered_columns_are_captions_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    content = "filename,caption_10,caption_2\n1.jpg,last,first\n"
    assert texts(read(tmp_path, content)) == {"1.jpg": ["first", "last"]}


def test_other_columns_of_an_image_folder_s_metadata_are_kept(tmp_path: Path) -> None:
    content = "file_name,text,artist\n1.jpg,one,Ada\n"
    listed = read(tmp_path, content, "metadata.csv")
    assert texts(listed) == {"1.jpg": ["one"]}
    assert listed.images["1.jpg"].metadata == {"artist": "Ada"}
    without = read(tmp_path, "file_name,artist\n1.jpg,Ada\n", "metadata.csv")
    assert without.images["1.jpg"].metadata == {"artist": "Ada"}


def test_columns_can_be_in_any_order_and_include_the_split(tmp_path: Path) -> None:
    """nlphuji's flickr_annotations_30k.csv: the captions are one JSON list."""
    content = 'raw,sentids,split,filename,img_id\n"[""a"", ""b \\ud800""]","[0, 1]",test,1.jpg,0\n'
    listed = read(tmp_path, content, "flickr_annotations_30k.csv")
    assert texts(listed) == {"1.jpg": ["a", "b \ufffd"]}
    assert listed.images["1.jpg"].split == "test"
    assert listed.notes["lone_surrogates_replaced"] == 1


def test_json_lines_have_captions_split_and_columns(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.jpg", "caption": "one", "title": "T", "likes": 3, "tags": ["x", "y"]},
        {"image": "b.jpg", "captions": ["two", "three"], "split": "test"},
        {"file_name": "a.jpg", "text": "四"},
        {"file_name": "c.jpg"},
    ]
    content = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    listed = read(tmp_path, content, "captions.jsonl")
    assert texts(listed) == {"a.jpg": ["one", "四"], "b.jpg": ["two", "three"], "c.jpg": []}
    assert listed.images["a.jpg"].metadata == {"title": "T", "likes": 3, "tags": ["x", "y"]}
    assert [listed.images[name].split for name in ("a.jpg", "b.jpg")] == ["all", "test"]


def test_a_caption_of_a_megabyte_and_with_nul_is_read(tmp_path: Path) -> None:
    long = "x" * 1_000_000 + "\0y"
    assert texts(read(tmp_path, f"image,caption\n1.jpg,{long}\n")) == {"1.jpg": [long]}
    assert texts(read(tmp_path, f"1.jpg\t{long}\n")) == {"1.jpg": [long]}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("image,caption\n1.jpg,a,b\n", ":2: 3 columns, expected 2"),
        ("1.jpg,a\n2.jpg\n", ":2: 1 columns, expected 2"),
        ('image,caption\n1.jpg,ok\n2.jpg,"open\n3.jpg,x\n', ":4: unexpected end of data"),
        ('image,caption\n1.jpg,"a"b\n', ":2: "),
        ("image,caption\n,no name\n", ":2: no image name"),
        ("1.jpg\tok\n2.jpg without a tab\n", ":2: expected name<TAB>caption"),
        ("image|comment\n1.jpg\n", ":2: 1 columns, but the header has 2"),
        (b"1.jpg\tok\n2.jpg\t\xff\n", ":2: not UTF-8"),
        ("raw,filename\nno list,1.jpg\n", ":2: "),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, content: str | bytes, line: str) -> None:
    assert refusal(tmp_path, content).startswith(line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"file_name": "a.jpg"}\n{"file_name": "b.j', ":2: truncated"),
        ('{"file_name": "a.jpg"}\n[]\n', ":2: "),
        ('{"caption": "a"}\n', ":1: no image name"),
        ('{"image": 7, "caption": "a"}\n', ":1: no image name"),
        ('{"image": "a", "caption": 7}\n', ":1: 'caption': not a caption: int"),
        ('{"image": "a", "captions": ["x", 7]}\n', ":1: 'captions': not a caption: int"),
        ('{"image": "a", "score": NaN}\n', ":1: "),
        ('{"image": "a", "score": 1e400}\n', ":1: "),
    ],
)
def test_a_broken_json_line_is_named(tmp_path: Path, content: str, line: str) -> None:
    assert refusal(tmp_path, content, "captions.jsonl").startswith(line)


def test_unmatched_captions_are_counted(tmp_path: Path) -> None:
    listed = read(tmp_path, "1.jpg\ta\n1.jpg\tb\n2.jpg\tc\n")
    taken = listed.take("1.jpg")
    assert taken is not None
    assert taken.captions == ["a", "b"]
    assert listed.take("3.jpg") is None
    assert [(note.kind, note.count) for note in listed.summary()] == [
        ("captions_of_unknown_images", 1)
    ]
