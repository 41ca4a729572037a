"""Corpora in object stores, read from a real server of the S3 protocol."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.core.errors import (
    DataError,
    MissingPackageError,
    NetworkError,
    NoInputError,
    PermissionDeniedError,
    UsageError,
)
from mmindex.core.records import ItemError, Reason
from mmindex.crawl.stage import crawl
from mmindex.media import services
from mmindex.media.images import ImageLimits
from mmindex.media.uris import read_indexed, read_uri, split_uri
from mmindex.sources.spec import absolute_spec, parse_spec
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.purge import purge_stamps
from support.bucketing import (
    BUCKET,
    CREDENTIALS,
    RIGHT,
    S3,
    SECRET,
    parquet_of,
    s3_server,
    sometimes,
    tar_of,
)
from support.corpora import crawl_specs, jpeg, new_store, rows_of, source_events, write_files

LIMITS = ImageLimits.of(LimitsConfig())


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        yield server


def thousand() -> tuple[dict[str, bytes], list[str]]:
    """400 images in tars, 300 in tables and 300 loose; the sources."""
    files: dict[str, bytes] = {}
    for shard in range(4):
        members: dict[str, bytes] = {}
        for number in range(shard * 100, shard * 100 + 100):
            members[f"{number:06d}.jpg"] = jpeg(number)
            members[f"{number:06d}.txt"] = f"a picture, {number}".encode()
        files[f"shards/{shard:03d}.tar"] = tar_of(members)
    for table in range(3):
        first = 400 + table * 100
        rows = {str(number): jpeg(number) for number in range(first, first + 100)}
        files[f"tables/part-{table}.parquet"] = parquet_of(rows)
    for number in range(700, 1_000):
        files[f"loose/{number % 7}/{number}.jpg"] = jpeg(number)
    files["loose/captions.jsonl"] = b"".join(
        f'{{"file_name": "{n % 7}/{n}.jpg", "text": "loose {n}"}}\n'.encode()
        for n in range(700, 1_000)
    )
    sources = [
        f"webdataset:s3://{BUCKET}/shards/{{000..003}}.tar",
        f"parquet:s3://{BUCKET}/tables/*.parquet",
        f"folder:s3://{BUCKET}/loose",
    ]
    return files, sources


@pytest.mark.slow
def test_a_second_crawl_of_a_thousand_images_reads_listings_alone(s3: S3, tmp_path: Path) -> None:
    files, sources = thousand()
    s3.put(files)
    objects = new_store(tmp_path / "store")
    first = crawl_specs(objects, *sources)
    images, captions = rows_of(objects, first)
    assert (len(images), len(captions)) == (1_000, 1_000)
    assert (first.quarantined, first.details["read"]) == ((), 1_000)
    one = next(row for row in images if row["image_id"] == "webdataset/shards/002/000250")
    assert one["uri"].startswith(f"s3://{BUCKET}/shards/002.tar!000250.jpg#bytes=")
    # The tars are read in blocks, without a request for the header of each member.
    assert len(s3.take()) < 500

    second = crawl_specs(objects, *sources)
    asked = s3.take()
    assert all(one.is_listing for one in asked)
    assert (second.images, second.captions) == (first.images, first.captions)
    assert second.details["read"] == 0

    s3.put({"shards/001.tar": files["shards/001.tar"][:-10240] + tar_of({"x.jpg": jpeg(5)})})
    third = crawl_specs(objects, *sources)
    assert third.images.rows == 1_001
    touched = {one.path for one in s3.take() if not one.is_listing}
    assert touched == {f"/{BUCKET}/shards/001.tar"}


@pytest.mark.slow
def test_nothing_is_lost_if_a_twentieth_of_the_answers_fail(s3: S3, tmp_path: Path) -> None:
    files, sources = thousand()
    s3.put(files)
    right = crawl_specs(new_store(tmp_path / "right"), *sources)
    s3.take()
    s3.answer = sometimes(0.05, seed=7)
    objects = new_store(tmp_path / "store")
    faulty = crawl_specs(objects, *sources)
    assert (faulty.images, faulty.captions) == (right.images, right.captions)
    assert faulty.quarantined == ()
    for row in rows_of(objects, faulty)[0][::25]:
        assert len(read_indexed(row["uri"], row["key"], LIMITS)) == row["size_bytes"]


def test_an_image_in_a_tar_is_read_with_one_request_for_its_bytes(s3: S3, tmp_path: Path) -> None:
    tar = tar_of({f"{n}.jpg": jpeg(n) for n in range(50)})
    s3.put({"a.tar": tar})
    objects = new_store(tmp_path / "store")
    row = rows_of(objects, crawl_specs(objects, f"webdataset:s3://{BUCKET}/a.tar"))[0][20]
    s3.take()
    assert read_uri(row["uri"]) == jpeg(20)
    [asked] = s3.take()
    first, last = asked.span.removeprefix("bytes=").split("-")
    assert int(last) - int(first) + 1 == len(jpeg(20))
    assert split_uri(row["uri"]) == (f"s3://{BUCKET}/a.tar", "20.jpg")
    # Without the byte range, as people write it.
    assert read_uri(f"s3://{BUCKET}/a.tar!20.jpg") == jpeg(20)


def test_keys_with_awkward_characters_keep_their_names(s3: S3) -> None:
    keys = ["x y.jpg", "é.jpg", "pct%20.jpg", "h#t=1.jpg", "ex!cl.jpg", "q?.jpg", "br[a]*.jpg"]
    s3.put({f"in/{key}": jpeg(n) for n, key in enumerate(keys)})
    found = {item.name: item for item in source_events(f"folder:s3://{BUCKET}/in")}
    assert set(found) == set(keys)
    for number, key in enumerate(keys):
        assert found[key].image_id == f"folder/in/{key}"
        assert found[key].read() == read_uri(found[key].uri) == jpeg(number)
        assert split_uri(found[key].uri) == (f"s3://{BUCKET}/in/{key}", None)


def test_an_archive_that_is_an_object_is_read_in_place(s3: S3) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(3):
            archive.writestr(f"in/{number}.jpg", jpeg(number))
        archive.writestr("in/captions.txt", "0.jpg\tnought\n")
    s3.put({"p/all.zip": buffer.getvalue(), "p/all.tar": tar_of({"1.jpg": jpeg(1)})})
    first, *_ = found = [
        one for one in source_events(f"folder:s3://{BUCKET}/p/all.zip") if hasattr(one, "read")
    ]
    assert (first.image_id, first.captions) == ("folder/all/in/0.jpg", ("nought",))
    assert [read_uri(item.uri) for item in found] == [jpeg(n) for n in range(3)]
    [item] = source_events(f"folder:s3://{BUCKET}/p/all.tar")
    assert item.read() == read_uri(item.uri) == jpeg(1)


def test_images_beside_a_table_and_sidecars_beside_images(s3: S3, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"file_name": ["img/1.jpg", "img/2.jpg", "gone.jpg"]}), buffer)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    s3.put(
        {
            "t/list.parquet": buffer.getvalue(),
            "t/img/1.jpg": jpeg(1),
            "t/img/2.jpg": jpeg(2),
            "f/1.jpg": jpeg(1),
            "f/1.txt": b"one\nuno\n",
            "f/1.xmp": xmp,
            "f/notes.pdf": b"no",
        }
    )
    objects = new_store(tmp_path / "store")
    sources = (f"parquet:s3://{BUCKET}/t/list.parquet", f"folder:s3://{BUCKET}/f")
    for _ in range(2):
        report = crawl_specs(objects, *sources)
        images, captions = rows_of(objects, report)
        assert [row["uri"] for row in images] == [
            f"s3://{BUCKET}/{key}" for key in ("t/img/1.jpg", "t/img/2.jpg", "f/1.jpg")
        ]
        assert [row["text"] for row in captions] == ["one", "uno"]
        assert [str(entry.reason) for entry in report.quarantined] == ["missing"]
        assert report.not_read == {".pdf": 1}


def test_an_object_that_changed_is_noticed(s3: S3, tmp_path: Path) -> None:
    s3.put({"a.tar": tar_of({f"{n}.jpg": jpeg(n) for n in range(3)}), "b/1.jpg": jpeg(1)})
    objects = new_store(tmp_path / "store")
    sources = (f"webdataset:s3://{BUCKET}/a.tar", f"folder:s3://{BUCKET}/b")
    images, _ = rows_of(objects, crawl_specs(objects, *sources))
    s3.put({"a.tar": tar_of({f"{n}.jpg": jpeg(n + 1) for n in range(3)}), "b/1.jpg": jpeg(9)})
    for row in images:
        with pytest.raises(ItemError) as error:
            read_indexed(row["uri"], row["key"], LIMITS)
        assert error.value.reason is Reason.CHANGED
    again, _ = rows_of(objects, crawl_specs(objects, *sources))
    assert [row["key"] for row in again] != [row["key"] for row in images]
    for row in again:
        read_indexed(row["uri"], row["key"], LIMITS)


def test_the_same_files_have_the_same_ids_on_a_disk_and_in_a_bucket(s3: S3, tmp_path: Path) -> None:
    files = {
        "shards/00.tar": tar_of({"1.jpg": jpeg(1)}),
        "tables/a.parquet": parquet_of({"7": jpeg(2)}),
        "loose/x/3.jpg": jpeg(3),
    }
    s3.put(files)
    write_files(tmp_path, files)
    for kind, place in (("webdataset", "shards/*.tar"), ("parquet", "tables"), ("folder", "loose")):
        there = source_events(f"{kind}:s3://{BUCKET}/{place}")
        here = source_events(f"{kind}:{tmp_path}/{place}")
        assert [one.image_id for one in there] == [one.image_id for one in here]


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("webdataset:s3://photos/none/*.tar", NoInputError),
        ("webdataset:s3://photos/a/{0..3}.tar", NoInputError),
        ("parquet:s3://photos/a/0.tar", UsageError),
        ("folder:s3://photos/none", NoInputError),
        ("folder:s3://no-such-bucket/x", NoInputError),
        ("folder:s3://photos/damaged.zip", DataError),
        ("webdataset:s3://photos/damaged.tar", DataError),
    ],
)
def test_what_is_not_there_is_named(s3: S3, spec: str, error: type[Exception]) -> None:
    s3.put(
        {"a/0.tar": tar_of({"1.jpg": jpeg(1)}), "damaged.zip": b"no", "damaged.tar": b"no" * 600}
    )
    with pytest.raises(error, match=r"s3://"):
        source_events(spec)


def test_kinds_that_read_files_alone_say_so() -> None:
    with pytest.raises(UsageError, match="does not read object stores"):
        parse_spec("coco:s3://bucket/coco")
    with pytest.raises(UsageError, match="not a valid bucket name") as error:
        parse_spec("folder:s3://key:hunter2@bucket/x")
    assert "hunter2" not in error.value.message + error.value.hint
    assert absolute_spec("n=folder:s3://b/x", Path("/tmp")) == "n=folder:s3://b/x"


def test_no_message_contains_a_credential(s3: S3) -> None:
    s3.put({"a/1.jpg": jpeg(1)})
    for status, error in (
        ("403 Forbidden", PermissionDeniedError),
        ("400 Bad Request", NetworkError),
    ):
        s3.answer = lambda _number, status=status: (status, 0.0)
        with pytest.raises(error, match=rf"s3://{BUCKET}/a") as found:
            source_events(f"folder:s3://{BUCKET}/a")
        text = "".join(map(str, (found.value, found.value.hint, found.value.__cause__)))
        assert "AKIADONOTSHOW" not in text
        assert SECRET not in text
    s3.answer = lambda _number: RIGHT


def test_a_service_that_stays_away_is_no_fault_of_the_image(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_RETRIES", 1)
    services._made.cache_clear()
    s3.put({"a/1.jpg": jpeg(1)})
    [item] = source_events(f"folder:s3://{BUCKET}/a")
    s3.answer = lambda _number: ("503 Slow Down", 0.0)
    with pytest.raises(NetworkError, match=rf"s3://{BUCKET}/a/1.jpg: .* 503"):
        item.read()
    services._made.cache_clear()


def test_the_endpoint_of_a_store_counts_for_its_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MMINDEX_S3_ENDPOINT", "MMINDEX_S3_ENDPOINTS_OF_STORES", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://env")
    services.use_endpoint("http://one", ["a=folder:s3://one/x", "folder:/tmp"])
    services.use_endpoint("http://two", ["parquet:s3://two/*.parquet"])
    services.use_endpoint(None, ["folder:s3://three#train"])
    found = [services._endpoint(bucket) for bucket in ("one", "two", "three")]
    assert found == ["http://one", "http://two", "http://env"]
    services.use_endpoint(None, ["folder:s3://one"])
    assert services._endpoint("one") == "http://env"
    monkeypatch.setenv("MMINDEX_S3_ENDPOINT", "http://here")
    assert services._endpoint("two") == "http://here"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingPackageError, match="obstore") as error:
        source_events("folder:s3://bucket/x")
    assert "mmindex[objects]" in error.value.hint
    assert error.value.exit_code == 69


def kept(root: Path) -> str:
    """Return the content of the cache of listings."""
    with closing(sqlite3.connect(root / "listings.sqlite")) as database:
        rows = database.execute("SELECT events FROM chunks").fetchall()
    return "".join(zlib.decompress(row[0]).decode() for row in rows)


def test_the_cache_of_listings_has_nothing_of_forgotten_images(s3: S3, tmp_path: Path) -> None:
    files = {"1.jpg": jpeg(1), "1.txt": b"first secret", "2.jpg": jpeg(2), "2.txt": b"second"}
    s3.put({"a.tar": tar_of(files)})
    objects = new_store(tmp_path / "store")
    root = objects.layout.root

    def crawled(forgotten: Forgotten) -> int:
        sources = [SourceConfig(spec=f"webdataset:s3://{BUCKET}/a.tar")]
        return crawl(objects, sources, LimitsConfig(), forgotten=forgotten).images.rows

    assert crawled(NOTHING) == 2
    assert "first secret" in kept(root)
    by_id = NOTHING.including([f"webdataset/{BUCKET}/a/1"], (), ())
    purge_stamps(objects.layout, by_id)
    assert not (root / "listings.sqlite").exists()
    assert crawled(by_id) == 1
    assert "first secret" not in kept(root)
    assert "second" in kept(root)
    assert crawled(by_id) == 1  # from the cache
    by_bytes = NOTHING.including((), [hashlib.sha256(jpeg(1)).hexdigest()], ())
    purge_stamps(objects.layout, by_bytes)
    assert crawled(by_bytes) == 1
    assert not (root / "listings.sqlite").exists()


def test_a_damaged_cache_of_listings_is_read_again(s3: S3, tmp_path: Path) -> None:
    s3.put({"a.tar": tar_of({f"{n}.jpg": jpeg(n) for n in range(3)})})
    objects = new_store(tmp_path / "store")
    spec = f"webdataset:s3://{BUCKET}/a.tar"
    first = crawl_specs(objects, spec)
    path = objects.layout.listings_file
    with closing(sqlite3.connect(path)) as database:
        [(data,)] = database.execute("SELECT events FROM chunks").fetchall()
        database.execute("UPDATE chunks SET events = ?", (data[:-5] + b"wrong",))
        database.commit()
    assert crawl_specs(objects, spec).images == first.images
    path.write_bytes(b"no database")
    assert crawl_specs(objects, spec).images == first.images
    s3.take()
    assert crawl_specs(objects, spec).images == first.images
    assert all(one.is_listing for one in s3.take())
