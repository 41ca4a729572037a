"""``Index.search`` and its results."""

from __future__ import annotations

import inspect
import io
import json
import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

import mmindex
from mmindex.api import Side
from support.asking import run
from support.images import draw
from support.models import FakeEncoder
from support.stores import image_store

ID = "folder/pictures/00007.png"


def ask_both(index: mmindex.Index, arguments: list[str], **asked: Any) -> None:
    """The command and the API give the same hits."""
    done = run(*arguments, "--format", "json")
    assert done.exit_code == 0, done.output
    (answer,) = map(json.loads, done.stdout.splitlines())
    hits = index.search(**asked)
    assert (hits.to, hits.version) == (answer["to"], answer["version"])
    assert [(h.rank, round(h.score, 6), h.id, h.uri, h.caption) for h in hits] == [
        (h["rank"], h["score"], h["id"], h["uri"], h["caption"]) for h in answer["hits"]
    ]


def questions(images: dict[str, Path]) -> list[tuple[list[str], dict[str, Any]]]:
    """Queries of every kind, as passed to the command and to the API."""
    asked: list[tuple[list[str], dict[str, Any]]] = []
    texts = ["red", "a green square", "blue", "white", "black and red", "nothing known", "白い"]
    for text in texts:
        asked += [([text], {"text": text}), ([text, "--to", "text"], {"text": text, "to": "text"})]
    for name, path in list(images.items())[:5]:
        asked += [
            (["--image", name, "--to", "image"], {"image": name}),
            (["--image", str(path), "--to", "image"], {"image": path}),
            (["--image", name], {"image": name, "to": "text"}),
        ]
    where = "image_id >= 'folder/pictures/00010.png' and width = 64"
    for k in (1, 3, 50):
        asked += [
            (["red", "-k", str(k)], {"text": "red", "k": k}),
            (["red", "--where", where, "-k", str(k)], {"text": "red", "where": where, "k": k}),
            (
                ["blue", "--to", "text", "--where", where, "-k", str(k)],
                {"text": "blue", "to": "text", "where": where, "k": k},
            ),
        ]
    for score in (-1.0, 0.3, 0.9):
        asked.append((["white", "--min-score", str(score)], {"text": "white", "min_score": score}))
    first, second = list(images)[:2]
    asked += [
        (["red", "--plus", "blue"], {"text": "red", "plus": "blue"}),
        (["red", "--plus", first], {"text": "red", "plus": first}),
        (["red", "--plus", "text:" + first], {"text": "red", "plus": "text:" + first}),
        (["red", "--minus", "white"], {"text": "red", "minus": "white"}),
        (["red", "--minus", "white", "--minus", second],
         {"text": "red", "minus": ["white", second]}),
        (["red", "--plus", "blue", "--weights", "1,3"],
         {"text": "red", "plus": "blue", "weights": [1, 3]}),
        (["--plus", "blue", "--plus", "red"], {"plus": ["blue", "red"]}),
        (["--image", first, "--image", second, "--others"],
         {"image": [first, second], "others": True}),
        (["--image", first, "--others"], {"image": first, "others": True}),
        (["red", "--image", first, "--to", "text"], {"text": "red", "image": first, "to": "text"}),
    ]  # fmt: skip
    return asked


def test_fifty_queries_get_the_answers_of_the_command(
    index: mmindex.Index, images: dict[str, Path]
) -> None:
    asked = questions(images)
    assert len(asked) >= 50
    for arguments, values in asked:
        ask_both(index, arguments, **values)


def test_the_defaults_are_those_of_the_command(
    index: mmindex.Index, images: dict[str, Path]
) -> None:
    """A single image finds images here; this default differs from that of the command."""
    ask_both(index, ["red"], text="red")
    ask_both(index, ["--image", ID, "--to", "image"], image=ID)
    ask_both(index, ["--image", ID], image=ID, to=None)
    ask_both(index, ["red", "--image", ID], text="red", image=ID, to=None)
    with Image.open(images[ID]) as image:
        assert index.search(image=image, to=None).to == "text"
    assert index.search(vector=index.embed(texts=["red"])[0], to=None).to == "image"


def test_a_search_names_the_columns_it_wants(index: mmindex.Index) -> None:
    hits = index.search("red", k=2, columns=["width", "uri"])
    assert [dict(hit.metadata) for hit in hits] == [{"width": 64, "uri": h.uri} for h in hits]
    assert hits.to_arrow().column_names[6:] == ["width", "metadata.uri"]
    assert dict(next(index.search_many(["red"], columns=[]))[0].metadata) == {}
    with pytest.raises(mmindex.UsageError, match="no column 'widht'; did you mean 'width'"):
        index.search("red", columns=["widht"])


