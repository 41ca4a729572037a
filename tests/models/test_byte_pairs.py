"""The tokens of CLIP's tokenizer are those of open_clip."""

from __future__ import annotations

import gzip
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from mmindex.core.errors import DataError
from mmindex.core.resources import data_dir
from mmindex.models.byte_pairs import BytePairs, read_merges
from mmindex.models.resolve import open_clip_dir
from support.models import write_merges

CLIP = open_clip_dir() / "bpe_simple_vocab_16e6.txt.gz"
SCENES = data_dir() / "models" / "scenes-clip" / "bpe_merges.txt.gz"
HOSTILE = [
    "",
    " ",
    "\n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2003\u2028\u3000",
    "a dog's tail, they'LL've 'S 'ſ don't 'D 're'M 't'T",
    "x" * 10_000,
    "word " * 2_000,
    "".join(chr(0x4E00 + 7 * number) for number in range(2_500)),
    "🦆👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈👍🏿 1️⃣",
    "一只红色的猫在蓝色的狗上面。",
    "שלום עולם مرحبا بالعالم नमस्ते สวัสดี ᠮᠣᠩᠭᠣᠯ",
    "&amp; &amp;lt;b&amp;gt; &lt;p&gt; &#x1F986; &#128; &#0; &#xD800; &#1114112; &notit; &",
    "e\u0301 a\u030a\u0323 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞ \u0345ι\u0345",
    "\x00\x01\x07\x08\x1b[31mred\x1b[0m\x7f\x80\x9f\ufeff\u200b\u200e\u202e",
    "<start_of_text> <end_of_text>a<END_OF_TEXT>!<start_of_text> <ſtart_of_text>",
    "\ud83d broken \udc00\ud800",
    "İI ıi ẞß ΑΣ Σ ﬁ ſ K Å Ⅷ ½ ² ٣ 三 ⑦ ǅ",
    "doesnâ€™t Ã©tÃ© “quotes” ‘single’ ＦＵＬＬ",
    "a_b-c--d__e...f!!!?#$%^&*()+={}[]|\\:;\"'<>,./~`",
    "http://example.org/?a=1&b=2#x user@example.org C:\\dir",
    "1234567890 3.14 1e-7 0x7f ⅒",
]
CONTEXTS = (1, 2, 3, 8, 40, 77, 78, 300)


@cache
def pair(merges: Path) -> tuple[BytePairs, SimpleTokenizer]:
    return read_merges(merges), SimpleTokenizer(bpe_path=str(merges))


def same(merges: Path, texts: list[str], context_length: int) -> None:
    ours, theirs = pair(merges)
    expected = theirs(texts, context_length).numpy()
    found = ours(texts, context_length)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("context_length", CONTEXTS)
@pytest.mark.parametrize("merges", [CLIP, SCENES], ids=["clip", "scenes"])
def test_hostile_texts_have_the_tokens_of_open_clip(merges: Path, context_length: int) -> None:
    same(merges, HOSTILE, context_length)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(codec=None), max_size=60),
    st.text(st.sampled_from("<>_&;#x'ſs</w> ste"), max_size=40),
    st.sampled_from(CONTEXTS),
)
def test_any_text_has_the_tokens_of_open_clip(text: str, near: str, context_length: int) -> None:
    same(CLIP, [text, near], context_length)


def test_letters_of_every_category_have_the_tokens_of_open_clip() -> None:
    """Every 23rd character, and all that change when their case is folded."""
    letters = [
        chr(number)
        for number in range(sys.maxunicode + 1)
        if number % 23 == 0 or chr(number).casefold() != chr(number)
    ]
    texts = ["".join(letters[start : start + 50]) for start in range(0, len(letters), 50)]
    same(CLIP, texts, 500)


@pytest.mark.parametrize(
    "lines",
    [
        "# heading\nt h\nth e</w>\n",  # an empty last line takes a number
        "# heading\nt h\n\nth e</w>\nt h\nh e",  # empty and repeated
        "# heading\nab c</w>\na b\nb c</w>",  # not in the order of training
        "# heading\na b c\nb c</w>\n a  b ",  # not pairs
        "# heading",
        "",
    ],
)
def test_an_unusual_file_of_merges_is_read_as_by_open_clip(tmp_path: Path, lines: str) -> None:
    merges = tmp_path / "merges.txt.gz"
    merges.write_bytes(gzip.compress(lines.encode()))
    same(merges, ["the abc thththe bcbc", "", "a b c"], 24)


def test_the_cache_of_words_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_merges(tmp_path / "merges.txt.gz")
    pairs = read_merges(tmp_path / "merges.txt.gz")
    monkeypatch.setattr("mmindex.models.vocabulary.CACHED_WORDS", 3)
    once = pairs(["the red dog on a cat"], 24)
    np.testing.assert_array_equal(pairs(["the red dog on a cat"], 24), once)
    assert len(pairs._known) == 3


@pytest.mark.parametrize(
    "data",
    [b"not gzip", gzip.compress(b"a b")[:-9], gzip.compress(b"\xff")],
    ids=["no gzip", "cut", "no utf-8"],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"m\.gz: not a compressed text file"):
        read_merges(tmp_path / "m.gz")
