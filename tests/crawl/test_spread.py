"""A crawl whose images are read on the nodes of a simulated cluster has the same result."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.cluster.join import Joined
from mmindex.core.config import Config, LimitsConfig, SourceConfig
from mmindex.core.errors import NoInputError
from mmindex.crawl import spread
from mmindex.crawl.spread import ClusterReader
from mmindex.crawl.stage import CrawlReport, crawl
from support.corpora import jpeg, new_store, write_files, write_zip
from support.photo_files import xmp
from support.raying import cluster, tricky_read

pytest.importorskip("ray", reason="needs ray: pip install 'mmindex[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def tricks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tricks")


@pytest.fixture(scope="module")
def nodes(tricks: Path) -> Iterator[Any]:
    with cluster(tricks, 2) as made:
        yield made


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch, tricks: Path) -> Iterator[None]:
    monkeypatch.setattr(ClusterReader, "items", 3)
    monkeypatch.setattr(spread, "_read_here", tricky_read)
    yield
    for trick in tricks.iterdir():
        trick.unlink()


def corpus(folder: Path) -> list[str]:
    """Write sources with unusable files, duplicates and sidecars; return their specs."""
    good = {f"{n:02}.jpg": jpeg(n) for n in range(20)}
    loose = write_files(
        folder / "loose",
        {
            **good,
            "copy.jpg": good["03.jpg"],
            "empty.jpg": b"",
            "cut.jpg": jpeg(30)[:90],
            "page.jpg": "<html>",
            "07.jpg.xmp": xmp("<dc:title>a title</dc:title>"),
            "08.txt": "a caption",
            "notes.doc": "ignored",
        },
    )
    os.mkfifo(loose / "pipe.jpg")
    (loose / "gone.jpg").symlink_to("nowhere.jpg")
    shard = write_tar(
        folder / "shard.tar",
        {f"{n}.{suffix}": data for n in range(9)
         for suffix, data in (("jpg", jpeg(40 + n) if n % 4 else b"damaged"), ("txt", b"words"))},
    )  # fmt: skip
    packed = write_zip(folder / "packed.zip", {f"{n}.jpg": jpeg(60 + n % 3) for n in range(7)})
    rows = [*(jpeg(70 + n) for n in range(10)), jpeg(70), b"", None]
    table = folder / "rows.parquet"
    ids = [str(n % 9) for n in range(13)]
    images = pa.array([{"bytes": data, "path": None} for data in rows])
    pq.write_table(pa.table({"image": images, "id": ids, "caption": ids}), table)
    return [f"folder:{loose}", f"webdataset:{shard}", f"folder:{packed}", f"parquet:{table}"]


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def crawled(store: Path, specs: list[str], joined: Joined | None = None) -> CrawlReport:
    sources = [SourceConfig(spec=spec) for spec in specs]
    return crawl(new_store(store), sources, LimitsConfig(), cluster=joined)


def spread_over(nodes: Any, store: Path, specs: list[str]) -> CrawlReport:
    objects = new_store(store)
    with closing(Joined.join(nodes.address, objects.layout, Config())) as joined:
        return crawled(store, specs, joined)


def test_the_tables_have_the_same_bytes_though_a_worker_dies(
    nodes: Any, tricks: Path, tmp_path: Path
) -> None:
    specs = corpus(tmp_path)
    alone = crawled(tmp_path / "alone", specs)
    assert len(alone.quarantined) >= 8
    assert {"duplicate_id", "empty", "missing", "unreadable"} <= {
        str(entry.reason) for entry in alone.quarantined
    }
    (tricks / "die once").touch()
    report = spread_over(nodes, tmp_path / "spread", specs)
    assert not (tricks / "die once").exists()
    assert report == alone
    assert (report.images.sha256, report.captions.sha256) == (
        alone.images.sha256,
        alone.captions.sha256,
    )
    assert report.details == alone.details
    assert not list((tmp_path / "spread" / "staging").iterdir())


def test_a_second_crawl_reads_only_what_changed(nodes: Any, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "f", {f"{n:02}.jpg": jpeg(n) for n in range(30)})
    for path in folder.iterdir():  # otherwise too new to be remembered
        os.utime(path, (1_600_000_000, 1_600_000_000))
    spec = f"folder:{folder}"
    first = spread_over(nodes, tmp_path / "s", [spec])
    (folder / "17.jpg").write_bytes(jpeg(99))
    second = spread_over(nodes, tmp_path / "s", [spec])
    told = [report.details[name] for report in (first, second) for name in ("read", "unchanged")]
    assert told == [30, 0, 1, 29]
    assert second == crawled(tmp_path / "alone", [spec])


def test_an_image_that_only_a_node_cannot_read_ends_the_run(
    nodes: Any, tricks: Path, tmp_path: Path
) -> None:
    folder = write_files(tmp_path / "f", {"1.jpg": jpeg(1)})
    (tricks / "blind").touch()
    with pytest.raises(NoInputError, match=r"node .*1\.jpg: not here") as caught:
        spread_over(nodes, tmp_path / "s", [f"folder:{folder}"])
    assert "same place" in caught.value.hint
