"""Queries of several parts and conditions: wanted and unwanted texts and images, weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.modality import Modality
from mmindex.search.hits import Limit
from mmindex.search.parts import Part, Question, read_part
from mmindex.search.query import Session
from mmindex.store.snapshot import Snapshot
from support.models import FakeEncoder, no_model


def text(value: str) -> Part:
    return Part(Modality.TEXT, value)


def image(value: str) -> Part:
    return Part(Modality.IMAGE, value)


def asked(session: Session, question: Question, k: int = 3) -> list[str]:
    found = session.ask(question, Modality.IMAGE, Limit(k)).hits
    return [hit.id.removeprefix("folder/pictures/") for hit in found]


def test_a_query_of_one_part_is_the_plain_query(session: Session) -> None:
    for part, plain in ((text("red"), session.text), (image("folder/pictures/00002.png"),
                                                      session.image)):  # fmt: skip
        question = Question((part,), weights=(3.0,))
        assert session.ask(question, None, Limit(5)) == plain(part.value, None, Limit(5))


def test_a_text_and_an_image_are_combined(session: Session) -> None:
    """Both reds and both blues are halfway between red and blue; weights change this."""
    both = Question((text("red"), image("folder/pictures/00002.png")))
    answer = session.ask(both, None, Limit(5))
    assert answer.to is Modality.IMAGE
    assert answer.query == "red + folder/pictures/00002.png"
    assert answer.image is not None
    names = {hit.id.rpartition("/")[2] for hit in answer.hits}
    assert names == {"00000.png", "twin.png", "00005.png", "00002.png", "00007.png"}
    red = replace(both, weights=(0.95, 0.05))
    assert set(asked(session, red)) == {"00000.png", "twin.png", "00005.png"}


def test_unwanted_images_sink(session: Session) -> None:
    plain = asked(session, Question((text("white"),)), k=11)
    without = asked(session, Question((text("white"),), (text("red"),), (1.0, 1.0)), k=11)
    reds = {"00000.png", "twin.png", "00005.png"}
    assert sum(without.index(name) for name in reds) > sum(plain.index(name) for name in reds)


def test_others_leaves_out_the_query_images(published: Snapshot) -> None:
    """Stored vectors are enough; the twin has the same content, so it is left out too."""
    these = (image("folder/pictures/00000.png"), image("folder/pictures/00003.png"))
    with Session(published, no_model) as session:
        assert {"00000.png", "00003.png"} <= set(asked(session, Question(these), k=5))
        others = asked(session, Question(these, others=True), k=2)
        assert set(others) == {"00005.png", "00008.png"}
        assert len(asked(session, Question(these, others=True), k=50)) == 8
        with pytest.raises(UsageError, match="searches captions"):
            session.ask(Question(these, others=True), Modality.TEXT, Limit())


def test_the_score_of_a_composed_query_is_the_cosine_with_its_vector(session: Session) -> None:
    """This is the score that ``min_score`` is compared with."""
    question = Question((text("red"), text("blue")))
    every = session.ask(question, None, Limit(11))
    assert all(-1 <= hit.score <= 1 for hit in every.hits)
    least = every.hits[3].score
    kept = session.ask(question, None, Limit(11, min_score=least))
    assert kept.hits == tuple(hit for hit in every.hits if hit.score >= least)


def test_an_image_that_cannot_be_used_fails_the_query(session: Session) -> None:
    with pytest.raises(NoInputError, match="nobody"):
        session.ask(Question((text("red"), image("nobody.jpg"))), None, Limit())


@pytest.mark.parametrize("side", list(Modality))
def test_hits_match_the_condition_of_the_session(published: Snapshot, side: Modality) -> None:
    """Rows count, not content: the twin has the same bytes, but a name that does not match."""
    names = ("folder/pictures/00000.png", "folder/pictures/00003.png")
    where = f"image_id in {names}"
    with Session(published, FakeEncoder, where) as session:
        answer = session.text("red", side, Limit(50))
        assert {hit.image_id for hit in answer.hits} == set(names)
        assert len(answer.hits) == (2 if side is Modality.IMAGE else 4)
        assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))


def test_a_session_whose_condition_matches_nothing_has_empty_answers(published: Snapshot) -> None:
    with Session(published, FakeEncoder, "width > 100000") as session:
        for side in Modality:
            answer = session.text("red", side, Limit())
            assert (answer.hits, answer.error) == ((), None)


def test_a_part_is_an_image_if_there_is_such_a_file_or_id(
    published: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "pictures")
    expected = {
        "00001.png": image("00001.png"),
        "folder/pictures/00001.png": image("folder/pictures/00001.png"),
        str(tmp_path / "pictures" / "00001.png"): image(str(tmp_path / "pictures" / "00001.png")),
        "text:00001.png": text("00001.png"),
        "image:nowhere": image("nowhere"),
        "red/blue": text("red/blue"),
        "a cat": text("a cat"),
        "nul\0byte": text("nul\0byte"),
        "~nobody/00001.png": text("~nobody/00001.png"),
        "longer than any name " * 30: text("longer than any name " * 30),
    }
    assert {word: read_part(word, published) for word in expected} == expected
    with pytest.raises(UsageError, match="empty"):
        read_part("text: ", published)
