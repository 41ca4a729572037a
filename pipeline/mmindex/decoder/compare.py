"""Compare written descriptions with the captions of a store."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, MmindexError, os_errors
from mmindex.decoder.scores import CaptionScores, score_captions
from mmindex.search.vectorize import Vectorizer
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

_CLIP_WEIGHT: Final = 2.5
_BATCH: Final = 8_192


@dataclass(frozen=True, slots=True)
class Compared:
    """Descriptions beside the captions of their images.

    Attributes:
        images: images with a description and at least one caption.
        left_out: images without one of them.
        scores: BLEU, CIDEr-D, ROUGE-L and the share of texts with repetitions.
        clip_score: CLIPScore (Hessel et al. 2021) by the store's own model, which prefers texts
            that the model itself found.
    """

    images: int
    left_out: int
    scores: CaptionScores
    clip_score: float


def compare_captions(vectorizer: Vectorizer, path: Path) -> Compared:
    """Compare the column ``caption`` of a Parquet file with the captions of the store.

    Raises:
        NoInputError: there is no such file.
        DataError: it has no columns ``image_id`` and ``caption``, or no image of it has a caption.
        MissingPackageError: sacrebleu is not installed.
    """
    written = _read(path)
    references = _references(vectorizer.snapshot, set(written))
    names = [name for name in written if name in references]
    vectors = {
        asked.where: asked.vector
        for asked in vectorizer.named_images(names)
        if not isinstance(asked, MmindexError)
    }
    names = [name for name in names if name in vectors]
    texts = [written[name] for name in names]
    scores = score_captions(texts, [references[name] for name in names])
    images = np.stack([vectors[name] for name in names])
    cosines = (images * vectorizer.texts(texts)).sum(axis=1)
    return Compared(
        images=len(names),
        left_out=len(written) - len(names),
        scores=scores,
        clip_score=float(_CLIP_WEIGHT * np.maximum(cosines, 0).mean()),
    )


def _read(path: Path) -> dict[str, str]:
    """Return the descriptions by image id; images without one are left out."""
    with os_errors(path):
        path.stat()
    try:
        table = pq.read_table(path, columns=["image_id", "caption"])
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: not a Parquet file with the columns image_id and caption: {error}"
        ) from error
    ids, texts = table["image_id"].to_pylist(), table["caption"].to_pylist()
    return {str(name): text for name, text in zip(ids, texts, strict=True) if text}


def _references(snapshot: Snapshot, wanted: set[str]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for batch in snapshot.batches("captions", ["image_id", "text"], _BATCH):
        names, texts = contents(batch["image_id"]), contents(batch["text"])
        for name, text in zip(names, texts, strict=True):
            if name in wanted:
                found[name].append(text)
    return dict(found)
