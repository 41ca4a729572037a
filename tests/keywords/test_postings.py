"""A segment has the words of its images, the same bytes each time, and is refused if damaged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mmindex.core.errors import DataError
from mmindex.keywords.postings import Segment, SegmentBuilder, write_segment
from mmindex.store import versions
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects

TEXTS = {3: "red bus red", 0: "bus", 7: "a 红 bus"}


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(versions.create_layout(tmp_path / "store"))


def segment(objects: Objects, texts: dict[int, str]) -> ObjectRef:
    builder = SegmentBuilder()
    for image, text in sorted(texts.items()):
        builder.add(image, Counter(text.split()))
    return write_segment(objects, 0, builder.table(), "digest")


def test_a_segment_has_the_images_of_each_word_in_order(objects: Objects) -> None:
    read = Segment(objects, segment(objects, TEXTS))
    found = {
        word: [part.ids.tolist(), part.counts.tolist()]
        for word in ("a", "bus", "red", "红", "re", "", "zz", "\U0010ffff")
        if (part := read.find(word)) is not None
    }
    assert found == {
        "a": [[7], [1]], "bus": [[0, 3, 7], [1, 1, 1]], "red": [[3], [2]], "红": [[7], [1]],
    }  # fmt: skip
    assert read.size == 4
    assert read.digest == "digest"
    assert read.count(8).tolist() == [1, 0, 0, 3, 0, 0, 0, 3]


def test_a_segment_without_words_has_none(objects: Objects) -> None:
    read = Segment(objects, segment(objects, {}))
    assert (read.size, read.find("bus")) == (0, None)
    assert read.count(2).tolist() == [0, 0]


def test_the_same_texts_have_the_same_bytes(objects: Objects) -> None:
    assert segment(objects, TEXTS) == segment(objects, dict(reversed(TEXTS.items())))
    assert segment(objects, TEXTS).sha256 != segment(objects, TEXTS | {9: "x"}).sha256


def test_a_segment_with_any_flipped_bit_is_refused(objects: Objects) -> None:
    ref = segment(objects, TEXTS)
    path = objects.layout.object(ref.sha256)
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(DataError, match="damaged"):
            Segment(Objects(objects.layout), ref)


@pytest.mark.parametrize("data", [b"", b"ARROW1\0\0", json.dumps([1]).encode(), b"PAR1" * 9])
def test_an_object_that_is_no_segment_is_refused(objects: Objects, data: bytes) -> None:
    def fill(staged) -> int:
        staged.write(data)
        return 0

    ref = objects.write("keywords/words/00000", fill)
    with pytest.raises(DataError, match="unreadable"):
        Segment(objects, ref)


def test_an_id_that_does_not_exist_is_an_error(objects: Objects) -> None:
    with pytest.raises(DataError, match=r"not in 0\.\.6"):
        Segment(objects, segment(objects, TEXTS)).count(7)
