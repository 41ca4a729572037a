"""Caption texts: one list of field names, one reader of values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import DataError
from mmindex.sources.captions import caption_fields, caption_texts, usable_captions


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["id", "caption", "text"], ("caption",)),
        (["alt", "TEXT"], ("TEXT",)),
        (["caption", "captions"], ("caption", "captions")),
        (["caption_10", "caption_9", "Caption 2", "caption"],
         ("caption", "Caption 2", "caption_9", "caption_10")),
        (["sentences_raw", "sentids"], ("sentences_raw",)),
        (["raw_captions"], ("raw_captions",)),
        (["alt_text", "comment"], ("comment",)),
        (["comment_number", "caption_id", "texture", "context", "captioned"], ()),
    ],
)  # fmt: skip
def test_caption_fields_are_recognised_by_name(names: list[str], found: tuple[str, ...]) -> None:
    assert caption_fields(names) == found


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("one", ["one"]),
        (None, []),
        (float("nan"), []),
        (["one", None, "two"], ["one", "two"]),
        ({"raw": "one", "tokens": ["one"]}, ["one"]),
        ({"tokens": ["x"], "raw": ["one", "two"]}, ["one", "two"]),
        ([{"text": "one"}, {"text": "two"}], ["one", "two"]),
        ([["one"], ["two"]], ["one", "two"]),
        ("", [""]),
    ],
)
def test_a_value_is_read_in_any_nesting(value: object, texts: list[str]) -> None:
    assert caption_texts(value, "here") == texts


@pytest.mark.parametrize("value", [7, 1.5, True, b"bytes", {"tokens": ["x"]}, [[[[["deep"]]]]]])
def test_anything_else_is_refused_by_name(value: object) -> None:
    with pytest.raises(DataError, match=r"^list\.jsonl:3: not a caption: "):
        caption_texts(value, "list.jsonl:3")


@settings(deadline=None)  # a machine may be busy
@given(st.lists(st.text()))
def test_blank_captions_are_dropped_and_the_others_keep_their_positions(texts: list[str]) -> None:
    usable = dict(usable_captions(texts))
    assert all(texts[place] == text and text.strip() for place, text in usable.items())
    assert all(not texts[place].strip() for place in set(range(len(texts))) - set(usable))
