"""The evaluation stage: recall in both directions, exactly and through the index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmindex.core.config import EvaluateConfig
from mmindex.core.errors import InternalError, UsageError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.evaluate.corpus import Corpus, load_corpus
from mmindex.evaluate.directions import (
    Direction,
    image_to_text,
    neighbour_recall,
    text_to_image,
)
from mmindex.evaluate.evaluation import (
    Ceiling,
    CeilingBlock,
    Evaluation,
    IndexQueries,
    IndexRecall,
    JudgedFigures,
    QueryCounts,
    RecallBlock,
    Reliabilities,
    Reliability,
)
from mmindex.evaluate.extended import EXTENDED
from mmindex.evaluate.fit import DIRECTIONS
from mmindex.evaluate.fit_hubness import measure_hubness
from mmindex.evaluate.graded import judge
from mmindex.evaluate.languages import by_language
from mmindex.evaluate.lists import score_lists
from mmindex.evaluate.qrels import Qrels, extended_qrels, read_qrels
from mmindex.evaluate.recall import Recall
from mmindex.evaluate.reliability import reliability
from mmindex.scenes import ceiling
from mmindex.scenes.ceiling import Recalls
from mmindex.search.calibration import read_calibrations
from mmindex.search.hubness import read_hubness
from mmindex.search.searcher import Searcher
from mmindex.sources.kinds.scenes import parse_scenes
from mmindex.store.manifest import EncoderInfo, Manifest
from mmindex.store.snapshot import Snapshot

# The work grows with the square; this number of scenes takes about ten seconds.
_MAX_CEILING_SCENES = 5_000


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation with its data.

    Attributes:
        evaluation: the figures.
        corpus: both sides of the corpus.
        text_to_image, image_to_text: the results of every query; None without captions.
    """

    evaluation: Evaluation
    corpus: Corpus
    text_to_image: Direction | None
    image_to_text: Direction | None


def evaluate(snapshot: Snapshot, config: EvaluateConfig) -> Evaluation:
    """Measure an indexed version without writing anything.

    Args:
        snapshot: the version or its draft: tables, ids, vectors and indexes.
        config: the largest number of queries, and the seed of samples.

    Raises:
        NoInputError: encode or index has not run.
        DataError: tables, ids and vectors do not match, or an object is damaged.
    """
    evaluation = measure(snapshot, config).evaluation
    if not evaluation.trained:
        get_logger("evaluate").warning("the model is untrained: these figures are meaningless")
    return evaluation


def settings_of(snapshot: Snapshot) -> EvaluateConfig:
    """Return the evaluation settings of a version."""
    return EvaluateConfig.model_validate(snapshot.manifest.config.get("evaluate", {}))


def measure(snapshot: Snapshot, config: EvaluateConfig) -> Measured:
    """Run :func:`evaluate` and also return the ranks and answers of every query."""
    encoder, manifest = snapshot.encoder, snapshot.manifest
    corpus = load_corpus(snapshot)
    images = Searcher(snapshot, Modality.IMAGE)
    if corpus.captions is None:
        neighbours = neighbour_recall(images, corpus.images.vectors, config)
        blank = _blank(manifest, encoder, corpus, config, neighbours)
        measured = Measured(blank, corpus, None, None)
    else:
        texts = Searcher(snapshot, Modality.TEXT)
        to_image = text_to_image(images, corpus, corpus.captions, config)
        to_text = image_to_text(texts, corpus, corpus.captions, config)
        blank = _blank(manifest, encoder, corpus, config, None)
        hubness = read_hubness(snapshot)
        filled = msgspec.structs.replace(
            _filled(blank, to_image, to_text),
            reliability=_reliabilities(snapshot, (images, texts), corpus, config.seed),
            hubness=None if hubness is None else measure_hubness(corpus, hubness.bias, config),
            languages=by_language(snapshot, corpus, corpus.captions, config) or None,
        )
        measured = Measured(filled, corpus, to_image, to_text)
    if measured.evaluation.sampled:
        get_logger("evaluate").info("measured with a sample of the queries", seed=config.seed)
    return measured


def read_judgements(snapshot: Snapshot, path: str | Path) -> Qrels:
    """Read a file of judgements, see :func:`mmindex.evaluate.qrels.read_qrels`.

    Args:
        snapshot: the version.
        path: the file, or as str the name of a list: ``eccv-caption`` or ``cxc``.

    Raises:
        UsageError: the version has no captions, or the list is not about its corpus.
        NoInputError: there is no such file.
        MissingPackageError: the package with the lists is not installed.
        DataError: the file is damaged or about another corpus.
    """
    if Modality.TEXT not in snapshot.manifest.indexes:
        raise UsageError("this version has no captions, so judgements do not apply to it")
    if isinstance(path, str) and path in EXTENDED:
        return extended_qrels(snapshot, path)
    return read_qrels(snapshot, Path(path))


