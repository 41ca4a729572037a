"""Truncated, hostile and odd JSON is decoded strictly, or refused with the position."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import DataError
from mmindex.sources.annotations import decode_json, json_column


class Row(msgspec.Struct):
    id: int
    text: str


class Content(msgspec.Struct):
    rows: list[Row]


GOOD = b'{"info": {"x": 1.5}, "rows": [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]}'


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        decode_json(data, Content, "captions.json")
    assert caught.value.message.startswith("captions.json: ")
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_truncated_file_names_the_byte_where_it_ends(length: int) -> None:
    assert f"byte {length}" in refusal(GOOD[:length])
    assert f"byte {length + 3}" in refusal(b"\xef\xbb\xbf" + GOOD[:length])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GOOD.replace(b"1.5", b"NaN"), "byte 15"),
        (GOOD.replace(b"1.5", b"Infinity"), "byte 15"),
        (GOOD.replace(b"1.5", b"-Infinity"), "byte 16"),
        (GOOD.replace(b"1.5", b"1e400"), "out of range"),
        (GOOD.replace(b"1.5", b"1" + b"0" * 400 + b".5"), "out of range"),
        (GOOD.replace(b'"id": 2', b'"id": 1e400'), "out of range"),
        (GOOD.replace(b'"id": 2', b'"id": "2"'), "$.rows[1].id"),
        (GOOD.replace(b'"id": 2', b'"id": null'), "$.rows[1].id"),
        (GOOD.replace(b'"id": 2, ', b""), "$.rows[1]"),
        (GOOD.replace(b'"b"', b"[1]"), "$.rows[1].text"),
        (b"[]", "Expected `object`"),
        (b'{"rows": {}}', "$.rows"),
        (b"{}", "rows"),
        (GOOD + b"{}", "trailing characters"),
        (b"<html>", "byte 0"),
        (GOOD.replace(b'"b"', b'"\xff"'), "not UTF-8 at byte 73"),
        (GOOD.decode().encode("utf-16"), "byte 0"),
    ],
)
def test_malformed_files_and_other_structures_are_named(data: bytes, words: str) -> None:
    assert words in refusal(data)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_very_deep_nesting_is_refused_without_a_trace(opening: bytes) -> None:
    assert "nested too deep" in refusal(b'{"info": ' + opening * 200_000)
    refusal(opening * 200_000)


def test_a_byte_order_mark_is_accepted() -> None:
    assert decode_json(b"\xef\xbb\xbf" + GOOD, Content, "x")[0].rows[1].text == "b"


def test_texts_are_read_exactly() -> None:
    texts = ["", " ", "\0", "\u202eabc", "<script>", "=HYPERLINK(1)", "\x1b[31m", "a\nb", "狗 🐕"]
    for ascii_only in (True, False):
        data = json.dumps(
            {"rows": [{"id": 1, "text": text} for text in texts]}, ensure_ascii=ascii_only
        )
        content, replaced = decode_json(data.encode(), Content, "x")
        assert [row.text for row in content.rows] == texts
        assert replaced == 0


def test_a_lone_surrogate_becomes_the_replacement_character_and_is_counted() -> None:
    data = rb'{"rows": [{"id": 1, "text": "\ud800 \\ud800 \ud83d\ude00 \udc00\ud83d \uD83D\\"}]}'
    content, replaced = decode_json(data, Content, "x")
    assert content.rows[0].text == "\ufffd \\ud800 \U0001f600 \ufffd\ufffd \ufffd\\"
    assert replaced == 4


@settings(deadline=None)  # a machine may be busy
@given(st.text(st.characters(categories=None)))
def test_any_text_decodes_to_itself_but_for_lone_surrogates(text: str) -> None:
    data = json.dumps({"rows": [{"id": 1, "text": text}]}).encode()
    expected = json.loads(json.dumps(text))  # joins two adjacent lone surrogates
    got = decode_json(data, Content, "x")[0].rows[0].text
    assert got == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in expected)


@settings(deadline=None)  # a machine may be busy
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused_or_decoded(data: bytes) -> None:
    try:
        decode_json(data, Content, "x")
    except DataError:
        return


def test_lists_and_objects_are_kept_as_their_json() -> None:
    assert json_column({"a": [1, "é"]}) == '{"a":[1,"é"]}'
    assert [json_column(value) for value in (None, True, 3, 0.5, "x")] == [None, True, 3, 0.5, "x"]
