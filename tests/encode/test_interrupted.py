"""Encoding in a separate process: killed, resumed, and without torch if there is nothing to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmindex.store.objects import Objects
from support.images import write_pngs
from support.models import TinyModel
from support.tables import Corpus, write_corpus

SHARD_ROWS = 10
IMAGES = 200  # 20 shards

SCRIPT = """
import json, sys, time
from pathlib import Path
import msgspec
from support.manifests import manifest
from mmindex.core.config import Config
from mmindex.encode.stage import encode, encoder_source
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import open_layout

def main():
    job = json.loads(sys.argv[1])
    objects = Objects(open_layout(Path(job["store"])))
    images, captions = (msgspec.convert(ref, ObjectRef) for ref in job["tables"])
    encoder = msgspec.convert(job["encoder"], EncoderInfo | None)
    listed = tuple(msgspec.convert(ref, ObjectRef) for ref in job["listed"])
    draft = manifest(encoder=encoder, objects=listed)
    config = Config.model_validate(job["config"])
    start = time.perf_counter()
    source = encoder_source(config, draft.encoder)
    report = encode(source, Snapshot(objects, draft), (images, captions), config)
    seconds = time.perf_counter() - start
    heavy = [name for name in ("torch", "open_clip", "faiss") if name in sys.modules]
    out = {"report": msgspec.to_builtins(report), "heavy": heavy, "seconds": seconds}
    print(json.dumps(out))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def corpus(objects: Objects, tmp_path: Path) -> Corpus:
    paths = write_pngs(tmp_path / "pictures", IMAGES)
    return write_corpus(objects, paths, [f"caption {number}" for number in range(30)])


def start(
    objects: Objects, corpus: Corpus, model: TinyModel, parent: dict[str, Any] | None = None
) -> subprocess.Popen[str]:
    listed = [ref for refs in parent["shards"].values() for ref in refs] if parent else []
    job = {
        "store": str(objects.layout.root),
        "tables": [_plain(ref) for ref in corpus.tables],
        "encoder": parent["encoder"] if parent else None,
        "listed": listed,
        "config": {
            "model": {"name": model.name},
            "encode": {"device": "cpu", "shard_rows": SHARD_ROWS, "batch_size": 5, "workers": 2},
        },
    }
    script = objects.layout.root.parent / "job.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _plain(ref: Any) -> dict[str, Any]:
    return {name: getattr(ref, name) for name in ref.__struct_fields__}


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def shards_done(objects: Objects, before: int) -> int:
    return sum(1 for path in objects.layout.objects_dir.glob("*/*")) - before


def test_after_a_kill_at_most_one_shard_is_encoded_again(
    objects: Objects, corpus: Corpus, tiny_model: TinyModel
) -> None:
    tables = shards_done(objects, 0)
    process = start(objects, corpus, tiny_model)
    while shards_done(objects, tables) < 7:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    complete = shards_done(objects, tables)
    assert complete < IMAGES // SHARD_ROWS

    resumed = finish(start(objects, corpus, tiny_model))["report"]
    assert resumed["adopted_shards"] == complete
    assert resumed["reused_images"] == complete * SHARD_ROWS
    assert resumed["encoded_images"] == IMAGES - complete * SHARD_ROWS
    names = [ref["name"] for ref in resumed["shards"]["image"]]
    assert names == [f"embeddings/image/{n:05d}" for n in range(IMAGES // SHARD_ROWS)]

    nothing = finish(start(objects, corpus, tiny_model, resumed))
    assert nothing["report"]["encoded_images"] == nothing["report"]["encoded_texts"] == 0
    assert nothing["heavy"] == []


def test_sigint_ends_the_run_and_its_workers(
    objects: Objects, corpus: Corpus, tiny_model: TinyModel
) -> None:
    tables = shards_done(objects, 0)
    process = start(objects, corpus, tiny_model)
    while shards_done(objects, tables) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    assert not list(objects.layout.staging_dir.iterdir())
