"""A model that is unsuitable for the images causes one warning."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mmindex.search.query import open_session
from mmindex.search.vectorize import warning_about
from mmindex.store.manifest import SourceSummary
from support.stores import with_manifest


@pytest.mark.parametrize(
    ("model", "spec", "said"),
    [
        ("embedded", "folder:/photos", "drawn scenes only"),
        ("embedded", "scenes:20", None),
        ("photos", "folder:/photos", None),
    ],
)
def test_the_scenes_model_warns_about_other_images(
    store: Path, model: str, spec: str, said: str | None
) -> None:
    with open_session(store) as session:
        snapshot = session.snapshot
        encoder = msgspec.structs.replace(snapshot.encoder, model=model)
        source = SourceSummary(spec, "s", 10, 10, 0, 0, 0)
        told = warning_about(with_manifest(snapshot, encoder=encoder, sources=(source,)))
    assert (told is None) if said is None else (told is not None and said in told)


def test_a_session_warns_once(store: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("mmindex.search.vectorize.warning_about", lambda _: "out of place")
    with open_session(store) as session:
        session.filtered("width > 0")
    assert caplog.text.count("out of place") == 1
