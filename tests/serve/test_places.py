"""The service shows locations of photographs only if it was started with permission."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.corpora import write_files
from support.fakestore import run_build
from support.models import FakeEncoder
from support.photo_files import photograph

PHOTO = "folder%2Fphotos%2F0.jpg"


@pytest.fixture
def store(tmp_path: Path, encoder: FakeEncoder) -> Path:
    """A store of photographs; it overrides the store of drawings."""
    photos = write_files(tmp_path / "photos", {f"{n}.jpg": photograph(n) for n in range(3)})
    run_build(tmp_path / "store", photos, encoder=encoder)
    return tmp_path / "store"


def test_answers_contain_no_locations(start) -> None:
    served = start()
    image = served.get(f"/api/v1/images/{PHOTO}").json()
    assert image["camera"] == "Canon EOS 5D"
    assert not {"lat", "lon"} & image.keys()
    refused = served.get("/api/v1/search", params={"q": "red", "columns": "lat"})
    assert refused.status_code == 400
    assert "contains the locations of photos" in refused.json()["detail"]
    for page in (f"/picture/{PHOTO}", "/?q=red&sort=taken:desc", "/report"):
        assert "48.14" not in served.get(page).text


def test_locations_are_shown_if_permitted(start) -> None:
    served = start(with_location=True)
    assert served.get(f"/api/v1/images/{PHOTO}").json()["lat"] == pytest.approx(48.14)
    found = served.get("/api/v1/search", params={"q": "red", "columns": "lat", "k": "1"}).json()
    assert found["hits"][0]["columns"] == {"lat": pytest.approx(48.14)}


def test_conditions_on_places_are_always_possible(start) -> None:
    where = "distance_km(lat, lon, 48.14, 11.58) < 5"
    found = start().get("/api/v1/search", params={"q": "red", "where": where}).json()
    assert len(found["hits"]) == 3
