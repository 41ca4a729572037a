"""Lists and tables as saved by spreadsheets and other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.errors import DataError, UsageError
from mmindex.sources.caption_lists import names_images, parse_captions
from mmindex.sources.captions import caption_fields
from mmindex.sources.url_rows import read_rows
from support.corpora import crawl_specs, jpeg, new_store, write_files, write_zip

TABLE = 'file_name;caption\r\n0.jpg;one\r\n1.jpg;"two; and, more"\r\n2.jpg;Übung\r\n'
READ = {"0.jpg": ["one"], "1.jpg": ["two; and, more"], "2.jpg": ["Übung"]}


def captions(data: bytes, name: str = "captions.csv") -> dict[str, list[str]]:
    return {image: said.captions for image, said in parse_captions(data, name).images.items()}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_with_semicolons_is_read_in_the_encodings_of_spreadsheets(encoding: str) -> None:
    data = TABLE.encode(encoding)
    assert captions(data) == READ
    assert names_images(data, "metadata.csv")


def test_tabs_in_utf_16_are_read() -> None:
    data = "file_name\tcaption\r\n0.jpg\tein Bild\r\n".encode("utf-16")
    assert captions(data, "captions.txt") == {"0.jpg": ["ein Bild"]}


def test_a_semicolon_in_a_table_with_commas_is_text() -> None:
    assert captions(b"image,caption\n0.jpg,one; two\n") == {"0.jpg": ["one; two"]}


def test_another_encoding_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=":4: not UTF-8") as caught:
        captions(TABLE.encode("cp1252"))
    assert caught.value.hint == "save the file as UTF-8"


def test_prompts_are_captions_if_there_is_nothing_better() -> None:
    assert caption_fields(["prompt", "seed"]) == ("prompt",)
    assert caption_fields(["prompt", "caption"]) == ("caption",)


def addresses(path: Path) -> list[str]:
    return [row.url for row in read_rows(path)]


def test_a_plain_list_of_urls_may_hold_commas(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfhttp://a.example/1.jpg?crop=1,2,x0&w=3\r\n\r\n http://a.example/2.jpg \n"
    )
    assert addresses(tmp_path / "list.txt") == [
        "http://a.example/1.jpg?crop=1,2,x0&w=3",
        "http://a.example/2.jpg",
    ]


def test_a_list_of_urls_with_semicolons_is_read(tmp_path: Path) -> None:
    text = "URL;TEXT\nhttp://a.example/1.jpg?a=1,2;one\n"
    (tmp_path / "list.csv").write_text(text)
    [row] = read_rows(tmp_path / "list.csv")
    assert (row.url, row.captions) == ("http://a.example/1.jpg?a=1,2", ("one",))


def test_a_table_of_the_wrong_kind_names_the_right_kind(tmp_path: Path) -> None:
    table = pa.table({"URL": ["http://a.example/1.jpg"], "TEXT": ["a"], "similarity": [0.3]})
    pq.write_table(table, tmp_path / "laion.parquet")
    objects = new_store(tmp_path / "store")
    with pytest.raises(UsageError) as wrong:
        crawl_specs(objects, f"webdataset:{tmp_path}/laion.parquet")
    assert "did you mean parquet:" in wrong.value.hint
    with pytest.raises(DataError) as caught:
        crawl_specs(objects, f"parquet:{tmp_path}/laion.parquet")
    assert "use the kind urls:" in caught.value.hint


def test_a_list_beside_images_of_other_forms_loses_no_image(tmp_path: Path) -> None:
    """Conversations, as in visual instruction data, become columns, not captions."""
    rows = [
        {"file_name": f"{n}.jpg", "conversations": [{"from": "gpt", "value": "a picture"}]}
        for n in range(2)
    ]
    text = "\n".join(map(json.dumps, rows))
    folder = write_files(
        tmp_path / "f", {"0.jpg": jpeg(0), "1.jpg": jpeg(1), "metadata.jsonl": text}
    )
    report = crawl_specs(new_store(tmp_path / "store"), f"folder:{folder}")
    assert (report.images.rows, report.captions.rows) == (2, 0)


def test_an_archive_in_a_folder_is_named_with_what_was_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    write_zip(folder / "images.zip", {"0.jpg": jpeg(0)})
    report = crawl_specs(new_store(tmp_path / "store"), f"folder:{folder}")
    assert report.not_read == {".zip": 1}
