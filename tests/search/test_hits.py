"""Hits: from keys to the rows of the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.hits import Limit, Ranked, captions_of, find_image, hits
from mmindex.store.snapshot import Snapshot
from support.stores import captions_table, images_table, key_of, make_store

HALF_SURROGATE = "half \ud83d of a face"
CAPTIONS = [
    ("a", "a red bus"),
    ("a", "a bus on a street"),
    ("b", "a red bus"),
    ("c", HALF_SURROGATE),
    ("c", "一只猫坐在窗台上"),
]
BUS, CAT = key_of(b"bus"), key_of(b"cat")


@pytest.fixture(params=["read", "looked up"])
def corpus(tmp_path: Path, request: pytest.FixtureRequest) -> Snapshot:
    """Images a and b have the same bytes; there are two rows in a row group."""
    images = images_table([("a", BUS, "/p/a.jpg"), ("b", BUS, "z.zip!b.jpg"), ("c", CAT, "/p/c")])
    store = make_store(tmp_path, images, captions_table(CAPTIONS), {}, None, group_rows=2)
    if request.param == "looked up":
        for table in ("images", "captions"):
            store.rows(table, now=True)
    return store


def test_the_same_bytes_under_two_names_are_two_hits_in_the_tables_order(
    corpus: Snapshot,
) -> None:
    [answer] = hits(corpus, Modality.IMAGE, [Ranked([BUS, CAT], [0.5, 0.25])], Limit())
    assert answer == (
        Hit(1, 0.5, "a", "/p/a.jpg", None, "a"),
        Hit(2, 0.5, "b", "z.zip!b.jpg", None, "b"),
        Hit(3, 0.25, "c", "/p/c", None, "c"),
    )


def test_k_counts_hits_with_all_rows_of_duplicates(
    corpus: Snapshot,
) -> None:
    [answer] = hits(corpus, Modality.IMAGE, [Ranked([CAT, BUS], [0.5, 0.25])], Limit(k=2))
    assert [hit.id for hit in answer] == ["c", "a"]


def test_a_text_hit_names_its_caption_its_text_and_its_image(
    corpus: Snapshot,
) -> None:
    ranked = Ranked([key_of("a red bus"), key_of(HALF_SURROGATE)], [0.5, 0.25])
    [answer] = hits(corpus, Modality.TEXT, [ranked], Limit())
    assert answer == (
        Hit(1, 0.5, "a#0", "/p/a.jpg", "a red bus", "a"),
        Hit(2, 0.5, "b#0", "z.zip!b.jpg", "a red bus", "b"),
        Hit(3, 0.25, "c#0", "/p/c", HALF_SURROGATE, "c"),
    )


def test_hits_below_the_wanted_score_are_left_out(corpus: Snapshot) -> None:
    ranked = [Ranked([BUS, CAT], [0.5, 0.25]), Ranked([CAT], [0.1])]
    first, second = hits(corpus, Modality.IMAGE, ranked, Limit(min_score=0.3))
    assert [hit.id for hit in first] == ["a", "b"]
    assert second == ()


def test_rounding_never_shows_a_cosine_above_one(corpus: Snapshot) -> None:
    [[hit]] = hits(corpus, Modality.IMAGE, [Ranked([CAT], [1.0001])], Limit())
    assert hit.score == 1.0


def test_each_query_of_a_batch_gets_its_own_answer(corpus: Snapshot) -> None:
    ranked = [Ranked([CAT], [0.5]), Ranked([], []), Ranked([BUS], [0.4]), Ranked([CAT], [0.3])]
    answers = hits(corpus, Modality.IMAGE, ranked, Limit())
    assert [[hit.id for hit in answer] for answer in answers] == [["c"], [], ["a", "b"], ["c"]]
    assert hits(corpus, Modality.IMAGE, [], Limit()) == []


def test_a_key_that_no_row_has_is_damage_and_is_reported(corpus: Snapshot) -> None:
    with pytest.raises(DataError, match="its table does not"):
        hits(corpus, Modality.IMAGE, [Ranked([key_of(b"dog")], [0.5])], Limit())


def test_an_image_is_found_by_id_uri_and_content(corpus: Snapshot) -> None:
    by_id = find_image(corpus, "image_id", "b")
    assert by_id is not None
    assert find_image(corpus, "uri", "z.zip!b.jpg") == by_id
    first = find_image(corpus, "key", BUS)
    assert first is not None
    assert first.image_id == "a"
    assert find_image(corpus, "image_id", "nobody") is None
    assert find_image(corpus, "image_id", "\ud800") is None


def test_captions_come_in_the_tables_order(corpus: Snapshot) -> None:
    assert captions_of(corpus, ["a", "c", "x"]) == {
        "a": ["a red bus", "a bus on a street"],
        "c": [HALF_SURROGATE, "一只猫坐在窗台上"],
    }
