"""The word-piece tokenizer equals the reference."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mmindex.core.errors import DataError
from mmindex.core.resources import data_dir
from mmindex.models.wordpiece import WordPiece, read_vocabulary

VOCABULARY = data_dir() / "models" / "photos-clip" / "vocab.txt.gz"

# The result of tokenizers 0.22 with the original tokenizer.json.
EXPECTED = [
    ("", []),
    (" \t\n", []),
    ("A dog's red café!", ["a", "dog", "'", "s", "red", "cafe", "!"]),
    ("naïve Ångström —", ["naive", "ang", "##strom", "—"]),
    ("🐶 dog 👨\u200d👩\u200d👧", ["[UNK]", "dog", "[UNK]"]),
    ("海边的狗和猫", ["海", "[UNK]", "的", "[UNK]", "和", "[UNK]"]),
    ("İstanbul straße", ["istanbul", "st", "##ra\u00dfe"]),
    ("ΣΊΣΥΦΟΣ", ["σ", "##ι", "##σ", "##υ", "##φ", "##ο", "##σ"]),
    ("a\u200bzero\u00adwidth\ufeff mark\x00s", ["az", "##ero", "##wi", "##dt", "##h", "marks"]),
    ("$5+3=8 €9", ["$", "5", "+", "3", "=", "8", "€", "##9"]),
    ("x" * 101, ["[UNK]"]),
    ("electroencephalographically", ["electro", "##ence", "##pha", "##log", "##raphic", "##ally"]),
    ("кошка", ["к", "##о", "##ш", "##ка"]),
    ("नमस्ते", ["न", "##म", "##स", "##त"]),
    ("ﬁancé №5 ½", ["ﬁ", "##ance", "№", "##5", "½"]),
    ("a\x1cb\x85c\u3000d", ["abc", "d"]),
    ("don’t “quote” …", ["don", "’", "t", "“", "quote", "”", "…"]),
]


@pytest.fixture(scope="module")
def tokenizer() -> WordPiece:
    return WordPiece(read_vocabulary(VOCABULARY), 128)


def pieces(tokenizer: WordPiece, text: str) -> list[str]:
    names = {number: piece for piece, number in tokenizer.vocabulary.items()}
    return [names[number] for number in tokenizer.encode(text)]


@pytest.mark.parametrize(("text", "expected"), EXPECTED)
def test_awkward_texts_become_the_pieces_of_the_reference(
    tokenizer: WordPiece, text: str, expected: list[str]
) -> None:
    assert pieces(tokenizer, text) == ["[CLS]", *expected, "[SEP]"]


def test_ten_thousand_words_fill_the_context_and_no_more(tokenizer: WordPiece) -> None:
    found = pieces(tokenizer, "word " * 10_000)
    assert found == ["[CLS]", *["word"] * 126, "[SEP]"]


def test_a_written_marker_stays_text(tokenizer: WordPiece) -> None:
    assert pieces(tokenizer, "[SEP]")[1:-1] == ["[", "sep", "]"]


def test_a_batch_is_padded_with_zeros_to_its_longest_text(tokenizer: WordPiece) -> None:
    tokens = tokenizer(["a dog", "a dog on the beach", ""])
    assert tokens.shape == (3, 7)
    assert (tokens != 0).sum(axis=1).tolist() == [4, 7, 2]


@pytest.mark.parametrize(
    "data", [b"", b"not gzip", gzip.compress(b"\xff", mtime=0), gzip.compress(b"a\nb", mtime=0)]
)
def test_a_damaged_vocabulary_is_an_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "vocab.txt.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"vocab\.txt\.gz"):
        read_vocabulary(path)