def test_invalid_texts_are_kept_on_request(index: mmindex.Index) -> None:
    asked = ["red", b"red\n", " ", b"\xff", "blue"]
    kept = list(index.search_many(asked, k=2, errors="keep"))
    assert [hits.error is None for hits in kept] == [True, True, False, False, True]
    assert kept[0] == kept[1] == index.search("red", k=2)
    assert not kept[2]
    assert "not valid UTF-8" in str(kept[3].error)
    with pytest.raises(mmindex.UsageError, match=r"texts\[2\] is empty"):
        list(index.search_many(asked))
    with pytest.raises(TypeError, match=r"texts\[0\]"):
        list(index.search_many([3], errors="keep"))  # type: ignore[list-item]
    with pytest.raises(mmindex.UsageError, match="`errors`"):
        index.search_many(["red"], errors="ignore")  # type: ignore[arg-type]


def test_hits_are_written_as_the_page_of_the_command(index: mmindex.Index, tmp_path: Path) -> None:
    for where in (None, "width < 0"):
        index.search("red", k=3, where=where, min_score=0.1).to_html(tmp_path / "api.html")
        condition = [] if where is None else ["--where", where]
        page = tmp_path / "command.html"
        done = run("red", "-k", "3", "--min-score", "0.1", "--html", str(page), *condition)
        assert done.exit_code == 0, done.output
        assert (tmp_path / "api.html").read_text("utf-8") == page.read_text("utf-8")


def test_many_texts_get_the_same_answers_as_single_texts(index: mmindex.Index) -> None:
    texts = [f"red {n}" for n in range(300)]
    many = list(index.search_many(iter(texts), k=4, where="width = 64"))
    assert many == [index.search(text, k=4, where="width = 64") for text in texts]
    assert [hits.query for hits in many] == texts


def test_every_image_finds_itself_first(index: mmindex.Index, images: dict[str, Path]) -> None:
    for name, path in images.items():
        for image in (name, str(path), path, Image.open(path), np.asarray(Image.open(path))):
            assert index.search(image=image, k=1)[0].id == name


def test_an_image_in_memory_counts_as_its_file(index: mmindex.Index, tmp_path: Path) -> None:
    """Also if EXIF rotates it, and if it is transparent."""
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(3).save(turned, exif=exif, quality=95)
    glass = draw(4).convert("RGBA")
    glass.putalpha(100)
    glass.save(clear)
    for path in (turned, clear):
        named = index.search(image=path)
        with Image.open(path) as image:
            opened = index.search(image=image)
        assert [(h.id, h.score) for h in opened] == [(h.id, h.score) for h in named]


def test_a_vector_of_any_length_searches_like_its_text(index: mmindex.Index) -> None:
    (vector,) = index.embed(texts=["a red square"])
    expected = [hit.id for hit in index.search("a red square")]
    for asked in (vector, vector * 7, vector.astype(np.float16), list(map(float, vector))):
        assert [hit.id for hit in index.search(vector=asked)] == expected
    both = index.search("blue", vector=vector, weights=[0.001, 1])
    assert [hit.id for hit in both] == expected


def test_a_hit_has_its_images_row_and_pixels(index: mmindex.Index) -> None:
    hit = index.search(image=ID)[0]
    assert (hit.rank, hit.id, hit.image_id, hit.caption) == (1, ID, ID, None)
    assert hit.metadata["width"] == 64
    assert hit.metadata["split"] == "all"
    assert "key" not in hit.metadata
    with pytest.raises(TypeError):
        hit.metadata["width"] = 1  # type: ignore[index]
    assert hit.image().tobytes() == draw(7).tobytes()
    caption = index.search("a blue square 7", to="text", k=1)[0]
    assert caption.caption == "a blue square 7"
    assert caption.id != caption.image_id == ID


def test_hits_are_a_sequence(index: mmindex.Index) -> None:
    hits = index.search("red", k=5)
    assert len(hits) == 5
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert hits[-1].rank == 5
    assert [hit.rank for hit in hits[1:3]] == [2, 3]
    assert isinstance(hits[1:3], mmindex.Hits)
    assert hits[0] in hits
    assert hits == index.search("red", k=5)
    assert hits != index.search("red", k=4)
    assert hits[0].id in repr(hits)


def test_tables_have_the_hits_and_their_metadata(index: mmindex.Index) -> None:
    hits = index.search("red", k=3, to="text")
    table = hits.to_arrow()
    assert table.column_names[:6] == ["rank", "score", "id", "uri", "caption", "image_id"]
    assert table["id"].to_pylist() == [hit.id for hit in hits]
    assert table["width"].to_pylist() == [64, 64, 64]
    assert index.search("red", where="width = 1").to_arrow().num_rows == 0


