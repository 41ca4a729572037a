"""The bytes for a URI; members of a bad archive fail alone."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.records import ItemError
from mmindex.media.uris import read_uri
from support.corpora import write_zip
from support.images import png


def write_tar(path: Path, name: str, data: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, data: bytes) -> Path:
    pq.write_table(pa.table({"image": pa.array([b"other", data])}), path)
    return path


def test_every_form_of_uri_is_read(tmp_path: Path) -> None:
    data = png(3)
    (tmp_path / "a!b.png").write_bytes(data)
    packed = write_zip(tmp_path / "a.zip", {"x/y.png": data})
    tar = write_tar(tmp_path / "a.tar", "x/y!z.png", data)
    table = write_parquet(tmp_path / "odd.zip!a.parquet", data)
    for uri in (
        f"{tmp_path}/a!b.png",
        f"{packed}!x/y.png",
        f"{tar}!x/y!z.png",
        f"{table}!image/1",
    ):
        assert read_uri(uri) == data


@pytest.mark.parametrize(
    ("inside", "reason"), [("b.png", "missing"), ("image/9", "missing"), ("image/x", "missing")]
)
def test_a_missing_member_is_reported(tmp_path: Path, inside: str, reason: str) -> None:
    for path in (
        write_zip(tmp_path / "a.zip", {"a.png": b"a"}),
        write_tar(tmp_path / "a.tar", "a.png", b"a"),
        write_parquet(tmp_path / "a.parquet", b"a"),
    ):
        with pytest.raises(ItemError) as caught:
            read_uri(f"{path}!{inside}")
        assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet"])
def test_an_archive_that_is_damaged_later_fails_the_item_not_the_run(
    tmp_path: Path, name: str
) -> None:
    inside = "image/1" if name == "a.parquet" else "a.png"
    (tmp_path / name).write_bytes(b"neither of them" * 100)
    with pytest.raises(ItemError) as caught:
        read_uri(f"{tmp_path}/{name}!{inside}")
    assert caught.value.reason == "bad_archive_member"
    (tmp_path / name).unlink()
    with pytest.raises(ItemError) as caught:
        read_uri(f"{tmp_path}/{name}!{inside}")
    assert caught.value.reason == "missing"


def test_decode_workers_load_neither_the_fetcher_nor_arrow() -> None:
    """One worker per core is spawned, and each has to import its modules again."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"  # a coverage measurement has already loaded some
        "import mmindex.encode.decoding\n"
        "print({'aiohttp', 'pyarrow', 'torch', 'sqlite3'} & (set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
