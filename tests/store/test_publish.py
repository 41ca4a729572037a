"""A file gets its name in a store only when it is complete and durable."""

import errno
import gc
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.errors import InternalError, PermissionDeniedError, StorageError
from mmindex.store.publish import StagedFile, staged_directory, write_file
from mmindex.store.versions import create_layout


@pytest.fixture
def layout(tmp_path):
    return create_layout(tmp_path / "store")


def test_an_object_is_named_by_its_content(layout):
    with StagedFile(layout) as staged:
        staged.write(b"some ")
        staged.write(memoryview(b"bytes"))
        digest = staged.publish_object()
    assert digest == hashlib.sha256(b"some bytes").hexdigest()
    assert layout.object(digest).read_bytes() == b"some bytes"
    assert list(layout.staging_dir.iterdir()) == []


def test_leaving_without_publishing_leaves_nothing(layout):
    with pytest.raises(RuntimeError, match="midway"), StagedFile(layout) as staged:
        staged.write(b"x" * 5_000_000)
        raise RuntimeError("midway")
    assert list(layout.staging_dir.iterdir()) == []
    assert list(layout.objects_dir.iterdir()) == []


def test_a_writer_that_is_destroyed_later_writes_nothing_and_says_nothing(layout, monkeypatch):
    """A signal can interrupt pyarrow while it closes a file; its destructor closes it again."""
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    table = pa.table({"number": range(10)})
    with pytest.raises(KeyboardInterrupt), StagedFile(layout) as staged:
        writer = pq.ParquetWriter(staged, table.schema)
        writer.write_table(table)
        raise KeyboardInterrupt
    before = staged.size_bytes
    del writer
    gc.collect()
    assert said == []
    assert staged.size_bytes == before


def test_a_file_is_replaced_completely(layout):
    target = layout.root / "file"
    write_file(layout, target, b"old")
    with pytest.raises(RuntimeError, match="midway"), StagedFile(layout) as staged:
        staged.write(b"half of the n")
        raise RuntimeError("midway")
    assert target.read_bytes() == b"old"
    write_file(layout, target, b"new")
    assert target.read_bytes() == b"new"


def test_data_is_synced_before_its_name_and_the_name_after(layout, monkeypatch):
    """fsync of the file, then rename, then fsync of the directory: in this order."""
    log = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        log.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(
        "pathlib.os.replace", lambda a, b: (log.append("rename"), real_replace(a, b))[1]
    )
    write_file(layout, layout.root / "file", b"content")
    assert log[0].endswith(".tmp")
    assert log[1:] == ["rename", str(layout.root)]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageError),
        (errno.EIO, StorageError),
        (errno.EACCES, PermissionDeniedError),
    ],
)
def test_a_failed_fsync_fails_the_write(layout, monkeypatch, number, expected):
    def broken(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(expected):
        write_file(layout, layout.root / "file", b"content")
    assert not (layout.root / "file").exists()
    assert list(layout.staging_dir.iterdir()) == []


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(layout):
    """A file-size limit simulates a full disk: the kernel refuses the end of the file."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from mmindex.core.errors import StorageError\n"
        "from mmindex.store.layout import Layout\n"
        "from mmindex.store.publish import write_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "layout = Layout(Path(sys.argv[1]))\n"
        "try:\n"
        "    write_file(layout, layout.root / 'file', bytes(3_000_000))\n"
        "except StorageError:\n"
        "    sys.exit(74)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(layout.root)])
    assert done.returncode == 74
    assert not (layout.root / "file").exists()
    assert list(layout.staging_dir.iterdir()) == []


def test_a_directory_appears_only_when_it_is_complete(layout):
    target = layout.downloads_dir / "corpus"
    with pytest.raises(RuntimeError, match="midway"), staged_directory(layout, target) as aside:
        (aside / "one").write_bytes(b"1")
        raise RuntimeError("midway")
    assert not target.exists()
    assert list(layout.staging_dir.iterdir()) == []
    with staged_directory(layout, target) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "one").write_bytes(b"1")
    assert (target / "sub" / "one").read_bytes() == b"1"
    with pytest.raises(InternalError), staged_directory(layout, target):
        pass
