"""Truncated texts are distinguished from those that fit exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mmindex.core.resources import data_dir
from mmindex.models.files import TokenizerSpec, locate
from mmindex.models.resolve import ModelRequest
from mmindex.models.tokenizer import MAX_CHARACTERS, Tokenizer, make_tokenizer

CONTEXT = 16
PAD, START, END, CLASS = 0, 1, 2, 3


def clip_spec() -> TokenizerSpec:
    merges = locate(ModelRequest("ViT-B-32", "none")).tokenizer.merges
    return TokenizerSpec("simple", "", merges, CONTEXT, {})


def photos_spec() -> TokenizerSpec:
    vocabulary = data_dir() / "models" / "photos-clip" / "vocab.txt.gz"
    return TokenizerSpec("wordpiece", "", vocabulary, CONTEXT, {})


@pytest.fixture(params=[clip_spec, photos_spec], ids=["clip", "photos"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make_tokenizer(request.param())


def cut(tokenizer: Tokenizer, texts: list[str]) -> list[bool]:
    """Return whether each text was truncated, tested one by one and all together."""
    shortened = [text.strip()[:MAX_CHARACTERS] for text in texts]
    alone = [
        tokenizer.count_cut([text], tokenizer([short])) == 1
        for text, short in zip(texts, shortened, strict=True)
    ]
    assert tokenizer.count_cut(texts, tokenizer(shortened)) == sum(alone)
    return alone


def test_an_exact_fit_is_not_cut_and_one_word_more_is(tokenizer: Tokenizer) -> None:
    room = CONTEXT - 2  # start and end marks
    texts = ["dog " * words for words in (0, 1, room - 1, room, room + 1, room + 2, 500)]
    assert cut(tokenizer, texts) == [False, False, False, False, True, True, True]


def test_tokens_count_and_not_words(tokenizer: Tokenizer) -> None:
    assert cut(tokenizer, ["electroencephalographically " * 4, "a &gt; b " * 2]) == [True, False]


def test_a_text_of_too_many_characters_is_cut_however_few_its_tokens(tokenizer: Tokenizer) -> None:
    # Both tokenizers drop the spaces in between.
    spread = "a" + " " * MAX_CHARACTERS + "dog"
    assert cut(tokenizer, [spread, " " * MAX_CHARACTERS + "dog"]) == [True, False]


def test_only_texts_that_fill_their_row_are_tokenised_again() -> None:
    calls: list[list[str]] = []
    made = make_tokenizer(clip_spec())

    def tokenize(texts: list[str], context_length: int) -> NDArray[np.int64]:
        calls.append(texts)
        return made.tokenize(texts, context_length)

    counting = Tokenizer(tokenize, CONTEXT, made.pad)
    texts = ["a dog", "dog " * 14, "a cat", "dog " * 15]
    assert counting.count_cut(texts, counting(texts)) == 1
    assert calls == [texts, [texts[1].strip(), texts[3].strip()]]
    calls.clear()
    assert counting.count_cut(["a dog"], counting(["a dog"])) == 0
    assert calls == [["a dog"]]


def layout(
    texts: list[str],
    context_length: int,
    *,
    start: list[int],
    end: list[int],
    pad: int,
    before: bool = False,
    last: list[int],
) -> NDArray[np.int64]:
    """Give each word a token from 10, with marks and padding like those of a tokenizer."""
    rows = []
    for text in texts:
        words = [10 + number for number, _ in enumerate(text.split())]
        room = context_length - len(start) - len(end) - len(last)
        row = [*start, *words[:room], *end]
        padding = [pad] * (context_length - len(last) - len(row))
        rows.append([*padding, *row, *last] if before else [*row, *padding, *last])
    return np.array(rows)


@pytest.mark.parametrize(
    ("start", "end", "pad", "before", "last"),
    [
        ([START], [END], PAD, False, []),
        ([START], [END], PAD, True, []),
        ([START], [PAD], PAD, False, []),  # without the end mark
        ([], [END], END, False, []),  # SigLIP: the end mark is the padding
        ([], [], PAD, False, []),
        ([START], [END], PAD, False, [CLASS]),
    ],
)
def test_truncation_is_detected_in_every_layout_of_marks_and_padding(
    start: list[int], end: list[int], pad: int, before: bool, last: list[int]
) -> None:
    def tokenize(texts: list[str], context_length: int) -> NDArray[np.int64]:
        return layout(
            texts, context_length, start=start, end=end, pad=pad, before=before, last=last
        )

    tokenizer = Tokenizer(tokenize, CONTEXT, pad, class_last=bool(last))
    room = CONTEXT - len(start) - len(end) - len(last)
    texts = ["dog " * words for words in (1, room - 1, room, room + 1, room + 2, 100)]
    assert cut(tokenizer, texts) == [False, False, False, True, True, True]
