"""The pages without scripts; every view has a URL."""

from __future__ import annotations

import re

import pyarrow as pa

from support.images import write_pngs
from support.pages import HOSTILE, Page
from support.serving import serving_store, wait_for
from support.stores import (
    Side,
    captions_table,
    encode_files,
    images_table,
    key_of,
    make_store,
)


def ready(served, path: str) -> None:
    """Wait for a page that is computed once per version."""
    wait_for(lambda: "refresh" not in served.get(path).headers)


def page(served, path: str, **params: str) -> Page:
    answer = served.get(path, params=params or None)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


def test_the_first_page_shows_some_images_and_a_field(served) -> None:
    seen = page(served, "/")
    assert [one["name"] for one in seen.named("input") if one.get("type") == "search"] == ["q"]
    assert len(seen.named("img")) == 12


def test_hits_link_to_their_images_and_keep_the_query(served) -> None:
    seen = page(served, "/", q="a red square")
    links = [one["href"] for one in seen.named("a") if one["href"].startswith("/picture/")]
    assert links
    assert all("q=a+red+square" in link for link in links)


def test_images_that_are_almost_the_same_share_a_card(served) -> None:
    """Twelve images of five colours, for a model that recognises little except colours."""
    text = served.get("/", params={"q": "a red square"}).text
    assert len(Page(text).named("img")) == 5
    assert "5 different images in 12 files" in text
    assert "2 near-duplicates" in text
    captions = served.get("/", params={"q": "a red square", "to": "text"}).text
    assert "near-duplicate" not in captions


def test_an_image_page_has_facts_neighbours_and_actions(served, images) -> None:
    name = next(iter(images))
    text = served.get(f"/picture/{name}", params={"q": "red"}).text
    for words in ("a red square 0", "More like this", "Not like this", "Back to the results"):
        assert words in text
    assert f"/api/v1/images/{name}/file" in text
    like = page(served, "/", image=name)
    assert all(name not in one["src"] for one in like.named("img")[1:])


def test_filters_stay_in_the_url_and_narrow_the_result(served) -> None:
    seen = page(served, "/", q="red", where="width > 9999")
    shown = served.get("/", params={"q": "red", "where": "width > 9999"}).text
    assert "is true for 0 of 12 images" in shown
    fields = {one["name"]: one.get("value") for one in seen.named("input") if "name" in one}
    assert fields["where"] == "width > 9999"
    assert len(page(served, "/", where="format = 'PNG'").named("img")) == 12


def test_any_column_with_few_values_is_a_filter(folder, encoder) -> None:
    """Columns of a source, quotes in names and values, lists, truths."""
    paths = write_pngs(folder / "own", 6)
    rows = [(f"own/{n}", key_of(path.read_bytes()), str(path)) for n, path in enumerate(paths)]
    table = images_table(rows)
    table = table.append_column('by "whom"', pa.array(["O'Neill", "<b>", None] * 2, pa.string()))
    table = table.append_column("stars", pa.array([1, 2, 3] * 2, pa.int32()))
    table = table.append_column("good", pa.array([True, False, None] * 2, pa.bool_()))
    tags = [["a", "b"], ["b"], []] * 2
    table = table.append_column("tags", pa.array(tags, pa.list_(pa.string())))
    side = Side([row[1] for row in rows], encode_files(encoder, [p.read_bytes() for p in paths]))
    own = folder / "own-store"
    make_store(own, table, captions_table([]), {"image": side}, encoder.info)
    with serving_store(own, folder / "own-cache") as served:
        text = served.get("/").text
        for name in ("is.by &#34;whom&#34;", "is.stars", "is.good", "is.tags"):
            assert f'name="{name}"' in text
        for filters, count in (
            ({'is.by "whom"': "O'Neill"}, 2),
            ({"is.stars": "3"}, 2),
            ({"is.good": "true"}, 2),
            ({"is.tags": "b"}, 4),
            ({"is.tags": "b", "is.good": "false"}, 2),
            ({"is.tags": "never"}, 0),
        ):
            shown = served.get("/", params=filters).text
            assert len(Page(shown).named("img")) == count
            asked = served.get("/", params={"q": "red", "k": "9", **filters})
            assert asked.status_code == 200
        assert served.get("/", params={"is.stars": "many", "q": "red"}).status_code == 400


def test_a_sort_order_applies_to_all_pages(served) -> None:
    ids = re.findall(r"/picture/(folder[^?\"]*)", served.get("/?q=red&sort=image_id:desc").text)
    assert ids[0] == "folder/pictures/00011.png"
    told = served.get("/?q=red&sort=colour")
    assert told.status_code == 400
    assert "no column" in told.text


def test_the_store_page_lists_its_versions(served) -> None:
    text = served.get("/about").text
    assert "1 (served)" in text
    assert "Kept as" in text


def test_mistakes_are_reported_on_the_page(served) -> None:
    for params in ({"q": "red", "where": "nope = 1"}, {"q": "red", "from": "soon"}):
        answer = served.get("/", params=params)
        assert answer.status_code == 400
        assert "The request failed" in answer.text
    assert served.get("/picture/not/there").status_code == 404


def test_an_uploaded_image_gets_a_url(served, images) -> None:
    with served.client() as client:
        sent = client.post("/picture", files={"picture": next(iter(images.values())).read_bytes()})
        assert sent.status_code == 303
        assert sent.headers["location"].startswith("/?picture=")
        shown = client.get(sent.headers["location"])
    assert shown.status_code == 200
    assert "like your image" in shown.text


def test_the_other_pages_exist(served) -> None:
    for path, words in (
        ("/duplicates", "duplicate"),
        ("/quarantine", "The quarantine is empty."),
        ("/about", "OK"),
    ):
        assert words in served.get(path).text
    assert served.get("/login", follow_redirects=False).status_code == 303


def test_computed_pages_have_the_search_form_and_links_to_images(served) -> None:
    for path in ("/duplicates", "/report"):
        ready(served, path)
        seen = page(served, path)
        assert [one["name"] for one in seen.named("input") if one.get("type") == "search"] == ["q"]
        links = [one["href"] for one in seen.named("a")]
        assert {"/", "/quarantine", "/about"} <= set(links)
        if path == "/duplicates":
            images = [link for link in links if link.startswith("/picture/")]
            assert images
            assert served.get(images[0]).status_code == 200
        sheet = next(one["href"] for one in seen.named("link"))
        assert served.get(sheet).headers["content-type"].startswith("text/css")
    assert served.get("/static/other.css").status_code == 404


def test_untrusted_texts_are_inert(served) -> None:
    for text in HOSTILE:
        if "\ud83d" in text:
            continue
        seen = page(served, "/", q=text)
        assert [one.get("src") for one in seen.named("script")] == ["/static/app.js"]
        assert not [key for _, attributes in seen.tags for key in attributes if key[:2] == "on"]


def test_the_policy_allows_no_inline_code(served) -> None:
    for path in ("/", "/about", "/quarantine", "/duplicates", "/report"):
        policy = served.get(path).headers["content-security-policy"]
        assert "unsafe-inline" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "<style" not in served.get(path).text