def judge_with(qrels: Qrels, corpus: Corpus, config: EvaluateConfig) -> JudgedFigures:
    """Measure exact search with the right answers of a file.

    Raises:
        InternalError: the corpus has no captions.
    """
    if corpus.captions is None:
        raise InternalError("judgements about a corpus without captions")
    return judge(corpus, corpus.captions, qrels, config)


def _reliabilities(
    snapshot: Snapshot, searchers: tuple[Searcher, Searcher], corpus: Corpus, seed: int
) -> Reliabilities | None:
    """Measure the calibrations of a version with the captions that were not used to fit them."""
    known = {one.asked: one for one in read_calibrations(snapshot)}
    if not known:
        return None
    found: dict[Modality, Reliability | None] = {}
    for (asked, _), searcher in zip(DIRECTIONS, searchers, strict=True):
        found[asked] = None
        if (calibration := known.get(asked)) is not None:
            lists = score_lists(searcher, corpus, asked, fitting=False, seed=seed)
            found[asked] = None if lists is None else reliability(calibration, lists, seed)
    return Reliabilities(text_to_image=found[Modality.TEXT], image_to_text=found[Modality.IMAGE])


def _blank(
    manifest: Manifest,
    encoder: EncoderInfo,
    corpus: Corpus,
    config: EvaluateConfig,
    neighbours: float | None,
) -> Evaluation:
    """Return the evaluation of a corpus without captions."""
    return Evaluation(
        version=manifest.version,
        model=f"{encoder.model} {encoder.pretrained}".strip(),
        images=len(corpus.images.id_of_row),
        captions=len(corpus.image_of_caption),
        protocol="hit@k",
        text_to_image=None,
        image_to_text=None,
        text_to_image_index=None,
        image_to_text_index=None,
        index_recall=IndexRecall(image=_rounded(neighbours), text=None),
        queries=QueryCounts(text_to_image=0, image_to_text=0),
        index_queries=IndexQueries(image="images", text=None),
        sampled=False,
        seed=config.seed,
        trained=encoder.trained,
        ceiling=scenes_ceiling(manifest),
    )


def _filled(blank: Evaluation, to_image: Direction, to_text: Direction) -> Evaluation:
    return msgspec.structs.replace(
        blank,
        text_to_image=_block(to_image.exact),
        image_to_text=_block(to_text.exact),
        text_to_image_index=_block(to_image.through_index),
        image_to_text_index=_block(to_text.through_index),
        index_recall=IndexRecall(
            image=_rounded(to_image.index_recall), text=_rounded(to_text.index_recall)
        ),
        queries=QueryCounts(text_to_image=len(to_image.ranks), image_to_text=len(to_text.ranks)),
        index_queries=IndexQueries(image="captions", text="images"),
        sampled=to_image.sampled or to_text.sampled,
    )


def _block(measured: Recall) -> RecallBlock:
    # Four digits distinguish any two counts of up to a million queries.
    return RecallBlock(
        r1=round(measured.r1, 4),
        r5=round(measured.r5, 4),
        r10=round(measured.r10, 4),
        medr=measured.medr,
    )


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 4)


def scenes_ceiling(manifest: Manifest) -> Ceiling | None:
    """Return the best recall that any model can reach on drawn scenes; None for other corpora.

    A caption can describe several scenes, which no model can distinguish, see
    :mod:`mmindex.scenes.ceiling`. The ceiling is known only for a version with one complete scenes
    corpus.
    """
    counts = manifest.counts
    if len(manifest.sources) != 1 or counts.quarantined or counts.captions_quarantined:
        return None
    kind, _, where = manifest.sources[0].spec.partition(":")
    if kind != "scenes":
        return None
    scenes = parse_scenes(where)
    if scenes.count > _MAX_CEILING_SCENES:
        return None
    best = ceiling(scenes.seed, scenes.count)

    def block(side: Recalls) -> CeilingBlock:
        return CeilingBlock(
            r1=round(side.at_1, 4), r5=round(side.at_5, 4), r10=round(side.at_10, 4)
        )

    return Ceiling(text_to_image=block(best.text_to_image), image_to_text=block(best.image_to_text))
