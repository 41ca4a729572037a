"""Queries over a published store: texts, pictures, ids, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmindex.encode.encoder import Encoder, Float32
from mmindex.errors import DataError, ModelMismatchError, NoInputError, UsageError
from mmindex.records import Modality
from mmindex.search.hits import Cut
from mmindex.search.parts import Part, Question, read_part
from mmindex.search.published import Published, open_published
from mmindex.search.query import BATCH, Session
from support.models import FakeEncoder
from support.pictures import png, write_pictures
from support.stores import picture_store

COLOURS = ("red", "green", "blue", "white", "black")


def no_model() -> Encoder:
    raise AssertionError("this query needs no model")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten pictures of five colours, two captions each; picture 0 is there under a second name."""
    paths = write_pictures(tmp_path / "pictures", 10)
    pictures = {f"folder/pictures/{path.name}": path for path in paths}
    twin = tmp_path / "pictures" / "twin.png"
    twin.write_bytes(paths[0].read_bytes())
    pictures["folder/pictures/twin.png"] = twin
    captions = [
        (image_id, text)
        for number, image_id in enumerate(list(pictures)[:10])
        for text in (f"a {COLOURS[number % 5]} square", f"picture number {number}")
    ]
    picture_store(tmp_path / "store", pictures, captions, FakeEncoder())
    return tmp_path / "store"


@pytest.fixture
def published(store: Path) -> Published:
    return open_published(store)


@pytest.fixture
def session(published: Published) -> Session:
    return Session(published, FakeEncoder)


def ids_of(session: Session, text: str, k: int = 10) -> list[str]:
    return [hit.id for hit in session.text(text, None, Cut(k)).hits]


def test_a_text_finds_pictures_unless_said_otherwise(session: Session) -> None:
    answer = session.text("a green thing", None, Cut(2))
    assert (answer.query, answer.to, answer.version) == ("a green thing", Modality.IMAGE, 1)
    assert {hit.id for hit in answer.hits} == {
        "folder/pictures/00001.png",
        "folder/pictures/00006.png",
    }
    assert [hit.rank for hit in answer.hits] == [1, 2]
    assert answer.hits[0].score >= answer.hits[1].score
    assert answer.hits[0].caption is None


def test_a_text_finds_captions_when_asked_to(session: Session) -> None:
    answer = session.text("a blue thing", Modality.TEXT, Cut(3))
    assert answer.hits[0].caption == "a blue square"
    assert answer.hits[0].id == "folder/pictures/00002.png#0"
    assert answer.hits[0].uri.endswith("pictures/00002.png")


def test_k_beyond_the_corpus_gives_everything_once(session: Session) -> None:
    found = ids_of(session, "red", k=10_000)
    assert len(found) == len(set(found)) == 11


def test_the_same_picture_under_two_names_is_found_under_both(session: Session) -> None:
    answer = session.image("folder/pictures/00000.png", Modality.IMAGE, Cut(2))
    assert [hit.id for hit in answer.hits] == [
        "folder/pictures/00000.png",
        "folder/pictures/twin.png",
    ]
    assert answer.hits[0].score == answer.hits[1].score > 0.999


def test_a_file_of_the_corpus_finds_itself_first_without_loading_a_model(
    published: Published, tmp_path: Path
) -> None:
    """Also a copy elsewhere: it is known by its bytes."""
    copy = tmp_path / "copy-of-3"
    copy.write_bytes((tmp_path / "pictures" / "00003.png").read_bytes())
    with Session(published, no_model) as session:
        answer = session.image(str(copy), Modality.IMAGE, Cut(3))
    assert answer.hits[0].id == "folder/pictures/00003.png"
    assert answer.hits[0].score > 0.999
    assert answer.picture == str(copy)


