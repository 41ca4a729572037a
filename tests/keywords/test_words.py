"""Words of texts in any script; a query is text, never syntax."""

from __future__ import annotations

import pytest

from mmindex.keywords.words import MOST_CHARACTERS, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red bus, and a RED bike!", ["a", "red", "bus", "and", "a", "red", "bike"]),
        ("IMG_0042 (copy).JPG", ["img", "0042", "copy", "jpg"]),
        ("STRASSE straße ﬁn Ⅳ ｆｕｌｌ", ["strasse", "strasse", "fin", "iv", "full"]),
        ("café cafe\u0301", ["café", "café"]),
        ("हिन्दी ไทย", ["हिन्दी", "ไทย"]),
        ("红色汽车", ["红", "色", "汽", "车", "红色", "色汽", "汽车"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー", "東京", "京タ", "タワ", "ワー"]),
        ("빨간 차", ["빨", "간", "빨간", "차"]),
        ("abc红def", ["abc", "红", "def"]),
        ('"red" AND field:(x OR y)* -z ~2 \\', ["red", "and", "field", "x", "or", "y", "z", "2"]),
        ("a\0b\ud800c\u202ed", ["a", "b", "c", "d"]),
        ("", []),
        ("!!! … 🙂 \t\n \ud83d", []),
    ],
)
def test_words_of(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


def test_long_words_are_cut_and_long_texts_are_read_whole() -> None:
    assert list(words("x" * 1_000_000)) == ["x" * MOST_CHARACTERS]
    assert len(list(words("ab " * 300_000))) == 300_000
    assert len(list(words("红" * 100_000))) == 199_999
