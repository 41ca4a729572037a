"""The pairs to adapt to: the store's own captions, or a list of captions for its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from mmindex.adaptation.pairs import Int64, Pairs, make_pairs
from mmindex.core.errors import DataError, NoInputError
from mmindex.core.modality import Modality
from mmindex.core.progress import counter, get_logger
from mmindex.evaluate.corpus import load_corpus, sample
from mmindex.models.encoder import Float32, good_rows
from mmindex.search.vectorize import Vectorizer
from mmindex.sources.caption_lists import read_captions
from mmindex.sources.captions import usable_captions
from mmindex.sources.names import match_names, normal_name
from mmindex.store.snapshot import Snapshot

# More images do not improve maps of a thousand dimensions. With five captions each, this number of
# images takes 600 MB at 512 dimensions.
MOST_IMAGES: Final = 100_000
_TEXTS_AT_ONCE: Final = 2_048


@dataclass(frozen=True, slots=True)
class Captioned:
    """The captions that a model is adapted to.

    Attributes:
        pairs: the images and captions.
        unknown: number of captions of images that are not in the store.
        unusable: number of captions without a usable vector.
        sampled: only a sample of the images is used, because there are too many.
    """

    pairs: Pairs
    unknown: int = 0
    unusable: int = 0
    sampled: bool = False


def stored(snapshot: Snapshot, seed: int) -> Captioned:
    """Return the store's own captions; nothing is encoded.

    Args:
        snapshot: the version.
        seed: seed of the sample of a large corpus.

    Raises:
        NoInputError: it has no captions.
        DataError: too few images have a caption, or an object is damaged.
    """
    corpus = load_corpus(snapshot)
    if corpus.captions is None:
        raise NoInputError(
            f"version {snapshot.manifest.version} has no captions to adapt to",
            "pass a list of captions for its images with `captions`",
        )
    # Images with the same bytes share a vector and count once, and so do captions with equal texts.
    owners = corpus.images.id_of_row[corpus.image_of_caption]
    both = np.unique(np.stack([owners, corpus.captions.id_of_row]), axis=1)
    ids, texts, sampled = _sampled(both[0], both[1], seed)
    images, owner = np.unique(ids, return_inverse=True)
    pairs = make_pairs(
        corpus.images.vectors.take(images), corpus.captions.vectors.take(texts), owner
    )
    return Captioned(pairs, sampled=sampled)


def listed(vectorizer: Vectorizer, path: Path, seed: int) -> Captioned:
    """Return the captions of a list, in any form of :mod:`mmindex.sources.caption_lists`.

    Args:
        vectorizer: the version's vectorizer; it encodes the captions.
        path: the list. Images are named by their id, their path, or the end of the path.
        seed: seed of the sample of a large list.

    Raises:
        DataError: the list is damaged, or names too few of the store's images.
        MmindexError: the list cannot be read, or the model cannot be loaded.
    """
    snapshot = vectorizer.snapshot
    captions = {
        name: [text for _, text in usable_captions(described.captions)]
        for name, described in read_captions(path).images.items()
    }
    rows = _rows_named(snapshot, captions)
    unknown = sum(len(texts) for name, texts in captions.items() if name not in rows)
    if not rows:
        raise DataError(
            f"{path}: none of its {len(captions)} names is an image in this store",
            "name images by id, path or the end of the path, as `mmindex query` shows them",
        )
    id_of_row = snapshot.row_ids(Modality.IMAGE)
    by_id: dict[int, dict[str, None]] = {}
    for name, row in rows.items():
        by_id.setdefault(int(id_of_row[row]), {}).update(dict.fromkeys(captions[name]))
    owners = np.repeat(list(by_id), [len(texts) for texts in by_id.values()]).astype(np.int64)
    texts = [text for one in by_id.values() for text in one]
    ids, chosen, sampled = _sampled(owners, np.arange(len(texts), dtype=np.int64), seed)
    vectors = _encoded(vectorizer, [texts[place] for place in chosen.tolist()])
    good = good_rows(vectors)
    image_ids, owner = np.unique(ids[good], return_inverse=True)
    images = snapshot.vectors(Modality.IMAGE).take(image_ids)
    pairs = make_pairs(images, vectors[good], owner)
    return Captioned(pairs, unknown, int(np.count_nonzero(~good)), sampled)


def _sampled(owners: Int64, captions: Int64, seed: int) -> tuple[Int64, Int64, bool]:
    """Return the captions of at most ``MOST_IMAGES`` images."""
    images = np.unique(owners)
    if len(images) <= MOST_IMAGES:
        return owners, captions, False
    kept = np.isin(owners, images[sample(len(images), MOST_IMAGES, seed)])
    get_logger("adapt").info("using a sample", images=MOST_IMAGES, of=len(images))
    return owners[kept], captions[kept], True


def _rows_named(snapshot: Snapshot, captions: dict[str, list[str]]) -> dict[str, int]:
    """Return the row in ``images`` of each name with captions, if the name is unambiguous."""
    wanted = {name for name, texts in captions.items() if texts}
    ends = {_end(name) for name in wanted}
    found: dict[str, int] = {}
    files: dict[str, int] = {}  # candidates only: the store may have millions of others
    for row, (image_id, file) in enumerate(_names(snapshot)):
        if image_id in wanted:
            found.setdefault(image_id, row)
        if _end(file) in ends:
            files.setdefault(file, row)
    by_file = match_names(wanted, files)
    for file, row in files.items():
        name = file if file in wanted else by_file.get(file)
        if name is not None:
            found.setdefault(name, row)
    return found


def _end(name: str) -> str:
    return normal_name(name).rpartition("/")[2]


def _names(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield the id and the path of each image; an archive's member is a file below the archive."""
    for batch in snapshot.batches("images", ["image_id", "uri"]):
        columns = (batch[name].cast(pa.binary()).to_pylist() for name in ("image_id", "uri"))
        for image_id, uri in zip(*columns, strict=True):
            path = uri.decode("utf-8", "surrogatepass")
            if path.startswith("file://"):
                path = unquote(path.removeprefix("file://"), errors="surrogateescape")
            yield image_id.decode("utf-8", "surrogatepass"), path.replace("!", "/")


def _encoded(vectorizer: Vectorizer, texts: list[str]) -> Float32:
    parts = []
    progress: tqdm  # type: ignore[type-arg]  # tqdm is generic in its stubs only
    with counter(total=len(texts), label="captions", unit="text") as progress:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            parts.append(vectorizer.encode_texts(part))
            progress.update(len(part))
    return np.concatenate(parts)