def test_a_new_file_is_encoded(session: Session, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    new.write_bytes(png(101))
    answer = session.image(str(new), Modality.IMAGE, Cut(2))
    assert {hit.id for hit in answer.hits} == {
        "folder/pictures/00001.png",
        "folder/pictures/00006.png",
    }


def test_a_picture_of_the_corpus_is_known_by_id_and_by_uri_after_its_file_is_gone(
    published: Published, tmp_path: Path
) -> None:
    path = tmp_path / "pictures" / "00004.png"
    path.unlink()
    with Session(published, no_model) as session:
        for name in ("folder/pictures/00004.png", str(path)):
            answer = session.image(name, Modality.IMAGE, Cut(1))
            assert [hit.id for hit in answer.hits] == ["folder/pictures/00004.png"]
            assert answer.hits[0].score > 0.999


def test_a_picture_finds_captions_where_the_corpus_has_any(session: Session) -> None:
    answer = session.image("folder/pictures/00002.png", None, Cut(2))
    assert answer.to is Modality.TEXT
    assert {hit.caption for hit in answer.hits} == {"a blue square"}


def test_a_picture_finds_pictures_where_the_corpus_has_no_captions(tmp_path: Path) -> None:
    [path] = write_pictures(tmp_path / "p", 1)
    picture_store(tmp_path / "bare", {"a": path}, [], FakeEncoder())
    with Session(open_published(tmp_path / "bare"), no_model) as session:
        assert session.image("a", None, Cut()).to is Modality.IMAGE
        with pytest.raises(NoInputError, match="no captions to search"):
            session.image("a", Modality.TEXT, Cut())


def test_hits_below_the_wanted_score_are_left_out(session: Session) -> None:
    answer = session.image("folder/pictures/00002.png", Modality.IMAGE, Cut(10, min_score=0.999))
    assert [hit.id for hit in answer.hits] == ["folder/pictures/00002.png"]


def test_another_model_is_refused_naming_both_fingerprints(published: Published) -> None:
    with (
        Session(published, lambda: FakeEncoder(seed=1)) as session,
        pytest.raises(ModelMismatchError) as caught,
    ):
        session.text("red", None, Cut())
    assert published.encoder.fingerprint[:12] in caught.value.message
    assert FakeEncoder(seed=1).info.fingerprint[:12] in caught.value.message


def test_the_model_is_loaded_once_and_let_go(published: Published) -> None:
    made: list[FakeEncoder] = []

    def load() -> Encoder:
        made.append(FakeEncoder())
        return made[-1]

    with Session(published, load) as session:
        session.text("red", None, Cut())
        session.text("blue", None, Cut())
    assert [encoder.closed for encoder in made] == [1]


def test_every_line_gets_its_answer_in_order_errors_included(session: Session) -> None:
    lines = [b"\xef\xbb\xbfred\n", b"\n", "une place bleue ☃\r\n".encode(), b"\xff\xfe\n", b"blue"]
    answers = list(session.lines(lines, None, Cut(1)))
    assert [answer.query for answer in answers] == [
        "red",
        "",
        "une place bleue ☃",
        "\\xff\\xfe",
        "blue",
    ]
    assert [answer.error for answer in answers] == [
        None,
        "the query is empty",
        None,
        "not valid UTF-8: invalid start byte",
        None,
    ]
    assert [len(answer.hits) for answer in answers] == [1, 0, 1, 0, 1]


def test_many_lines_are_answered_in_batches_as_if_asked_alone(published: Published) -> None:
    encoder = FakeEncoder()
    texts = [f"a {COLOURS[n % 5]} thing {n}" for n in range(BATCH + 44)]
    with Session(published, lambda: encoder) as session:
        answers = list(session.lines((text.encode() + b"\n" for text in texts), None, Cut(3)))
        assert encoder.text_batches == [BATCH, 44]
        assert [answer.query for answer in answers] == texts
        for number in (0, BATCH, BATCH + 43):
            assert answers[number] == session.text(texts[number], None, Cut(3))


def test_lines_are_answered_as_they_come(session: Session) -> None:
    """A stream without end is answered batch by batch."""
    asked = 0

    def endless() -> object:
        nonlocal asked
        while True:
            asked += 1
            yield b"red\n"

    next(session.lines(endless(), None, Cut(1)))  # type: ignore[arg-type]  # a generator of bytes
    assert asked == BATCH


class NanEncoder(FakeEncoder):
    def encode_texts(self, texts: object) -> Float32:
        vectors = super().encode_texts(texts)  # type: ignore[arg-type]
        vectors[["nan" in str(text) for text in texts]] = np.nan  # type: ignore[attr-defined]
        return vectors


def test_a_text_without_a_usable_vector_spoils_only_its_own_answer(published: Published) -> None:
    with Session(published, NanEncoder) as session:
        answers = list(session.lines([b"red", b"nan", b"blue"], None, Cut(1)))
        assert [answer.error is None for answer in answers] == [True, False, True]
        with pytest.raises(DataError, match="no usable vector"):
            session.text("nan", None, Cut())


def test_an_empty_text_is_refused(session: Session) -> None:
    with pytest.raises(UsageError, match="empty"):
        session.text("  ", None, Cut())


def test_a_name_that_is_neither_file_nor_id_nor_uri_is_refused(session: Session) -> None:
    with pytest.raises(NoInputError, match=r"nobody\.jpg"):
        session.image("nobody.jpg", None, Cut())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.jpg", b"<html>not found</html>", "not_an_image"),
        ("empty.jpg", b"", "empty"),
        ("cut.png", png(77)[:60], "truncated"),
    ],
)
def test_a_file_that_is_no_picture_is_refused_with_its_reason(
    session: Session, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        session.image(str(path), None, Cut())


@pytest.mark.parametrize("name", ["nul\0byte", "~nobody/x.jpg", ""])
def test_a_name_that_no_file_can_have_is_no_input(session: Session, name: str) -> None:
    with pytest.raises(NoInputError, match="no such file"):
        session.image(name, None, Cut(1))


def test_a_folder_is_no_picture(session: Session, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unreadable"):
        session.image(str(tmp_path), None, Cut())


def test_a_photo_that_is_turned_by_exif_is_asked_as_people_see_it(
    session: Session, tmp_path: Path
) -> None:
    """Top half red, bottom half blue, stored upside down: equal to the upright picture."""
    upright = Image.new("RGB", (40, 40), "red")
    upright.paste("blue", (0, 20, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    upright.save(tmp_path / "upright.png")
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    answers = [
        session.image(str(tmp_path / name), Modality.IMAGE, Cut(3))
        for name in ("upright.png", "turned.png")
    ]
    assert answers[0].hits == answers[1].hits


def test_asking_by_id_imports_neither_torch_nor_open_clip(store: Path) -> None:
    """A fresh process answers an id from stored vectors alone."""
    script = (
        "import sys; from pathlib import Path\n"
        "from mmindex.search.hits import Cut\n"
        "from mmindex.search.query import open_session\n"
        "with open_session(Path(sys.argv[1])) as session:\n"
        "    answer = session.image('folder/pictures/00002.png', None, Cut(1))\n"
        "print(answer.hits[0].caption, 'torch' in sys.modules, 'open_clip' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["a", "blue", "square", "False", "False"]


def text(value: str) -> Part:
    return Part(Modality.TEXT, value)


def picture(value: str) -> Part:
    return Part(Modality.IMAGE, value)


def asked(session: Session, question: Question, k: int = 3) -> list[str]:
    found = session.ask(question, Modality.IMAGE, Cut(k)).hits
    return [hit.id.removeprefix("folder/pictures/") for hit in found]


def test_a_question_of_one_part_is_the_plain_query(session: Session) -> None:
    for part, plain in ((text("red"), session.text), (picture("folder/pictures/00002.png"),
                                                      session.image)):  # fmt: skip
        question = Question((part,), weights=(3.0,))
        assert session.ask(question, None, Cut(5)) == plain(part.value, None, Cut(5))


def test_text_and_picture_meet_in_between(session: Session) -> None:
    """Halfway between red and blue lie both reds and both blues; weights pull."""
    both = Question((text("red"), picture("folder/pictures/00002.png")))
    answer = session.ask(both, None, Cut(5))
    assert answer.to is Modality.IMAGE
    assert answer.query == "red + folder/pictures/00002.png"
    assert answer.picture is not None
    names = {hit.id.rpartition("/")[2] for hit in answer.hits}
    assert names == {"00000.png", "twin.png", "00005.png", "00002.png", "00007.png"}
    red = replace(both, weights=(0.95, 0.05))
    assert set(asked(session, red)) == {"00000.png", "twin.png", "00005.png"}


def test_what_is_not_wanted_sinks(session: Session) -> None:
    plain = asked(session, Question((text("white"),)), k=11)
    without = asked(session, Question((text("white"),), (text("red"),), (1.0, 1.0)), k=11)
    reds = {"00000.png", "twin.png", "00005.png"}
    assert sum(without.index(name) for name in reds) > sum(plain.index(name) for name in reds)


def test_more_like_these_leaves_these_out(published: Published) -> None:
    """From stored vectors alone; the twin has the same content, so it is one of these."""
    these = (picture("folder/pictures/00000.png"), picture("folder/pictures/00003.png"))
    with Session(published, no_model) as session:
        assert {"00000.png", "00003.png"} <= set(asked(session, Question(these), k=5))
        others = asked(session, Question(these, others=True), k=2)
        assert set(others) == {"00005.png", "00008.png"}
        assert len(asked(session, Question(these, others=True), k=50)) == 8
        with pytest.raises(UsageError, match="captions are searched"):
            session.ask(Question(these, others=True), Modality.TEXT, Cut())


def test_the_score_of_a_composed_query_is_the_cosine_with_its_vector(session: Session) -> None:
    """So that is what a least score is compared with."""
    question = Question((text("red"), text("blue")))
    every = session.ask(question, None, Cut(11))
    assert all(-1 <= hit.score <= 1 for hit in every.hits)
    least = every.hits[3].score
    kept = session.ask(question, None, Cut(11, min_score=least))
    assert kept.hits == tuple(hit for hit in every.hits if hit.score >= least)


def test_a_picture_that_cannot_be_used_ends_the_question(session: Session) -> None:
    with pytest.raises(NoInputError, match="nobody"):
        session.ask(Question((text("red"), picture("nobody.jpg"))), None, Cut())


@pytest.mark.parametrize("side", list(Modality))
def test_hits_fulfil_the_condition_of_the_session(published: Published, side: Modality) -> None:
    """Rows, not contents: the twin has the same bytes under a name that does not fulfil it."""
    names = ("folder/pictures/00000.png", "folder/pictures/00003.png")
    where = f"image_id in {names}"
    with Session(published, FakeEncoder, where) as session:
        answer = session.text("red", side, Cut(50))
        assert {hit.image_id for hit in answer.hits} == set(names)
        assert len(answer.hits) == (2 if side is Modality.IMAGE else 4)
        assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))


def test_nothing_fulfils_the_condition_is_an_empty_answer(published: Published) -> None:
    with Session(published, FakeEncoder, "width > 100000") as session:
        for side in Modality:
            answer = session.text("red", side, Cut())
            assert (answer.hits, answer.error) == ((), None)


def test_a_part_is_a_picture_where_there_is_such_a_file_or_id(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "pictures")
    expected = {
        "00001.png": picture("00001.png"),
        "folder/pictures/00001.png": picture("folder/pictures/00001.png"),
        str(tmp_path / "pictures" / "00001.png"): picture(str(tmp_path / "pictures" / "00001.png")),
        "text:00001.png": text("00001.png"),
        "image:nowhere": picture("nowhere"),
        "red/blue": text("red/blue"),
        "a cat": text("a cat"),
        "nul\0byte": text("nul\0byte"),
        "~nobody/00001.png": text("~nobody/00001.png"),
        "longer than any name " * 30: text("longer than any name " * 30),
    }
    assert {word: read_part(word, published) for word in expected} == expected
    with pytest.raises(UsageError, match="empty"):
        read_part("text: ", published)
