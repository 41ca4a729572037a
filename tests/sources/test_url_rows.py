"""Lists of URLs are read in their declared form, or refused with the line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.fetch.ledger import ListRow
from mmindex.sources.url_rows import read_rows


def rows(path: Path, content: bytes) -> list[ListRow]:
    path.write_bytes(content)
    return list(read_rows(path))


def test_csv_with_bom_crlf_and_quotes(tmp_path):
    content = b'\xef\xbb\xbfurl,caption,n\r\nhttp://a/1,"say ""hi"",\r\nplease",1\r\n\r\nhttp://a/2,,2\r\n'
    assert rows(tmp_path / "l.csv", content) == [
        ListRow("http://a/1", ('say "hi",\r\nplease',), metadata={"n": "1"}),
        ListRow("http://a/2", ("",), metadata={"n": "2"}),
    ]


def test_tsv_has_no_quotes(tmp_path):
    content = b'caption\turl\n"a "quoted" word\thttp://a/1\n'
    assert rows(tmp_path / "l.tsv", content) == [ListRow("http://a/1", ('"a "quoted" word',))]


def test_jsonl_with_lists_of_captions_and_ids(tmp_path):
    content = (
        b'{"URL": " http://a/1 ", "TEXT": ["one", "two"], "id": 7, "split": "test", "x": [1]}\n\n'
        b'{"url": "http://a/2", "caption": null}\n'
    )
    assert rows(tmp_path / "l.jsonl", content) == [
        ListRow("http://a/1", ("one", "two"), "7", "test", {"x": [1]}),
        ListRow("http://a/2"),
    ]


def test_parquet_keeps_types(tmp_path):
    table = pa.table({"url": ["http://a/1"], "text": ["one"], "width": [640], "nsfw": [True]})
    pq.write_table(table, tmp_path / "l.parquet")
    expected = [ListRow("http://a/1", ("one",), metadata={"width": 640, "nsfw": True})]
    assert list(read_rows(tmp_path / "l.parquet")) == expected


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", b"url,caption\nhttp://a/1,x\nhttp://a/2,x,y\n", ":3: 3 fields"),
        ("b.csv", b"url,caption\nhttp://a/1\n", ":2: 1 fields"),
        ("c.csv", b'url,caption\nhttp://a/1,"open\n', ":2: unexpected end"),
        ("d.csv", b'url,caption\nhttp://a/1,"x"y\n', ":2: "),
        ("e.csv", b"", "empty"),
        ("f.csv", b"address,caption\nx,y\n", "no column `url`"),
        ("g.csv", b"url,url\nx,y\n", "twice"),
        ("h.csv", b"url,caption\nhttp://a/\xff,x\n", ":2: not UTF-8"),
        ("i.tsv", b"url\tcaption\nhttp://a/1\tx\ty\n", ":2: 3 fields"),
        ("j.jsonl", b'{"url": "x"}\n{"url": \n', ":2: "),
        ("k.jsonl", b'{"url": NaN}\n', ":1: "),
        ("l.jsonl", b"[1]\n", ":1: "),
        ("m.jsonl", b"[" * 100_000, ":1: "),
        ("n.parquet", b"PAR1 not really", "damaged"),
    ],
)
def test_damaged_lists_are_refused_with_the_line(name, content, line, tmp_path):
    with pytest.raises(DataError) as caught:
        rows(tmp_path / name, content)
    assert name in caught.value.message
    assert line in caught.value.message


def test_captions_of_any_kind_are_kept_exactly(tmp_path):
    odd = ["x" * (1 << 20), "nul\0", "\u202eright to left", "<script>", "=HYPERLINK()", "\x1b[31m"]
    table = pa.table({"url": [f"http://a/{n}" for n in range(len(odd))], "caption": odd})
    pq.write_table(table, tmp_path / "l.parquet")
    assert [row.captions[0] for row in read_rows(tmp_path / "l.parquet")] == odd


def test_a_missing_file_and_an_unknown_form_say_so(tmp_path):
    with pytest.raises(NoInputError):
        read_rows(tmp_path / "absent.csv")
    (tmp_path / "l.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"\.csv, \.tsv"):
        read_rows(tmp_path / "l.xlsx")
