"""A server that speaks the protocol of S3, on loopback; it counts requests and can fail."""

from __future__ import annotations

import io
import random
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "photos"
SECRET = "WvK3cret/DoNotShowThis"  # noqa: S105  # of nobody
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIADONOTSHOW",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "MMINDEX_S3_ENDPOINTS_OF_STORES": "",  # clients of stores that other tests have opened
}
Answer = tuple[str, float]  # a status line, or empty for the right answer; seconds to wait first
RIGHT: Answer = ("", 0.0)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: method, path with the bucket, query, and header ``Range``."""

    method: str
    path: str
    query: str
    span: str

    @property
    def is_listing(self) -> bool:
        """Whether it lists a bucket."""
        return self.method == "GET" and "list-type" in self.query


@dataclass(slots=True)
class S3:
    """A running server.

    Attributes:
        endpoint: its address.
        asked: the requests of clients, oldest first.
        answer: decides about each request by its number.
    """

    endpoint: str
    asked: list[Asked] = field(default_factory=list)
    answer: Callable[[int], Answer] = lambda _number: RIGHT
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write objects; these requests do not count."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
        )
        if BUCKET not in {one["Name"] for one in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
        for key, data in files.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=data)
        self.asked.clear()

    def take(self) -> list[Asked]:
        """The requests since the last call."""
        asked = list(self.asked)
        self.asked.clear()
        return asked

    def __call__(self, app: Any, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode()
        query = environ.get("QUERY_STRING", "")
        with self._lock:
            number = len(self.asked)
            method = environ["REQUEST_METHOD"]
            self.asked.append(Asked(method, path, query, environ.get("HTTP_RANGE", "")))
        status, wait_s = self.answer(number)
        if wait_s:
            time.sleep(wait_s)
        if status:
            start(status, [("Content-Type", "application/xml")])
            return [b"<Error><AWSAccessKeyId>AKIADONOTSHOW</AWSAccessKeyId></Error>"]
        answered: Iterable[bytes] = app(environ, start)
        return answered


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server without buckets."""
    get_backend("s3").reset()
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1", 0, lambda environ, start: s3(app, environ, start), threaded=True,
        request_handler=_Quiet,
    )  # fmt: skip
    server.daemon_threads = True
    s3 = S3(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sometimes(share: float, seed: int, slow_s: float = 0.3) -> Callable[[int], Answer]:
    """Answer a share of the requests with 500, 503, or late."""
    chosen = random.Random(seed)
    lock = threading.Lock()

    def answer(_number: int) -> Answer:
        with lock:
            if chosen.random() >= share:
                return RIGHT
            return chosen.choice(
                [("500 Internal Server Error", 0.0), ("503 Slow Down", 0.0), ("", slow_s)]
            )

    return answer


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet_of(images: Mapping[str, bytes], group_rows: int = 50) -> bytes:
    """A table with the columns ``id``, ``image`` and ``text``."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "id": list(images),
            "image": pa.array([{"bytes": data, "path": None} for data in images.values()], kind),
            "text": [f"picture {name}" for name in images],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=group_rows, write_page_checksum=True)
    return buffer.getvalue()
