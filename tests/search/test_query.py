"""Queries on a published store: texts, images, ids, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmindex.core.errors import DataError, ModelMismatchError, NoInputError, UsageError
from mmindex.core.modality import Modality
from mmindex.models.encoder import Encoder, Float32
from mmindex.search.hits import Limit
from mmindex.search.query import BATCH, Session
from mmindex.search.searcher import Searcher
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import COLOURS, png, write_pngs
from support.models import FakeEncoder, no_model
from support.stores import image_store


def ids_of(session: Session, text: str, k: int = 10) -> list[str]:
    return [hit.id for hit in session.text(text, None, Limit(k)).hits]


def test_a_text_finds_images_by_default(session: Session) -> None:
    answer = session.text("a green thing", None, Limit(2))
    assert (answer.query, answer.to, answer.version) == ("a green thing", Modality.IMAGE, 1)
    assert {hit.id for hit in answer.hits} == {
        "folder/pictures/00001.png",
        "folder/pictures/00006.png",
    }
    assert [hit.rank for hit in answer.hits] == [1, 2]
    assert answer.hits[0].score >= answer.hits[1].score
    assert answer.hits[0].caption is None


def test_a_text_finds_captions_when_asked_to(session: Session) -> None:
    answer = session.text("a blue thing", Modality.TEXT, Limit(3))
    assert answer.hits[0].caption == "a blue square"
    assert answer.hits[0].id == "folder/pictures/00002.png#0"
    assert answer.hits[0].uri.endswith("pictures/00002.png")


def test_k_beyond_the_corpus_gives_everything_once(session: Session) -> None:
    found = ids_of(session, "red", k=10_000)
    assert len(found) == len(set(found)) == 11


@pytest.mark.parametrize("to", list(Modality))
def test_an_id_opens_one_index_and_reads_the_keys_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, to: Modality
) -> None:
    """The vector of the image comes from the keys and vectors of its side, without the index."""
    opened, read = [], []
    open_index, read_table = Searcher.__init__, Objects.read_table
    monkeypatch.setattr(
        Searcher, "__init__", lambda self, *given, **more: (
            opened.append(given[1]), open_index(self, *given, **more))[1],
    )  # fmt: skip
    monkeypatch.setattr(
        Objects, "read_table", lambda self, ref, *columns: (
            read.append(ref.name), read_table(self, ref, *columns))[1],
    )  # fmt: skip
    session.image("folder/pictures/00000.png", to, Limit(2))
    assert opened == [to]
    assert read.count("ids/image") == 1


def test_the_same_image_under_two_names_is_found_under_both(session: Session) -> None:
    answer = session.image("folder/pictures/00000.png", Modality.IMAGE, Limit(2))
    assert [hit.id for hit in answer.hits] == [
        "folder/pictures/00000.png",
        "folder/pictures/twin.png",
    ]
    assert answer.hits[0].score == answer.hits[1].score > 0.999


def test_a_file_of_the_corpus_finds_itself_first_without_loading_a_model(
    published: Snapshot, tmp_path: Path
) -> None:
    """Also a copy in another place, which is recognised by its bytes."""
    copy = tmp_path / "copy-of-3"
    copy.write_bytes((tmp_path / "pictures" / "00003.png").read_bytes())
    with Session(published, no_model) as session:
        answer = session.image(str(copy), Modality.IMAGE, Limit(3))
    assert answer.hits[0].id == "folder/pictures/00003.png"
    assert answer.hits[0].score > 0.999
    assert answer.image == str(copy)


def test_a_new_file_is_encoded(session: Session, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    new.write_bytes(png(101))
    answer = session.image(str(new), Modality.IMAGE, Limit(2))
    assert {hit.id for hit in answer.hits} == {
        "folder/pictures/00001.png",
        "folder/pictures/00006.png",
    }


def test_an_image_of_the_corpus_is_known_by_id_and_by_uri_after_its_file_is_gone(
    published: Snapshot, tmp_path: Path
) -> None:
    path = tmp_path / "pictures" / "00004.png"
    path.unlink()
    with Session(published, no_model) as session:
        for name in ("folder/pictures/00004.png", str(path)):
            answer = session.image(name, Modality.IMAGE, Limit(1))
            assert [hit.id for hit in answer.hits] == ["folder/pictures/00004.png"]
            assert answer.hits[0].score > 0.999


def test_an_image_finds_captions_where_the_corpus_has_any(session: Session) -> None:
    answer = session.image("folder/pictures/00002.png", None, Limit(2))
    assert answer.to is Modality.TEXT
    assert {hit.caption for hit in answer.hits} == {"a blue square"}


def test_an_image_finds_images_where_the_corpus_has_no_captions(tmp_path: Path) -> None:
    [path] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "bare", {"a": path}, [], FakeEncoder())
    with Session(open_snapshot(tmp_path / "bare"), no_model) as session:
        assert session.image("a", None, Limit()).to is Modality.IMAGE
        with pytest.raises(NoInputError, match="no captions to search"):
            session.image("a", Modality.TEXT, Limit())


def test_hits_below_the_wanted_score_are_left_out(session: Session) -> None:
    answer = session.image("folder/pictures/00002.png", Modality.IMAGE, Limit(10, min_score=0.999))
    assert [hit.id for hit in answer.hits] == ["folder/pictures/00002.png"]


def test_another_model_is_refused_naming_both_fingerprints(published: Snapshot) -> None:
    with (
        Session(published, lambda: FakeEncoder(seed=1)) as session,
        pytest.raises(ModelMismatchError) as caught,
    ):
        session.text("red", None, Limit())
    assert published.encoder.fingerprint[:12] in caught.value.message
    assert FakeEncoder(seed=1).info.fingerprint[:12] in caught.value.message


def test_the_model_is_loaded_once_and_released(published: Snapshot) -> None:
    made: list[FakeEncoder] = []

    def load() -> Encoder:
        made.append(FakeEncoder())
        return made[-1]

    with Session(published, load) as session:
        session.text("red", None, Limit())
        session.text("blue", None, Limit())
    assert [encoder.closed for encoder in made] == [1]


def test_every_line_gets_its_answer_in_order_errors_included(session: Session) -> None:
    lines = [b"\xef\xbb\xbfred\n", b"\n", "une place bleue ☃\r\n".encode(), b"\xff\xfe\n", b"blue"]
    answers = list(session.lines(lines, None, Limit(1)))
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


def test_many_lines_are_answered_in_batches_like_single_queries(published: Snapshot) -> None:
    encoder = FakeEncoder()
    texts = [f"a {COLOURS[n % 5]} thing {n}" for n in range(BATCH + 44)]
    with Session(published, lambda: encoder) as session:
        answers = list(session.lines((text.encode() + b"\n" for text in texts), None, Limit(3)))
        assert encoder.text_batches == [BATCH, 44]
        assert [answer.query for answer in answers] == texts
        for number in (0, BATCH, BATCH + 43):
            assert answers[number] == session.text(texts[number], None, Limit(3))


def test_lines_are_answered_as_they_arrive(session: Session) -> None:
    """An endless stream is answered batch by batch."""
    asked = 0

    def endless() -> object:
        nonlocal asked
        while True:
            asked += 1
            yield b"red\n"

    next(session.lines(endless(), None, Limit(1)))  # type: ignore[arg-type]  # a generator of bytes
    assert asked == BATCH


class NanEncoder(FakeEncoder):
    def encode_texts(self, texts: object) -> Float32:
        vectors = super().encode_texts(texts)  # type: ignore[arg-type]
        vectors[["nan" in str(text) for text in texts]] = np.nan  # type: ignore[attr-defined]
        return vectors


def test_a_text_without_a_usable_vector_spoils_only_its_own_answer(published: Snapshot) -> None:
    with Session(published, NanEncoder) as session:
        answers = list(session.lines([b"red", b"nan", b"blue"], None, Limit(1)))
        assert [answer.error is None for answer in answers] == [True, False, True]
        with pytest.raises(DataError, match="no usable vector"):
            session.text("nan", None, Limit())


def test_a_query_longer_than_the_context_is_reported(
    published: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(published, lambda: FakeEncoder(context=3)) as session:
        session.text("a red thing", None, Limit(1))
        assert "context" not in caplog.text
        session.text("a red thing here", None, Limit(1))
        assert "longer than the context of the model" in caplog.text
        assert "cut=1 texts=1" in caplog.text
        session.texts(["red", "a red thing here", "a blue thing here"], Modality.IMAGE, Limit(1))
        assert "cut=2 texts=3" in caplog.text


def test_an_empty_text_is_refused(session: Session) -> None:
    with pytest.raises(UsageError, match="empty"):
        session.text("  ", None, Limit())


def test_a_name_that_is_neither_file_nor_id_nor_uri_is_refused(session: Session) -> None:
    with pytest.raises(NoInputError, match=r"nobody\.jpg"):
        session.image("nobody.jpg", None, Limit())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.jpg", b"<html>not found</html>", "not_an_image"),
        ("empty.jpg", b"", "empty"),
        ("cut.png", png(77)[:60], "truncated"),
    ],
)
def test_a_file_that_is_not_an_image_is_refused_with_its_reason(
    session: Session, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        session.image(str(path), None, Limit())


@pytest.mark.parametrize("name", ["nul\0byte", "~nobody/x.jpg", ""])
def test_an_impossible_file_name_is_no_input(session: Session, name: str) -> None:
    with pytest.raises(NoInputError, match="no such file"):
        session.image(name, None, Limit(1))


def test_a_folder_is_not_an_image(session: Session, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unreadable"):
        session.image(str(tmp_path), None, Limit())


def test_a_rotated_query_photo_is_turned_upright(session: Session, tmp_path: Path) -> None:
    """Top half red, bottom half blue, stored upside down: equal to the upright image."""
    upright = Image.new("RGB", (40, 40), "red")
    upright.paste("blue", (0, 20, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    upright.save(tmp_path / "upright.png")
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    answers = [
        session.image(str(tmp_path / name), Modality.IMAGE, Limit(3))
        for name in ("upright.png", "turned.png")
    ]
    assert answers[0].hits == answers[1].hits


def test_a_query_by_id_imports_neither_torch_nor_open_clip(store: Path) -> None:
    """A new process answers a query by id with stored vectors only."""
    script = (
        "import sys; from pathlib import Path\n"
        "from mmindex.search.hits import Limit\n"
        "from mmindex.search.query import open_session\n"
        "with open_session(Path(sys.argv[1])) as session:\n"
        "    answer = session.image('folder/pictures/00002.png', None, Limit(1))\n"
        "print(answer.hits[0].caption, 'torch' in sys.modules, 'open_clip' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["a", "blue", "square", "False", "False"]
