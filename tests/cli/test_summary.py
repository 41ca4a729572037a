"""The last lines of a build."""

from __future__ import annotations

from pathlib import Path

from mmindex_cli.summary import run_lines
from support.fakestore import run_build, write_photos
from support.models import FakeEncoder


def test_the_summary_and_the_report_count_truncated_texts(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a.jpg": 1, "b.jpg": 2})
    # "drawing 1" fits, "a square 1" does not.
    report = run_build(tmp_path / "store", photos, encoder=FakeEncoder(context=2)).report
    assert report.reports["encode"]["cut_texts"] == 2
    line = dict(run_lines(report))["encoded"]
    assert line == "2 images, 4 texts (2 truncated to the context of the model)"


def test_the_summary_does_not_mention_truncation_if_every_text_fits(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a.jpg": 1, "b.jpg": 2})
    report = run_build(tmp_path / "store", photos).report
    assert report.reports["encode"]["cut_texts"] == 0
    assert dict(run_lines(report))["encoded"] == "2 images, 4 texts"
