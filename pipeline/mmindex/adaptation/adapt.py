"""Adapt a store's model to captions: from the store to the folder of a new model."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mmindex.adaptation.choose import Choice, choose, fit
from mmindex.adaptation.corpus import Captioned, listed, stored
from mmindex.adaptation.correlate import Noise, Settings
from mmindex.adaptation.folder import check_free, write_folder
from mmindex.adaptation.measure import Figures, Gain
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.evaluate.bootstrap import Interval
from mmindex.models.encoder import Encoder
from mmindex.models.files import locate
from mmindex.models.fingerprint import fingerprint_of
from mmindex.models.heads import noise_covariance
from mmindex.models.openclip import OpenClipEncoder
from mmindex.models.resolve import LOCAL_DIR, ModelRequest
from mmindex.search.vectorize import open_vectorizer, request_of
from mmindex.store.manifest import EncoderInfo


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """What to adapt, and the destination.

    Attributes:
        store: the store's folder.
        out: folder of the new model.
        captions: a list of captions; None uses the store's captions.
        overwrite: replace an adapted model that is in ``out``.
        device: where the store's model runs if captions have to be encoded.
        seed: seed of the folds, the polish and the intervals.
    """

    store: Path
    out: Path
    captions: Path | None = None
    overwrite: bool = False
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """The result of an adaptation.

    Attributes:
        store: the store's folder.
        version: the version that was read.
        adapted: whether a model was written; False if no candidate improves recall significantly.
        out: the new model's folder; None if none was written.
        model: the model name for ``build``; None if none was written.
        fingerprint: the new model's fingerprint; empty if none was written.
        parent: the store's model.
        images, captions: numbers used for fitting; images with the same bytes count once.
        unknown: number of captions of images that are not in the store.
        unusable: number of captions without a usable vector.
        sampled: only a sample of the images was used, because there were too many.
        settings: the best candidate.
        tested, gallery: number of held-out images behind the figures, and the largest number of
            images that a query searched.
        before, after: recall of the unchanged model and of the candidate on these images.
        gain: the difference in mean recall@1, 5 and 10, in percentage points.
        seconds: wall time.
    """

    store: Path
    version: int
    adapted: bool
    out: Path | None
    model: str | None
    fingerprint: str
    parent: EncoderInfo
    images: int
    captions: int
    unknown: int
    unusable: int
    sampled: bool
    settings: Settings
    tested: int
    gallery: int
    before: Figures
    after: Figures
    gain: Gain
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in ``--format json``."""
        parent = msgspec.structs.asdict(self.parent)
        figures = {"before": _recall(self.before), "after": _recall(self.after)}
        return {
            **asdict(self),
            "store": str(self.store),
            "out": None if self.out is None else str(self.out),
            "parent": {key: parent[key] for key in ("model", "pretrained", "fingerprint")},
            **figures,
        }


def _recall(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    def block(intervals: tuple[Interval, ...]) -> dict[str, dict[str, float]]:
        return {
            f"r@{one.k}": {
                "value": round(one.value, 4),
                "low": round(one.low, 4),
                "high": round(one.high, 4),
            }
            for one in intervals
        }

    return {
        "text_to_image": block(figures.text_to_image),
        "image_to_text": block(figures.image_to_text),
    }


def adapt(request: AdaptRequest) -> AdaptReport:
    """Fit maps to the vectors of a store, and write them if they improve recall.

    Raises:
        NoInputError: there is no store, or it has no captions and none are given.
        DataError: too few images have captions, or something is damaged.
        UsageError: ``out`` is not empty.
        ModelMismatchError: the store's model has changed.
        MmindexError: something cannot be read or written; ``out`` is then unchanged.
    """
    started = time.monotonic()
    out = request.out.absolute()
    check_free(out, overwrite=request.overwrite)
    log = get_logger("adapt")
    with open_vectorizer(request.store, request.device) as vectorizer:
        snapshot = vectorizer.snapshot
        if request.captions is None:
            corpus = stored(snapshot, request.seed)
        else:
            corpus = listed(vectorizer, request.captions, request.seed)
        pairs = corpus.pairs
        log.info("adapting", images=len(pairs), captions=len(pairs.texts))
        noise = _noise(vectorizer.encoder, pairs.dim)
        choice = choose(pairs, noise, request.seed)
        parent, version = request_of(snapshot), snapshot.manifest.version
        info = snapshot.encoder
    report = _report(request.store, (version, info), corpus, choice)
    fingerprint = ""
    if choice.gain.real:
        report = replace(report, adapted=True, out=out, model=f"{LOCAL_DIR}{out}")
        maps = fit(pairs, noise, choice, request.seed)
        write_folder(out, (parent, locate(parent), info), maps, report.to_json())
        made = ModelRequest(f"{LOCAL_DIR}{out}", "", parent.allow_pickle_weights)
        fingerprint = fingerprint_of(made, info.precision).fingerprint
    else:
        log.info("no candidate improves recall significantly; nothing is written")
    return replace(report, fingerprint=fingerprint, seconds=time.monotonic() - started)


def _noise(encoder: Encoder, dim: int) -> Noise:
    """Return the effect of noise in the model's features on its vectors."""
    if not isinstance(encoder, OpenClipEncoder):
        return Noise.of(None, None, dim)
    image, text = (noise_covariance(encoder.model, side, dim) for side in Modality)
    return Noise.of(image, text, dim)


def _report(
    store: Path, version: tuple[int, EncoderInfo], corpus: Captioned, choice: Choice
) -> AdaptReport:
    """Return the report of a run that writes nothing."""
    number, parent = version
    return AdaptReport(
        store=store,
        version=number,
        adapted=False,
        out=None,
        model=None,
        fingerprint="",
        parent=parent,
        images=len(corpus.pairs),
        captions=len(corpus.pairs.texts),
        unknown=corpus.unknown,
        unusable=corpus.unusable,
        sampled=corpus.sampled,
        settings=choice.settings,
        tested=choice.tested,
        gallery=choice.gallery,
        before=choice.before,
        after=choice.after,
        gain=choice.gain,
        seconds=0.0,
    )
