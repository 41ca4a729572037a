from __future__ import annotations

from pathlib import Path

import pytest
from open_clip.tokenizer import SimpleTokenizer

from mmindex.train.folder import learn_merges, vocabulary_size, write_merges

CAPTIONS = ["A red boat on the sea.", "Two red boats, and a dog's house", "the sea at night"] * 3


@pytest.fixture
def tokenizer(tmp_path: Path) -> SimpleTokenizer:
    write_merges(tmp_path / "merges.txt.gz", learn_merges(CAPTIONS, 500))
    return SimpleTokenizer(bpe_path=str(tmp_path / "merges.txt.gz"), context_length=40)


def test_every_word_of_a_small_corpus_becomes_one_token(tokenizer: SimpleTokenizer) -> None:
    assert len(tokenizer.encode("two red boats on the sea .")) == 7


def test_the_vocabulary_has_the_size_that_the_model_is_built_with(
    tokenizer: SimpleTokenizer,
) -> None:
    merges = learn_merges(CAPTIONS, 500)
    assert len(merges) < 500
    assert tokenizer.vocab_size == vocabulary_size(len(merges))


@pytest.mark.parametrize("text", ["海上的红船", "лодка", "قارب", "🚤 zzyzx 42"])
def test_text_of_any_script_is_tokenised(tokenizer: SimpleTokenizer, text: str) -> None:
    spelt = tokenizer.decode(tokenizer.encode(text))
    assert spelt.replace(" ", "") == text.replace(" ", "")


def test_the_most_frequent_pair_is_merged_first_and_ties_go_by_the_alphabet() -> None:
    assert learn_merges(["ab ab ab cd cd ef ef"], 3) == [
        ("a", "b</w>"),
        ("c", "d</w>"),
        ("e", "f</w>"),
    ]


def test_the_same_captions_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_merges(tmp_path / name, learn_merges(CAPTIONS, 50))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
