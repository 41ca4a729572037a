"""Output of results: aligned, inert, and readable by programs."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wcwidth import wcswidth

from mmindex.api.hits import Details, Hits, Shown
from mmindex.core.display import is_hidden, visible
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.query import Answer
from mmindex_cli import answers
from mmindex_cli.answers import View
from mmindex_cli.output import Form

HOSTILE = "a\tb\r\nc \x1b[31mred\x07 \u202eright\u2066 \x9b nul\x00 \ud83d \u2028 back\\slash"
# Whatever acts on a terminal: C0, DEL, C1, half surrogates, line separators, bidi controls.
ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
anything = st.text(st.characters(exclude_categories=()), max_size=60)


def hit(rank: int, name: str = "id", caption: str | None = None, uri: str = "/p") -> Hit:
    return Hit(rank, 0.5 / rank, name, uri, caption, name)


def json_line(one: Hits) -> str:
    [line] = printed([one], "json")
    return line


def printed(some: list[Hits], form: Form) -> list[str]:
    """Return what is written to a file, line by line."""
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", io.TextIOWrapper(buffer, encoding="utf-8", newline=""))
        answers.print_answers(some, form)
        sys.stdout.flush()
    return buffer.getvalue().decode("utf-8").split("\n")[:-1]


def table(*some: Hits, width: int | None = None) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "terminal_width", lambda: width)
        return list(answers.answer_lines(some, View()))


def answer(
    *hits: Hit,
    query: str = "q",
    to: Modality = Modality.IMAGE,
    error: str | None = None,
    good: bool = False,
) -> Hits:
    nothing_more = Details.__new__(Details)  # no store: only the usual fields are shown
    nothing_more.shown = Shown(good=good)
    return Hits(Answer(query, to, 3, tuple(hits), error=error), nothing_more)


def test_a_json_line_is_what_scripts_rely_on() -> None:
    line = json_line(answer(hit(1, "coco/1", uri="z.zip!1.jpg"), query="a bus"))
    assert line == (
        '{"query": "a bus", "to": "image", "version": 3, "hits": [{"rank": 1, "score": 0.5, '
        '"id": "coco/1", "uri": "z.zip!1.jpg", "caption": null, '
        '"probability": null, "weak": null}]}'
    )


def test_a_failed_answer_has_its_error_in_json() -> None:
    failed = answer(query="", to=Modality.IMAGE, error="the query is empty")
    assert json.loads(json_line(failed)) == {
        "query": "",
        "to": "image",
        "version": 3,
        "hits": [],
        "error": "the query is empty",
    }


def in_utf16(text: str) -> bytes:
    """JSON reads two adjacent lone surrogates as the character that they form."""
    return text.encode("utf-16", "surrogatepass")


@given(anything, anything)
@example(HOSTILE, HOSTILE)
def test_json_contains_every_text_exactly_and_is_inert(query: str, caption: str) -> None:
    line = json_line(answer(hit(1, caption=caption), query=query, to=Modality.TEXT))
    back = json.loads(line)
    assert in_utf16(back["query"]) == in_utf16(query)
    assert in_utf16(back["hits"][0]["caption"]) == in_utf16(caption)
    assert not ACTIVE.search(line)
    assert "\n" not in line
    assert "\t" not in line
    line.encode("utf-8")


def test_json_does_not_escape_letters_of_any_script() -> None:
    line = json_line(answer(query="一只猫 кошка قطة 👩‍👧"))
    assert "一只猫 кошка قطة 👩‍👧" in line


def undo(cell: str) -> str:
    """Do what a program does to get exactly the original text."""
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
def test_tsv_cells_are_reversible_and_contain_no_separator(name: str, caption: str) -> None:
    header, row = printed([answer(hit(1, name, caption), to=Modality.TEXT)], "tsv")
    cells = row.split("\t")
    assert len(cells) == len(header.split("\t")) == 9
    assert not ACTIVE.search(row)
    assert "\n" not in row
    assert [undo(cells[3]), undo(cells[5])] == [name, caption]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
def test_tsv_texts_never_begin_a_formula(start: str) -> None:
    one = answer(hit(1, start + "1", start + "cmd|' /C calc'!A0"), query=start)
    _, row = printed([one], "tsv")
    query, rank, score, name, _, caption, *_ = row.split("\t")
    assert {text[:2] for text in (query, name, caption)} == {"'" + start}
    assert (rank, score) == ("1", "0.500000")


def test_tsv_is_read_by_a_plain_reader(capsys: pytest.CaptureFixture[str]) -> None:
    failed = answer(query="?", to=Modality.IMAGE, error="no")
    count = answers.print_answers([answer(hit(1), hit(2)), failed, answer()], "tsv")
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
def test_a_table_fits_the_terminal_and_is_inert(name: str, caption: str, width: int) -> None:
    rows = (hit(1, name, caption), hit(1000, "x", "y"))
    lines = table(answer(*rows, query=name, to=Modality.TEXT), width=width)
    assert len(lines) in {4, 6}
    for line in lines:
        assert 0 <= wcswidth(line) <= width, line
        assert not any(is_hidden(char) for char in line)
        assert len(line) < 5 * width


def test_wide_and_combining_characters_stay_aligned() -> None:
    rows = (hit(1, "一只猫", "x"), hit(2, "cafe\u0301", "x"), hit(3, "plain", "x"))
    lines = table(answer(*rows, to=Modality.TEXT))
    columns = {wcswidth(line[: line.rindex("x")]) for line in lines[2:]}
    assert len(columns) == 1
    assert wcswidth(lines[1][: lines[1].index("caption")]) in columns


def test_a_path_is_not_cut_at_80_columns() -> None:
    long = "/photos/" + "a rather long folder/" * 5 + "beach.jpg"
    lines = table(answer(hit(1, "folder/photos/" + long, uri=long)), width=80)
    assert lines[1].split() == ["rank", "score", "path"]
    assert lines[2] == f"   1   0.5000  {long}"


def test_an_id_is_shown_only_if_it_fits() -> None:
    one = answer(hit(1, "folder/photos/beach.jpg", uri="/home/me/pictures/photos/beach.jpg"))
    assert table(one, width=70)[2].split() == ["1", "0.5000", "/home/me/pictures/photos/beach.jpg"]
    assert table(one, width=80)[2].split()[2:] == [
        *("folder/photos/beach.jpg", "/home/me/pictures/photos/beach.jpg")
    ]


def test_a_path_below_the_working_folder_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = answer(hit(1, "x", uri=str(tmp_path / "photos" / "a.jpg")))
    assert table(one, width=80)[2].split()[-1] == "photos/a.jpg"
    assert table(one)[2].split()[-1] == str(tmp_path / "photos" / "a.jpg")


def test_a_caption_leaves_room_for_the_path_of_its_image() -> None:
    one = answer(hit(1, "x#0", "word " * 50, uri="/photos/a.jpg"), to=Modality.TEXT)
    line = table(one, width=80)[2]
    assert line.endswith("…  /photos/a.jpg")
    far = answer(hit(1, "x#0", "word " * 50, uri="/p" * 40 + ".jpg"), to=Modality.TEXT)
    caption, path = table(far, width=80)[2:]
    assert caption.endswith("…")
    assert path.strip() == "/p" * 40 + ".jpg"


def test_output_to_a_file_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    answers.print_answers([answer(hit(1, caption=long), to=Modality.TEXT)], "table")
    assert long.strip() in capsys.readouterr().out


def test_no_hits_and_errors_are_reported_in_a_table() -> None:
    assert table(answer(query="red")) == ["images for red", "no hits"]
    failed = answer(query="x", to=Modality.TEXT, error="not valid UTF-8\x1b")
    assert table(answer(query="red"), failed)[2:] == [
        "",
        "captions for x",
        "error: not valid UTF-8\\x1b",
    ]


def judged(rank: int, probability: float, *, weak: bool) -> Hit:
    return replace(hit(rank), probability=probability, weak=weak)


def test_weak_hits_are_marked_and_a_query_without_a_good_one_says_so() -> None:
    mixed = table(answer(judged(1, 0.873, weak=False), judged(2, 0.004, weak=True)))
    assert mixed[1:] == [
        "rank    score  right       id  path",
        "   1   0.5000   87 %       id  /p",
        "   2   0.2500  < 1 % weak  id  /p",
    ]
    [*_, last] = table(answer(judged(1, 0.01, weak=True)))
    assert last.startswith("nothing matches")
    [_, only] = table(answer(good=True))
    assert only.startswith("nothing matches")
    row = printed([answer(judged(1, 0.873, weak=False))], "tsv")[1]
    assert row.split("\t")[6:] == ["", "0.873000", "0"]


def test_visible_keeps_all_scripts_and_shows_hidden_characters() -> None:
    """Joiners, which Persian and emoji need, are kept; overrides and the BOM are escaped."""
    assert visible("می‌خواهم 👩‍👧 日本　語") == "می‌خواهم 👩‍👧 日本　語"
    assert visible("\ufeff\u202e\U000e0041\n") == "\\ufeff\\u202e\\U000e0041\\n"


def test_paths_are_printed_once_each_as_bytes() -> None:
    hits = [hit(n, uri=uri) for n, uri in enumerate(["/a b", "/c\nd", "/a b", "/\udcff"], 1)]
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", io.TextIOWrapper(buffer, encoding="utf-8", newline=""))
        answers.print_answers([answer(*hits)], "paths", end="\0")
        sys.stdout.flush()
    assert buffer.getvalue() == b"/a b\0/c\nd\0/\xff\0"
