"""Recall by language, for corpora whose images have the languages of their captions.

The column ``languages`` has the language of each caption of an image, in order; the caption ``#2``
has the third one. As in Crossmodal-3600 (A. Thapliyal et al., EMNLP 2022), each language is a
corpus of its own: images search for the captions in that language only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.config import EvaluateConfig
from mmindex.evaluate.bootstrap import recall_figures
from mmindex.evaluate.corpus import (
    Corpus,
    Items,
    VectorsInMemory,
    caption_queries,
    image_queries,
    sample,
)
from mmindex.evaluate.evaluation import LanguageBlock
from mmindex.evaluate.recall import exact_scan
from mmindex.store.snapshot import Snapshot

COLUMN: Final = "languages"
_QUERIES: Final = 2_000  # per language and direction; all 3,600 images twice would take minutes
_MOST: Final = 200  # languages; more are names of something else

Int64 = NDArray[np.int64]


def by_language(
    snapshot: Snapshot, corpus: Corpus, captions: Items, config: EvaluateConfig
) -> tuple[LanguageBlock, ...]:
    """Measure exact search for each language, in alphabetical order; empty without the column."""
    languages = _languages(snapshot, corpus)
    if languages is None:
        return ()
    names, numbers = np.unique(languages, return_inverse=True)
    if len(names) > _MOST:
        return ()
    return tuple(
        _measure(str(name), np.flatnonzero(numbers == at), corpus, captions, config.seed)
        for at, name in enumerate(names)
        if name
    )


def _languages(snapshot: Snapshot, corpus: Corpus) -> NDArray[np.str_] | None:
    """Return the language of each caption; empty if it is not known."""
    with snapshot.open_parquet("images") as file:
        schema = file.schema_arrow
    if COLUMN not in schema.names or not pa.types.is_list(schema.field(COLUMN).type):
        return None
    listed = snapshot.table("images", [COLUMN])[COLUMN].to_pylist()
    ids = snapshot.table("captions", ["caption_id"])["caption_id"].cast(pa.binary()).to_pylist()
    return np.array(
        [
            _language(listed[image], name)
            for image, name in zip(corpus.image_of_caption.tolist(), ids, strict=True)
        ],
        dtype=np.str_,
    )


def _language(listed: list[object] | None, caption_id: bytes) -> str:
    number = caption_id.rpartition(b"#")[2]
    place = int(number) if number.isdigit() and len(number) < 10 else -1
    if listed is None or not 0 <= place < len(listed):
        return ""
    return str(listed[place] or "")


def _measure(name: str, rows: Int64, corpus: Corpus, captions: Items, seed: int) -> LanguageBlock:
    ids, places = np.unique(captions.id_of_row[rows], return_inverse=True)
    said = Items(VectorsInMemory(captions.vectors.take(ids)), places)
    owners = corpus.image_of_caption[rows]
    asked = sample(len(rows), _QUERIES, seed)
    forth = exact_scan(caption_queries(said, owners, asked), corpus.images, 1).ranks
    images = np.unique(owners)
    images = images[sample(len(images), _QUERIES, seed)]
    back = exact_scan(image_queries(corpus.images, owners, images), said, 1).ranks
    return LanguageBlock(
        language=name,
        captions=len(rows),
        text_to_image=recall_figures(forth),
        image_to_text=recall_figures(back),
    )
