"""Items without a vector are removed from the tables and quarantined."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.core.records import QuarantineEntry, Reason
from mmindex.encode.decoding import Failure
from mmindex.encode.survivors import drop_failed
from mmindex.runs.context import QUARANTINE_FLOOR, emptied_gate, quarantine_gate
from mmindex.store.manifest import SourceSummary
from mmindex.store.objects import Objects
from mmindex.store.quarantine import count_kept_out, count_reasons
from support.images import write_pngs
from support.tables import image_key, text_key, write_corpus

BAD = Failure(Reason.BAD_VECTOR, "the model gave NaN, infinity or zero")


def test_a_failed_image_removes_its_captions_and_a_failed_caption_only_itself(
    objects: Objects, tmp_path: Path
) -> None:
    paths = write_pngs(tmp_path / "pictures", 2)
    corpus = write_corpus(objects, paths, ["of 0", "of 1", "\ud83d broken", "of 1 too"])
    lost = image_key(paths[1].read_bytes())
    failed = {lost: BAD, text_key("\ud83d broken"): BAD, text_key("of 1"): BAD}
    images, captions, entries = drop_failed(objects, corpus.images, corpus.captions, failed)
    assert (images.rows, captions.rows) == (1, 1)
    ids = objects.read_table(corpus.images)["image_id"].to_pylist()
    assert [(entry.id, entry.reason, entry.uri) for entry in entries] == [
        (ids[1], Reason.BAD_VECTOR, str(paths[1])),
        (f"{ids[0]}#2", Reason.BAD_CAPTION, str(paths[0])),
    ]
    assert count_kept_out(entries) == (1, 1)
    assert count_reasons(entries) == {"bad_vector": 1}


def test_without_failures_the_tables_are_the_same_objects(objects: Objects, tmp_path: Path) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 2), ["a"])
    assert drop_failed(objects, corpus.images, corpus.captions, {}) == (
        corpus.images,
        corpus.captions,
        [],
    )


def source(*, images: int = 100, captions: int = 100) -> SourceSummary:
    return SourceSummary(
        spec="folder:/photos",
        name="photos",
        seen=images,
        images=images,
        captions=captions,
        quarantined=0,
        ignored=0,
    )


@pytest.mark.parametrize("reason", [Reason.BAD_VECTOR, Reason.BAD_CAPTION])
def test_images_and_captions_have_separate_limits(reason: Reason) -> None:
    def entries(count: int) -> list[QuarantineEntry]:
        return [
            QuarantineEntry(f"id{n}", "", "photos", "encode", reason, BAD.detail)
            for n in range(count)
        ]

    other = Reason.BAD_CAPTION if reason is Reason.BAD_VECTOR else Reason.BAD_VECTOR
    few = [QuarantineEntry("other", "", "photos", "encode", other, BAD.detail)] * QUARANTINE_FLOOR
    assert quarantine_gate([source()], [*few, *entries(QUARANTINE_FLOOR)], 0.01) is None
    error = quarantine_gate([source()], [*few, *entries(QUARANTINE_FLOOR + 1)], 0.01)
    what = "captions" if reason is Reason.BAD_CAPTION else "items"
    assert error is not None
    assert error.message == (
        f"11 of 100 {what} of folder:/photos are unusable (11 {reason}); at most 10 are allowed"
    )


def test_a_source_that_lost_all_captions_stops_the_build_unless_permitted() -> None:
    before, after = [source()], [source(captions=0)]
    error = emptied_gate(before, after, 0.5)
    assert error is not None
    assert "had 100 captions in the last version and has none now" in error.message
    assert emptied_gate(before, after, 1.0) is None
    assert emptied_gate([source(captions=0)], after, 0.5) is None
