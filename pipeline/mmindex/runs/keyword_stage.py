"""The keyword index of a version, as part of the index stage."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.keywords.build import NOTHING, Built, build_segments
from mmindex.keywords.documents import Documents
from mmindex.keywords.index import KeywordIndex
from mmindex.keywords.names import SEGMENTS, SUMMARY
from mmindex.keywords.postings import Segment
from mmindex.keywords.summary import Summary, Weights, inputs_of, read_summary, write_summary
from mmindex.runs.context import Context
from mmindex.search.fit_hybrid import fit_weights
from mmindex.store.chain import last_indexed
from mmindex.store.manifest import Manifest, ObjectRef

KeywordAction: TypeAlias = Literal["built", "updated", "kept", "removed", "none"]
"""What is done to a keyword index; ``none``: there is none, and none is wanted."""


def keyword_objects(context: Context, draft: Manifest) -> tuple[ObjectRef, ...]:
    """Keep the keyword index if nothing changed, otherwise build it; unchanged segments are kept.

    Args:
        context: the run's context.
        draft: with the image index.

    Raises:
        DataError: a table is damaged.
    """
    if not context.config.index.keywords:
        return ()
    inputs = inputs_of(draft)
    before = _published(context)
    if before is not None and before.summary.inputs == inputs:
        return before.refs
    started = time.perf_counter()
    snapshot = context.snapshot(draft)
    documents = Documents(snapshot)
    built = build_segments(snapshot, documents, NOTHING if before is None else before.built)
    summary = Summary(inputs, Weights(), built.lengths)
    keywords = KeywordIndex(summary, [Segment(context.objects, ref) for ref in built.refs])
    weights = fit_weights(snapshot, keywords, documents, context.config.index.seed)
    ref = write_summary(context.objects, replace(summary, weights=weights))
    get_logger("index").info(
        "keyword index built",
        words=keywords.words,
        segments=len(built.refs),
        segments_kept=built.kept,
        weight=weights.partial,
        weight_all_words=weights.complete,
        seconds=round(time.perf_counter() - started, 2),
    )
    return (*built.refs, ref)


def keyword_action(context: Context, *, changed: bool) -> KeywordAction:
    """Return what a build would do to the keyword index; ``changed``: the corpus or its vectors."""
    version = last_indexed(context.layout, context.parent, Modality.IMAGE)
    before = _published(context)
    if not context.config.index.keywords:
        return "none" if before is None else "removed"
    if version is None or before is None:
        return "built"
    return "updated" if changed or before.summary.inputs != inputs_of(version) else "kept"


@dataclass(frozen=True, slots=True)
class _Before:
    """The keyword index of the last indexed version; all of its objects are intact."""

    refs: tuple[ObjectRef, ...]
    summary: Summary

    @property
    def built(self) -> Built:
        """Its segments."""
        return Built(self.refs[:-1], self.summary.lengths)


def _published(context: Context) -> _Before | None:
    version = last_indexed(context.layout, context.parent, Modality.IMAGE)
    if version is None or (last := version.find(SUMMARY)) is None:
        return None
    refs = (*version.named(SEGMENTS), last)
    try:
        for ref in refs:
            context.objects.path(ref)
        return _Before(refs, read_summary(context.snapshot(version)))
    except DataError as error:
        get_logger("index").warning("building the damaged keyword index again", why=error.message)
        return None
