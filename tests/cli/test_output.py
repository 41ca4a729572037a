"""Printing answers: aligned, inert, and readable back."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wcwidth import wcswidth

from mmindex.core.display import is_hidden, visible
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.query import Answer
from mmindex_cli import output

HOSTILE = "a\tb\r\nc \x1b[31mred\x07 \u202eright\u2066 \x9b nul\x00 \ud83d \u2028 back\\slash"
# Whatever acts on a terminal: C0, DEL, C1, half surrogates, line separators, bidi controls.
ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
anything = st.text(st.characters(exclude_categories=()), max_size=60)


def hit(rank: int, name: str = "id", caption: str | None = None, uri: str = "/p") -> Hit:
    return Hit(rank, 0.5 / rank, name, uri, caption, name)


def answer(*hits: Hit, query: str = "q", to: Modality = Modality.IMAGE) -> Answer:
    return Answer(query, to, 3, tuple(hits))


def test_a_json_line_is_what_scripts_rely_on() -> None:
    [line] = output.json_lines(answer(hit(1, "coco/1", uri="z.zip!1.jpg"), query="a bus"))
    assert line == (
        '{"query": "a bus", "to": "image", "version": 3, "hits": [{"rank": 1, "score": 0.5, '
        '"id": "coco/1", "uri": "z.zip!1.jpg", "caption": null}]}'
    )


def test_an_answer_that_failed_carries_its_error_in_json() -> None:
    failed = Answer("", Modality.IMAGE, 3, (), error="the query is empty")
    assert json.loads(*output.json_lines(failed)) == {
        "query": "",
        "to": "image",
        "version": 3,
        "hits": [],
        "error": "the query is empty",
    }


def in_utf16(text: str) -> bytes:
    """JSON reads two half surrogates side by side as the one character that they make."""
    return text.encode("utf-16", "surrogatepass")


@given(anything, anything)
@example(HOSTILE, HOSTILE)
def test_json_gives_back_every_text_exactly_and_nothing_in_it_is_active(
    query: str, caption: str
) -> None:
    [line] = output.json_lines(answer(hit(1, caption=caption), query=query, to=Modality.TEXT))
    back = json.loads(line)
    assert in_utf16(back["query"]) == in_utf16(query)
    assert in_utf16(back["hits"][0]["caption"]) == in_utf16(caption)
    assert not ACTIVE.search(line)
    assert "\n" not in line
    assert "\t" not in line
    line.encode("utf-8")


def test_json_leaves_letters_of_all_scripts_as_they_are() -> None:
    [line] = output.json_lines(answer(query="一只猫 кошка قطة 👩‍👧"))
    assert "一只猫 кошка قطة 👩‍👧" in line


def undo(cell: str) -> str:
    """What a program does that wants the text exactly as it was."""
    plain = cell[1:] if cell.startswith("'") else cell
    short = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    return re.sub(
        r"\\(?:([\\nrt])|x(..)|u(....)|U(........))",
        lambda m: short[m[1]] if m[1] else chr(int(m[2] or m[3] or m[4], 16)),
        plain,
    )


@given(anything, anything)
@example(HOSTILE, HOSTILE)
@example("=HYPERLINK(1)", "'quoted")
@example("\\u4e00", "\\")
def test_tsv_cells_can_be_undone_and_hold_no_separator(name: str, caption: str) -> None:
    header, row = output.tsv_lines(answer(hit(1, name, caption), to=Modality.TEXT))
    cells = row.split("\t")
    assert len(cells) == len(header.split("\t")) == 7
    assert not ACTIVE.search(row)
    assert "\n" not in row
    assert [undo(cells[3]), undo(cells[5])] == [name, caption]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
def test_tsv_texts_never_begin_a_formula(start: str) -> None:
    _, row = output.tsv_lines(answer(hit(1, start + "1", start + "cmd|' /C calc'!A0"), query=start))
    query, rank, score, name, _, caption, _ = row.split("\t")
    assert {text[:2] for text in (query, name, caption)} == {"'" + start}
    assert (rank, score) == ("1", "0.500000")


def test_tsv_is_read_by_a_plain_reader(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Answer("?", Modality.IMAGE, 3, (), error="no")
    count = output.print_answers([answer(hit(1), hit(2)), failed, answer()], "tsv")
    assert count == 1
    text = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(row["query"], row["rank"], row["error"]) for row in rows] == [
        ("q", "1", ""),
        ("q", "2", ""),
        ("?", "", "no"),
        ("q", "", ""),
    ]


@given(anything, anything, st.integers(40, 120))
@example(HOSTILE, HOSTILE, 80)
@example("猫" * 100, "é" * 300, 41)
@example("id", "z" + "\u0301" * 10_000, 80)
def test_a_table_never_leaves_the_terminals_width_and_never_acts_on_it(
    name: str, caption: str, width: int
) -> None:
    rows = (hit(1, name, caption), hit(1000, "x", "y"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_terminal_width", lambda: width)
        lines = list(output.table_lines(answer(*rows, query=name, to=Modality.TEXT)))
    assert len(lines) == 4
    for line in lines:
        assert 0 <= wcswidth(line) <= width, line
        assert not any(is_hidden(char) for char in line)
        assert len(line) < 5 * width


def test_wide_and_combining_characters_stay_aligned() -> None:
    rows = (hit(1, "一只猫", "x"), hit(2, "cafe\u0301", "x"), hit(3, "plain", "x"))
    lines = list(output.table_lines(answer(*rows, to=Modality.TEXT)))
    columns = {wcswidth(line[: line.rindex("x")]) for line in lines[2:]}
    assert len(columns) == 1
    assert wcswidth(lines[1][: lines[1].index("caption")]) in columns


def test_the_end_of_a_long_id_is_kept_and_the_start_of_a_long_caption() -> None:
    rows = [hit(1, "coco/val2017/" + "0" * 60 + "139#4", "word " * 50)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_terminal_width", lambda: 60)
        line = list(output.table_lines(answer(*rows, to=Modality.TEXT)))[2]
    assert "139#4  word word" in line
    assert line.endswith("…")


def test_output_that_goes_to_a_file_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    output.print_answers([answer(hit(1, caption=long), to=Modality.TEXT)], "table")
    assert long.strip() in capsys.readouterr().out


def test_no_hits_and_errors_are_said_in_a_table() -> None:
    assert list(output.table_lines(answer(query="red"))) == ["images for red", "no hits"]
    failed = Answer("x", Modality.TEXT, 3, (), error="not valid UTF-8\x1b")
    assert list(output.table_lines(failed, 1)) == [
        "",
        "captions for x",
        "error: not valid UTF-8\\x1b",
    ]


def test_visible_keeps_scripts_whole_and_shows_what_hides() -> None:
    """Joiners that Persian and emoji need stay; overrides and the BOM are shown."""
    assert visible("می‌خواهم 👩‍👧 日本　語") == "می‌خواهم 👩‍👧 日本　語"
    assert visible("\ufeff\u202e\U000e0041\n") == "\\ufeff\\u202e\\U000e0041\\n"
