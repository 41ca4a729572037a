"""The manifest of a version and its parts, as they are stored in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from mmindex.core.errors import DataError, InternalError, NoInputError
from mmindex.core.modality import Modality

# The stage that makes an object, by the start of its name; index makes all others.
_MADE_BY = {
    "crawl": "crawl",
    "images": "crawl",
    "captions": "crawl",
    "quarantine": "crawl",
    "embeddings": "encode",
}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all records on disk: a fixed set of fields, immutable."""


class ObjectRef(Record, frozen=True):
    """An immutable file that a version uses.

    ``name`` is its role (``images``, ``embeddings/image/00000``, ``index/text`` ...); ``rows`` is
    the number of rows or vectors in it.
    """

    name: str
    sha256: str
    bytes: int
    rows: int

    def named(self, name: str) -> ObjectRef:
        """Return the same object under another name."""
        return msgspec.structs.replace(self, name=name)


class SourceSummary(Record, frozen=True):
    """The result of one source: ``seen = images + quarantined + ignored``.

    ``notes`` counts irregularities that excluded no image: captions for unknown images, for
    example. ``not_read`` counts files whose extension is not an image's, by extension.
    """

    spec: str
    name: str
    seen: int
    images: int
    captions: int
    quarantined: int
    ignored: int
    notes: dict[str, int] = {}
    not_read: dict[str, int] = {}


def count_not_read(sources: Iterable[SourceSummary]) -> dict[str, int]:
    """Count the files that were not read in all sources, by extension, most frequent first."""
    total: Counter[str] = Counter()
    for source in sources:
        total.update(source.not_read)
    return dict(total.most_common())


class Counts(Record, frozen=True):
    """The corpus in numbers, which must balance: ``seen = indexed + quarantined + ignored``.

    These count images. ``captions_quarantined`` counts captions whose vector cannot be used.
    """

    seen: int
    indexed: int
    quarantined: int
    ignored: int
    captions: int
    unique_images: int
    unique_texts: int
    reasons: dict[str, int] = {}
    captions_quarantined: int = 0

    @property
    def balanced(self) -> bool:
        """Whether all items seen are accounted for."""
        return self.seen == self.indexed + self.quarantined + self.ignored


class InputFile(Record, frozen=True):
    """A file that determines the vectors of the encoder."""

    path: str
    sha256: str


class EncoderInfo(Record, frozen=True, omit_defaults=True):
    """The model that made the vectors.

    ``fingerprint`` is the sha256 over architecture, weights, preprocessing, tokenizer and
    precision: equal fingerprints mean interchangeable vectors. With ``inputs`` and ``package``, a
    later run can determine without loading the model that nothing has changed. ``parent`` is the
    fingerprint of the model that this one was adapted from; other models have none.
    """

    fingerprint: str
    model: str
    pretrained: str
    precision: str
    dim: int
    image_size: int
    architecture: str
    weights: str
    preprocess: str
    tokenizer: str
    trained: bool
    inputs: tuple[InputFile, ...]
    package: str
    parent: str = ""


class IndexInfo(Record, frozen=True):
    """How the index of one side was made and how it is searched.

    ``factory`` is empty for exact search, which reads only the ``vectors`` objects. ``nprobe`` and
    ``k_factor`` (candidates re-ranked per requested hit) come from the measured ``curve``: points
    of nprobe, k_factor, recall@10, and estimated ms per query (from a model, not measured).
    ``inputs`` is a digest of everything that the index was made from; if it is unchanged, the index
    is kept.

    ``n`` counts live vectors, ``rows`` the ids assigned so far: ids of removed vectors are not
    reused until the index is rebuilt. ``trained_on`` is ``n`` at the last rebuild,
    ``trained_recall`` the recall measured then, ``changed`` the number of vectors added and removed
    since. ``recipe`` is a digest of the model and the settings; if it changes, the index is
    rebuilt.

    ``refine`` is the format that re-ranking reads (``fp16`` or ``sq8``). ``fidelity`` is the share
    of the true ten best that are still among the ten best in this format: 1 with float16.
    """

    modality: Modality
    factory: str
    reason: str
    n: int
    dim: int
    seed: int
    threads: int
    faiss_version: str
    training_rows: int
    nprobe: int
    k_factor: int
    recall_target: float
    measured_recall: float | None
    curve: tuple[tuple[int, int, float, float], ...] = ()
    inputs: str = ""
    rows: int = 0
    trained_on: int = 0
    changed: int = 0
    trained_recall: float | None = None
    recipe: str = ""
    refine: str = "fp16"
    fidelity: float = 1.0

    def __post_init__(self) -> None:
        """Fill in fields that older manifests lack: their indexes were always built whole."""
        if not self.rows:
            msgspec.structs.force_setattr(self, "rows", self.n)
            msgspec.structs.force_setattr(self, "trained_on", self.n)
            msgspec.structs.force_setattr(self, "trained_recall", self.measured_recall)

    @property
    def exact(self) -> bool:
        """Whether the results are those of a full scan."""
        return not self.factory


