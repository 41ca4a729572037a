"""A corpus that changes between versions: a real index stage, without model and crawl.

Item ``n`` of the pool has vector ``n`` and key ``key_of(n)``. The stage reads the embedding shards
of the whole pool; each version determines which items are live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmindex.core.config import Config, IndexConfig
from mmindex.index.exact import exact_search
from mmindex.runs.context import Context
from mmindex.runs.index_stage import index_stage
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import EncoderInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from support.index_stores import key_of, open_objects, write_shards
from support.manifests import manifest
from support.models import fake_info
from support.stores import captions_table, images_table, write_tables

NUMBER_OF = {key_of(number): number for number in range(70_000)}


@dataclass(slots=True)
class Growing:
    """The versions of one corpus.

    Attributes:
        objects: the objects of the store.
        pool: float16 (any, dim), the vectors of all images that can occur.
        texts: float16 (any, dim), those of captions, all of which are always live.
        current: the last version.
        reports: the reports of the last run.
    """

    folder: Path
    pool: NDArray[np.float16]
    config: IndexConfig
    texts: NDArray[np.float16] | None = None
    encoder: EncoderInfo = field(default_factory=fake_info)
    current: Manifest | None = None
    reports: dict[str, Any] = field(default_factory=dict)
    objects: Objects = field(init=False)
    shards: tuple[ObjectRef, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.objects = open_objects(self.folder)
        self.shards = write_shards(self.objects, self.pool)
        if self.texts is not None:
            self.shards += write_shards(self.objects, self.texts, modality="text")

    def step(
        self,
        live: Sequence[int] | NDArray[np.int64],
        *,
        captions: int | None = None,
        purge: bool = False,
    ) -> Manifest:
        """Publish the next version with these images (an item twice means the same bytes twice)."""
        rows = [(f"i/{place}", key_of(int(item)), f"/p/{item}") for place, item in enumerate(live)]
        texts = range(
            (0 if self.texts is None else len(self.texts)) if captions is None else captions
        )
        # The key of a caption is the hash of its text; that of item n is the hash of the number n.
        owned = [(rows[0][0], str(number)) for number in texts]
        tables = write_tables(self.objects, images_table(rows), captions_table(owned))
        draft = manifest(
            stages=("crawl", "encode"), encoder=self.encoder, objects=(*tables, *self.shards)
        )
        context = Context(
            layout=self.objects.layout,
            objects=Objects(self.objects.layout),
            config=Config(index=self.config),
            run_id="test",
            parent=self.current,
        )
        self.current = index_stage(context, draft, purge=purge)
        self.reports = context.figures.record()
        return self.current

    @property
    def done(self) -> tuple[str, int, int]:
        """Return what the last run did with the image side: action, vectors added and removed."""
        report = self.reports["index image"]
        return report["action"], report["added"], report["removed"]

    @property
    def why(self) -> str:
        """Return the reason."""
        return str(self.reports["index image"]["why"])

    def version(self) -> Manifest:
        """Return the last version.

        Raises:
            ValueError: there is none.
        """
        if self.current is None:
            raise ValueError("no version was made yet")
        return self.current

    def snapshot(self) -> Snapshot:
        """Return the last version for a reader that has verified nothing yet."""
        return Snapshot(Objects(self.objects.layout), self.version())

    def searcher(self) -> Searcher:
        """Return a searcher for the images of the last version."""
        return Searcher(self.snapshot(), "image", threads=1)

    def answers(self, queries: NDArray[np.float32], k: int = 10, **setting: int) -> list[list[int]]:
        """Return the items that the index of the last version finds, best first.

        Args:
            queries: float32 (q, dim).
            k: how many.
            **setting: nprobe and k_factor instead of the chosen ones.
        """
        searcher = self.searcher()
        searcher.info = msgspec.structs.replace(searcher.info, **setting)
        _, ids = searcher.search(queries, k)
        return [[NUMBER_OF[key] for key in searcher.keys(row[row >= 0])] for row in ids]

    def truth(
        self, queries: NDArray[np.float32], live: Sequence[int] | NDArray[np.int64], k: int = 10
    ) -> list[list[int]]:
        """Return the live items nearest to each query, by brute force."""
        items = np.unique(np.asarray(live, dtype=np.int64))
        _, found = exact_search([(items, self.pool[items])], queries, k, 1)
        return [[int(item) for item in row if item >= 0] for row in found]

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the objects of the last version."""
        return [ref.name for ref in self.version().objects if ref.name.startswith(prefix)]


def recall_of(answers: list[list[int]], truth: list[list[int]]) -> float:
    """Return the share of the true neighbours that were found."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(answers, truth, strict=True))
    return hits / sum(len(row) for row in truth)
