"""Words: prompts of any kind become tokens, and tokens become inert text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.core.errors import DataError, UsageError
from mmindex.decoder.words import (
    ANSWER,
    END,
    MOST_WORDS,
    START,
    UNKNOWN,
    Vocabulary,
    learn_words,
    read_words,
    split_words,
)

VOCABULARY = Vocabulary(("how", "many", "boats", ",", "red"))


def test_words_are_lower_case_without_punctuation():
    assert split_words("How many snow-capped HILLS, and 2 boats?!") == [
        *("how", "many", "snow-capped", "hills", ",", "and", "2", "boats"),
    ]


def test_a_prompt_ends_where_the_answer_begins():
    assert VOCABULARY.prompt("How many yachts?") == [START, 5, 6, UNKNOWN, ANSWER]


@pytest.mark.parametrize("text", ["", "  ", "?!", "\x00\x1b[2J".replace("2J", ""), "\u202e"])
def test_a_question_without_words_is_refused(text):
    with pytest.raises(UsageError, match="no words"):
        VOCABULARY.prompt(text)


@pytest.mark.parametrize("text", ["word " * (MOST_WORDS + 1), "x" * 1_000_000])
def test_a_long_question_is_refused(text):
    with pytest.raises(UsageError, match=f"more than {MOST_WORDS} words"):
        VOCABULARY.prompt(text)


def test_an_answer_is_cut_and_its_text_comes_back():
    assert VOCABULARY.decode(VOCABULARY.answer("red boats, red")) == "red boats, red"
    assert len(VOCABULARY.answer("red " * 100)) == MOST_WORDS + 1


def test_nothing_after_the_end_is_text():
    assert VOCABULARY.decode([START, 9, END, 7, 7]) == "red"


def test_frequent_words_come_first():
    assert learn_words(["b a", "a c"]).words == ("a", "b", "c")


@pytest.mark.parametrize(
    "value", [None, "abc", [1], ["a b"], ["\x1b[2J"], ["a", "a"], ["x" * 100], [""], ["<end>"]]
)
def test_a_damaged_vocabulary_is_refused(value):
    with pytest.raises(DataError, match="vocabulary"):
        read_words(value)


@given(st.text())
def test_any_text_gives_known_tokens(text):
    assert all(0 <= token < len(VOCABULARY) for token in VOCABULARY.answer(text))


@pytest.mark.parametrize("text", ["xyzzy", "你好", "xyzzy plugh?"])
def test_a_question_without_a_known_word_is_refused(text):
    with pytest.raises(UsageError, match="knows none of the words"):
        VOCABULARY.prompt(text)
