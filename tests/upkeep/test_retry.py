"""Retrying quarantined items."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import NoInputError
from mmindex.core.records import ItemError, Reason
from mmindex.encode import decoding
from mmindex.media.uris import open_indexed, read_uri
from mmindex.store import quarantine, versions
from mmindex.upkeep.retry import RetryReport, retry_quarantined
from support.corpora import jpeg
from support.fakestore import fake_model, run_build, truncated_jpeg, write_photos
from support.hostile_server import HostileServer, Reply, hostile_server
from support.images import png
from support.models import FakeEncoder

IMAGES = {f"p{n}.jpg": n for n in range(6)}


def retry(place: Path, encoder: FakeEncoder | None = None) -> RetryReport:
    with fake_model(encoder or FakeEncoder()):
        return retry_quarantined(place / "store", uuid.uuid4().hex)


@pytest.fixture
def old_decoder(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A decoder that refuses the fourth image, until it is undone as if by a new release."""

    def refuse(uri: str, *args: Any) -> Any:
        if read_uri(uri) == jpeg(3):
            raise ItemError(Reason.CORRUPT, "an old decoder")
        return open_indexed(uri, *args)

    monkeypatch.setattr(decoding, "open_indexed", refuse)
    return monkeypatch


def test_an_image_that_can_now_be_decoded_is_recovered(
    place: Path, old_decoder: pytest.MonkeyPatch
) -> None:
    photos = write_photos(place / "photos", IMAGES, broken={"bad.jpg": truncated_jpeg(9)})
    assert run_build(place / "store", photos).manifest.counts.quarantined == 2
    old_decoder.undo()
    again = run_build(place / "store", photos)
    assert not again.published  # a build uses what is recorded
    encoder = FakeEncoder()
    report = retry(place, encoder)
    assert (report.tried, report.back) == (2, ("folder/photos/p3.jpg",))
    assert report.summary.published
    assert report.summary.manifest.counts.reasons == {"truncated": 1}
    assert encoder.image_batches == [1]
    layout = versions.open_layout(place / "store")
    assert [entry.id for entry in quarantine.read_ledger(layout)] == ["folder/photos/bad.jpg"]
    assert not run_build(place / "store", photos).published


def test_if_nothing_is_recovered_nothing_is_published(place: Path) -> None:
    photos = write_photos(place / "photos", IMAGES, broken={"bad.jpg": truncated_jpeg(9)})
    run_build(place / "store", photos)
    for _ in range(2):
        report = retry(place)
        assert (report.tried, report.back, report.summary.published) == (1, (), False)
    assert not run_build(place / "store", photos).published


def test_it_works_with_an_empty_quarantine_but_needs_a_version(
    place: Path,
) -> None:
    with pytest.raises(NoInputError):
        retry(place)
    run_build(place / "store", write_photos(place / "photos", IMAGES))
    assert retry(place).tried == 0


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        running.routes["/robots.txt"] = Reply(b"")
        yield running


def test_urls_that_failed_permanently_are_asked_again(place: Path, server: HostileServer) -> None:
    for n in range(5):
        server.routes[f"/{n}.png"] = Reply(png(n), headers={"Content-Type": "image/png"})
    server.routes["/3.png"] = Reply(b"", 404)
    lines = [json.dumps({"url": server.url(f"/{n}.png"), "id": str(n)}) for n in range(5)]
    (place / "list.jsonl").write_text("\n".join(lines))
    values = {
        "source": [f"urls:{place / 'list.jsonl'}"],
        "fetch__backoff_s": 0.01,
        "fetch__per_host_rate": 1000.0,
    }
    run_build(place / "store", place, fetch__allow_private=True, **values)
    server.routes["/3.png"] = Reply(png(3), headers={"Content-Type": "image/png"})
    report = retry(place)
    assert report.tried == 1
    assert server.hits["/0.png"] == 1
    # Private addresses are not allowed permanently: this request is refused.
    assert report.back == ()
    with fake_model(FakeEncoder()):
        report = retry_quarantined(place / "store", "again", {"fetch.allow_private": True})
    assert report.back == ("urls/list/3",)
    assert server.hits["/3.png"] == 2
