"""The HTTP API: the answers of the commands, and errors that name the problem."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

import mmindex
from support.images import png


def search(served, **params):
    answer = served.get("/api/v1/search", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_text_is_answered_as_the_python_api_answers_it(served, store: Path) -> None:
    found = search(served, q="a red square", k=5)
    with mmindex.open(store) as index:
        hits = index.search("a red square", k=5)
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
    assert found["version"] == 1
    assert found["to"] == "image"
    assert {"rank", "score", "id", "uri", "caption"} <= found["hits"][0].keys()


def test_captions_columns_filters_and_pages(served) -> None:
    captions = search(served, q="a red square", to="text", k=2)
    assert all(hit["caption"].startswith("a ") for hit in captions["hits"])
    with_columns = search(served, q="red", columns="width,format", k=1)
    assert with_columns["hits"][0]["columns"] == {"width": 64, "format": "PNG"}
    assert search(served, q="red", where="width > 9999")["hits"] == []
    everything = search(served, q="red", k=12)["hits"]
    assert search(served, q="red", k=4, offset=4)["hits"] == everything[4:8]
    least = everything[3]["score"]
    assert len(search(served, q="red", k=12, min_score=least - 1e-6)["hits"]) == 4


def test_an_image_finds_itself_first_unless_it_is_left_out(served, images) -> None:
    name = next(iter(images))
    assert search(served, image=name)["hits"][0]["id"] == name
    others = search(served, image=name, others="1", k=12)["hits"]
    assert name not in [hit["id"] for hit in others]
    assert [hit["rank"] for hit in others] == list(range(1, 12))


def test_parts_of_a_query_count_together(served, images) -> None:
    names = list(images)
    liked = search(served, q="a red square", image=names[1], unlike=names[2], minus="blue", k=12)
    assert len(liked["hits"]) == 12
    assert liked["hits"] != search(served, q="a red square", k=12)["hits"]


def test_words_find_images_by_their_names(served, images) -> None:
    name = next(iter(images))
    file = name.rpartition("/")[2]
    assert search(served, q=file, by="words", k=1)["hits"][0]["id"] == name
    assert len(search(served, q="a red square", by="both", k=12)["hits"]) == 12
    page = served.get("/", params={"q": file, "by": "words"}).text
    assert "Scores are BM25" in page
    assert '<option value="words" selected>' in page
    page = served.get("/", params={"q": file, "by": "both", "good": "1"}).text
    assert "this query also uses words" in page
    for wrong in ({"by": "letters"}, {"by": "words", "image": name}, {"by": "both", "good": "1"}):
        answer = served.get("/api/v1/search", params={"q": "red", **wrong})
        assert answer.status_code == 400, answer.text


def test_an_uploaded_image_is_searched(served, images) -> None:
    name, path = next(iter(images.items()))
    with served.client() as client:
        answer = client.post("/api/v1/search?k=3", files={"picture": path.read_bytes()})
    assert answer.status_code == 200
    assert answer.json()["hits"][0]["id"] == name


def test_an_image_has_columns_captions_a_thumbnail_and_a_file(served, images) -> None:
    name, path = next(iter(images.items()))
    known = served.get(f"/api/v1/images/{name}").json()
    assert known["image_id"] == name
    assert known["captions"] == ["a red square 0"]
    thumbnail = served.get(f"/api/v1/images/{name}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (48, 40)
    again = served.get(
        f"/api/v1/images/{name}/thumbnail", headers={"If-None-Match": thumbnail.headers["etag"]}
    )
    assert again.status_code == 304
    file = served.get(f"/api/v1/images/{name}/file")
    assert file.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(file.content)) as sent, Image.open(path) as own:
        assert sent.convert("RGB").tobytes() == own.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "the query is empty"),
        ("q=", 400, "the query is empty"),
        ("q=red&k=0", 400, "k='0'"),
        ("q=red&k=1001", 400, "k='1001'"),
        ("q=red&k=ten", 400, "k='ten'"),
        ("q=red&offset=9999&k=1000", 400, "10,000 best hits"),
        ("q=red&to=sound", 400, "to='sound'"),
        ("q=red&min_score=7", 400, "min_score='7'"),
        ("q=red&min_score=nan", 400, "min_score='nan'"),
        ("q=red&where=wdth>3", 400, "there is no column 'wdth'"),
        ("q=red&where=width", 200, ""),
        ("q=red&columns=colour", 400, "no column 'colour'"),
        ("q=red&colour=red", 400, "unknown parameter 'colour'"),
        ("image=nothing/there", 404, "has no image 'nothing/there'"),
        ("picture=abc", 404, "no longer available"),
        ("q=" + "x" * 2001, 400, "2,001 characters"),
        ("&".join(f"image=i{n}" for n in range(17)), 400, "at most 16"),
    ],
)
def test_mistakes_are_reported_with_value_and_remedy(served, query, status, words) -> None:
    answer = served.get(f"/api/v1/search?{query}")
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        assert words in told["detail"]
        assert told["status"] == status


def test_the_columns_are_named_where_a_filter_is_wrong(served) -> None:
    told = served.get("/api/v1/search?q=red&where=colour='red'").json()
    assert "image_id" in told["remedy"]
    assert "width" in told["remedy"]


@pytest.mark.parametrize(
    "data", [b"no picture", b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", png(1)[:-30]]
)
def test_an_upload_that_is_not_an_image_is_415(served, data: bytes) -> None:
    with served.client() as client:
        answer = client.post("/api/v1/search", files={"picture": ("a.png", data)})
    assert answer.status_code == 415, answer.text


def test_an_explanation_is_a_png_without_a_word_of_the_file(served, images) -> None:
    name = next(iter(images))
    answer = served.get(f"/api/v1/images/{name}/explanation?q=a+red+square")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as shown:
        assert shown.size[0] >= 64
        assert not shown.info
    assert served.get(f"/api/v1/images/{name}/explanation").status_code == 400
    assert served.get("/api/v1/images/no/such/explanation?q=red").status_code == 404
    page = served.get(f"/picture/{name}?q=a+red+square&explain=1").text
    assert f"/api/v1/images/{name}/explanation?q=a+red+square" in page


def test_concurrent_texts_share_batches(served, encoder) -> None:
    texts = [f"a red square number {n}" for n in range(64)]
    encoder.text_batches.clear()
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda text: search(served, q=text, k=3), texts))
    assert [answer["query"] for answer in found] == texts
    assert sum(encoder.text_batches) == 64
    assert len(encoder.text_batches) < 64


def test_a_full_queue_refuses_searches_with_retry_after(start) -> None:
    served = start(queue=0)
    answer = served.get("/api/v1/search?q=red")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_status_openapi_metrics_and_health(served, store: Path) -> None:
    status = served.get("/api/v1/status").json()
    assert (status["version"], status["store"]) == (1, str(store))
    described = served.get("/api/v1/openapi.json").json()
    assert described["openapi"].startswith("3.")
    for path in described["paths"]:
        assert path.startswith("/api/v1/")
    search(served, q="red")
    text = served.get("/metrics").text
    assert 'mmindex_serve_requests_total{route="search",status="200"} ' in text
    assert "mmindex_serve_version 1.0" in text
    assert served.get("/healthz").text == "serving version 1\n"


def test_json_holds_no_raw_control_characters(served) -> None:
    answer = served.get("/api/v1/search", params={"q": "red \x1b[31m\u202e", "k": 1})
    assert b"\x1b" not in answer.content
    assert json.loads(answer.content)["query"] == "red \x1b[31m\u202e"
