"""The duplicates page: what can be deleted, where it is, and why an image is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.insight.dedup import Group, KeptFor, Member, near_duplicates
from mmindex.pages.duplicates import dedup_page
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import write_pngs
from support.models import FakeEncoder
from support.pages import HOSTILE, Page, assert_self_contained
from support.stores import image_store


def member(name: str, width: int, size: int, *, keep: bool = False, same: bool = False) -> Member:
    return Member(name, f"/nowhere/{name.replace(chr(0), '')}", width, 10, size, 0.99, keep, same)


@pytest.fixture
def published(tmp_path: Path) -> Snapshot:
    [path] = write_pngs(tmp_path / "p", 1)
    copy = tmp_path / "p" / "copy.png"
    copy.write_bytes(path.read_bytes())
    images = {"f/one.png": path, "g/copy.png": copy}
    image_store(tmp_path / "s", images, [], FakeEncoder())
    return open_snapshot(tmp_path / "s")


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([(90, 500)], KeptFor.PIXELS),
        ([(100, 50)], KeptFor.BYTES),
        ([(100, 100)], KeptFor.ORDER),
        ([(90, 100), (100, 99)], KeptFor.BYTES),
        ([(100, 99), (100, 100)], KeptFor.ORDER),
    ],
)
def test_the_reason_distinguishes_the_kept_image(
    others: list[tuple[int, int]], why: KeptFor
) -> None:
    kept = member("kept", 100, 100, keep=True, same=True)
    group = Group((kept, *(member("other", width, size) for width, size in others)))
    assert group.kept_for is why


def test_exact_copies_are_marked(published: Snapshot, tmp_path: Path) -> None:
    groups = near_duplicates(published, 0.9)
    page = dedup_page(published, groups, 0.9, tmp_path / "page.html")
    assert_self_contained(page)
    assert "exact copy" in page
    assert "Exact copies: keep the first one in the corpus." in page
    links = [tmp_path / (link["href"] or "") for link in Page(page).named("a")]
    assert {link.resolve() for link in links} == set((tmp_path / "p").iterdir())
    assert str(tmp_path) not in page


def test_space_is_summed_for_each_folder(published: Snapshot) -> None:
    first = Group(
        (
            member("a/1", 9, 9_000, keep=True, same=True),
            member("b/2", 8, 7_000),
            member("a/3", 8, 500),
        )
    )
    second = Group((member("c/4", 9, 9_000, keep=True, same=True), member("b/5", 8, 3_000)))
    page = dedup_page(published, [first, second], 0.9)
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    assert [text.strip() for text in Page(table).texts["td"]] == ["2", "10.0 kB", "1", "0.5 kB"]
    assert "10.5 kB to free" in page
    assert "3 of 5 images in 2 groups can be deleted" in page
    assert "similarity 0.9900" in page


def test_hostile_names_are_shown_and_inert(published: Snapshot) -> None:
    names = [text.replace("\ud83d", "") for text in HOSTILE]
    members = [member(name, 9, 9, keep=n == 0, same=n == 0) for n, name in enumerate(names)]
    page = dedup_page(published, [Group(tuple(members))], 0.9)
    assert_self_contained(page)
    assert "<script>alert(1)</script>" in Page(page).texts["bdi"]
    assert "\u202e" not in page


def test_a_page_without_duplicates_gives_advice(published: Snapshot) -> None:
    page = dedup_page(published, [], 0.98)
    assert_self_contained(page)
    assert "similarity of 0.98 or more" in page
    assert "Try a lower threshold" in page


def test_left_out_groups_are_counted(published: Snapshot) -> None:
    many = [member(f"x/{n}", 9, 9, keep=n == 0, same=n == 0) for n in range(50)]
    page = dedup_page(published, [Group(tuple(many))] * 30, 0.9)
    assert "The first 40 of 50 are shown." in page
    assert "5 more groups are not on this page." in page