def test_a_data_frame_is_the_table(index: mmindex.Index) -> None:
    pytest.importorskip("pandas", reason="the extra [pandas] is not installed")
    hits = index.search("red", k=3, to="text")
    frame = hits.to_pandas()
    assert list(frame["caption"]) == [hit.caption for hit in hits]
    assert frame.shape == (3, hits.to_arrow().num_columns)


def test_without_pandas_the_error_names_the_extra(
    index: mmindex.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = index.search("red")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(mmindex.MissingPackageError) as error:
        hits.to_pandas()
    assert "mmindex[pandas]" in error.value.hint


def test_a_notebook_shows_images_and_escapes_untrusted_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: dict[str, Path]
) -> None:
    evil = "<script>alert(1)</script> \u202e & \"'"
    names = list(images)
    gone = dict(images)
    image_store(tmp_path / "evil", gone, [(names[0], evil)], FakeEncoder())
    monkeypatch.setattr("mmindex.search.vectorize._load", lambda *_: FakeEncoder())
    with mmindex.open(tmp_path / "evil") as index:
        shown = index.search("red", to="text")._repr_html_()
        assert "<script" not in shown
        assert "\u202e" not in shown
        assert "&lt;script&gt;" in shown
        assert 'src="data:image/jpeg;base64,' in shown
        asked = index.search("<b>red</b>", k=20)
        assert "<b>" not in asked._repr_html_()
        images[names[3]].unlink()
        assert "No image" in asked._repr_html_()
        assert asked[0]._repr_html_().count("<img") == 1
        with pytest.raises(mmindex.NoInputError, match=r"00003\.png"):
            next(hit for hit in asked if hit.id == names[3]).image()


def test_hits_outlive_the_index(store: Path) -> None:
    with mmindex.open(store) as index:
        hits = index.search("red", k=2)
        assert index.version == 1
        assert len(index) == 20
    assert hits[0].metadata["width"] == 64
    assert hits.to_arrow().num_rows == 2
    assert "closed" in repr(index)
    index.close()
    with pytest.raises(mmindex.UsageError, match="closed"):
        index.search("red")


WRONG_TYPES: list[dict[str, Any]] = [
    {"text": 3},
    {"text": b"red"},
    {"text": ["red", "blue"]},
    {"text": "red", "k": "3"},
    {"text": "red", "k": 3.0},
    {"text": "red", "k": True},
    {"text": "red", "where": 3},
    {"text": "red", "min_score": "high"},
    {"text": "red", "to": 1},
    {"text": "red", "weights": "1,2"},
    {"text": "red", "weights": ["a"]},
    {"image": 3},
    {"image": b"bytes"},
    {"image": io.BytesIO()},
    {"image": np.zeros((3, 3, 3), np.float32)},
    {"image": np.zeros((3, 3, 4), np.uint8)},
    {"text": "red", "others": 1},
    {"plus": 3},
    {"minus": 3, "text": "red"},
    {"vector": "red"},
    {"vector": ["a"] * 16},
]


@pytest.mark.parametrize("asked", WRONG_TYPES, ids=range(len(WRONG_TYPES)))
def test_a_wrong_type_is_a_type_error_at_the_call(
    index: mmindex.Index, asked: dict[str, Any]
) -> None:
    with pytest.raises(TypeError) as error:
        index.search(**asked)
    assert error.traceback[-1].path.name in {"given.py", "arguments.py"}


BAD_VALUES: list[tuple[dict[str, Any], type[mmindex.MmindexError], str]] = [
    ({}, mmindex.UsageError, "the query is empty"),
    ({"minus": "red"}, mmindex.UsageError, "the query is empty"),
    ({"text": "  "}, mmindex.UsageError, "`text` is empty"),
    ({"text": "", "image": ID}, mmindex.UsageError, "`text` is empty"),
    ({"text": "red", "k": 0}, mmindex.UsageError, "`k` is 0"),
    ({"text": "red", "k": 2**40}, mmindex.UsageError, "`k` is"),
    ({"text": "red", "min_score": 2}, mmindex.UsageError, "`min_score` is 2"),
    ({"text": "red", "min_score": float("nan")}, mmindex.UsageError, "`min_score`"),
    ({"text": "red", "to": "video"}, mmindex.UsageError, "'video'"),
    ({"text": "red", "where": "height >"}, mmindex.UsageError, "^`where`"),
    ({"text": "red", "where": "licence = 'x'"}, mmindex.UsageError, "'licence'"),
    ({"text": "red", "weights": [1, 2, 3]}, mmindex.UsageError, "`weights` has 3"),
    ({"text": "red", "minus": "red", "weights": [1, 1]}, mmindex.UsageError, "cancel"),
    ({"text": "red", "plus": ""}, mmindex.UsageError, "empty"),
    ({"image": ""}, mmindex.UsageError, "empty"),
    ({"image": ID, "others": True, "to": "text"}, mmindex.UsageError, "`others`"),
    ({"image": "no/such/id"}, mmindex.NoInputError, "no/such/id"),
    ({"image": "nul\0"}, mmindex.NoInputError, "no such file"),
    ({"image": np.zeros((0, 4, 3), np.uint8)}, mmindex.DataError, "no pixels"),
    ({"vector": np.zeros(16)}, mmindex.DataError, "zeros"),
    ({"vector": [float("nan")] * 16}, mmindex.DataError, "finite"),
    ({"vector": np.ones(5)}, mmindex.ModelMismatchError, r"\(5,\).*16 dimensions"),
    ({"vector": np.ones((1, 16))}, mmindex.ModelMismatchError, r"\(1, 16\)"),
]