class Manifest(Record, frozen=True):
    """One published version of a store.

    ``stages`` are those that have run for this version (``crawl``, ``encode``, ``index``);
    ``config`` has the settings that it was built with, which a later build without sources uses.

    ``parent_sha256`` is the digest of the parent's manifest file: followed from CURRENT, it
    verifies the older manifests too. Versions below ``floor`` contain forgotten items and must not
    be kept. ``restored_from`` is the version whose content a rollback published again.
    """

    format: str
    version: int
    parent: int | None
    created_at: str
    run_id: str
    mmindex: str
    stages: tuple[str, ...]
    config: dict[str, Any]
    corpus_fingerprint: str
    sources: tuple[SourceSummary, ...]
    counts: Counts
    encoder: EncoderInfo | None
    indexes: dict[Modality, IndexInfo]
    evaluation: dict[str, Any] | None
    evaluation_inputs: str
    objects: tuple[ObjectRef, ...]
    parent_sha256: str | None = None
    floor: int = 1
    restored_from: int | None = None

    def find(self, name: str) -> ObjectRef | None:
        """Return the object called ``name``, or None."""
        return next((ref for ref in self.objects if ref.name == name), None)

    def require(self, name: str) -> ObjectRef:
        """Return the object called ``name``.

        Raises:
            NoInputError: the stage that makes it has not run.
        """
        ref = self.find(name)
        if ref is None:
            stage = _MADE_BY.get(name.partition("/")[0], "index")
            raise NoInputError(
                f"version {self.version} has no {name}: {stage} has not run yet",
                f"run `mmindex {stage}` first",
            )
        return ref

    def named(self, prefix: str | tuple[str, ...]) -> tuple[ObjectRef, ...]:
        """Return the objects whose name starts with ``prefix`` (or one of several), in order."""
        return tuple(ref for ref in self.objects if ref.name.startswith(prefix))

    def but(self, prefixes: tuple[str, ...]) -> tuple[ObjectRef, ...]:
        """Return the objects whose name starts with none of ``prefixes``."""
        return tuple(ref for ref in self.objects if not ref.name.startswith(prefixes))

    @property
    def size_bytes(self) -> int:
        """The total size of all objects; an object with two names counts once."""
        return sum({ref.sha256: ref.bytes for ref in self.objects}.values())

    def content(self) -> bytes:
        """Return the canonical bytes of the version's content, without its run and time.

        Two versions with the same content return the same results for every query.
        """
        timeless = msgspec.structs.replace(
            self,
            version=0,
            parent=None,
            parent_sha256=None,
            restored_from=None,
            created_at="",
            run_id="",
            mmindex="",
        )
        return msgspec.json.encode(timeless, order="sorted")


class Current(Record, frozen=True):
    """The content of CURRENT: the commit point.

    Version 0 with an empty ``manifest_sha256`` means a new store: nothing is published yet.
    """

    version: int
    manifest_sha256: str

    @property
    def plausible(self) -> bool:
        """Whether the number and the digest fit together; a bit error can turn version 1 into 0."""
        return self.version >= 0 and len(self.manifest_sha256) == (64 if self.version else 0)


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as the bytes that are stored.

    Raises:
        InternalError: the counts do not balance; such a version must never be published.
    """
    if not manifest.counts.balanced:
        raise InternalError(f"counts do not balance: {manifest.counts}")
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        DataError: the bytes are not a manifest.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a manifest: {error}", "run `mmindex check`") from error