@pytest.mark.parametrize(("asked", "kind", "said"), BAD_VALUES, ids=str)
def test_a_bad_value_raises_the_commands_error(
    index: mmindex.Index, asked: dict[str, Any], kind: type[mmindex.MmindexError], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        index.search(**asked)
    assert "--" not in error.value.message + error.value.hint
    again = pickle.loads(pickle.dumps(error.value))  # noqa: S301 # our own
    assert (str(again), again.hint) == (str(error.value), error.value.hint)
    if error.value.hint:
        assert error.value.__notes__ == [f"hint: {error.value.hint}"]


def test_an_invalid_image_is_refused(index: mmindex.Index, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    with pytest.raises(mmindex.DataError, match=r"bad\.jpg"):
        index.search(image=tmp_path / "bad.jpg")
    whole = io.BytesIO()
    draw(1, (200, 200)).save(whole, "JPEG")
    cut = Image.open(io.BytesIO(whole.getvalue()[:700]))
    with pytest.raises(mmindex.DataError, match="truncated"):
        index.search(image=cut)


def test_open_refuses_a_folder_that_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(mmindex.NoInputError, match="no mmindex store"):
        mmindex.open(tmp_path / "nothing")
    with pytest.raises(TypeError, match="path: expected a str or Path, not int 3"):
        mmindex.open(3)  # type: ignore[arg-type]
    with pytest.raises(mmindex.UsageError):
        mmindex.open("")


def test_embed_gives_unit_vectors_in_order(index: mmindex.Index, images: dict[str, Path]) -> None:
    names = list(images)
    ids, stored = index.vectors()
    mixed = [names[3], Image.open(images[names[4]]), images[names[5]], np.asarray(draw(6))]
    found = index.embed(images=mixed)
    assert found.dtype == np.float32
    assert found.shape == (4, 16)
    np.testing.assert_allclose(found, stored[3:7], atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    texts = ["red", "blue"]
    np.testing.assert_array_equal(index.embed(texts=texts), FakeEncoder().encode_texts(texts))
    assert index.embed(texts=[]).shape == index.embed(images=[]).shape == (0, 16)
    assert list(ids) == names


def test_embed_takes_one_kind_of_thing(index: mmindex.Index) -> None:
    for wrong in ({"texts": "red"}, {"images": ID}, {"texts": [3]}, {"images": [3]}):
        with pytest.raises(TypeError):
            index.embed(**wrong)  # type: ignore[arg-type]
    for bad in ({}, {"texts": ["a"], "images": [ID]}, {"texts": [" "]}):
        with pytest.raises(mmindex.UsageError):
            index.embed(**bad)  # type: ignore[arg-type]
    with pytest.raises(mmindex.NoInputError, match="nowhere"):
        index.embed(images=["nowhere.png"])


def test_evaluate_is_the_commands_json(index: mmindex.Index) -> None:
    evaluation = index.evaluate()
    assert evaluation.images == 20
    assert evaluation.text_to_image is not None
    assert 0 <= evaluation.text_to_image.r1 <= 100


def test_everything_public_is_documented_and_typed() -> None:
    assert get_args(Side) == ("image", "text")
    for name in mmindex.__all__:
        thing = getattr(mmindex, name)
        if name == "__version__":
            continue
        assert inspect.getdoc(thing)
        functions = [thing] if inspect.isfunction(thing) else list(vars(thing).values())
        for function in functions:
            if inspect.isfunction(function) and not function.__name__.startswith("_"):
                assert inspect.getdoc(function)
                assert "return" in function.__annotations__
    assert set(dir(mmindex)) == set(mmindex.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        mmindex.nonsense  # noqa: B018
