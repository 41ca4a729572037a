"""Recommendations from a history of likes and dislikes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from mmindex.api.asking import Form
from mmindex.api.hits import Recommended
from mmindex.core.arguments import as_path, expect_several
from mmindex.core.modality import Modality
from mmindex.insight.history import given_events, read_history
from mmindex.insight.recommend import Taste, recommend
from mmindex.search.answer import Answer


def recommended(
    form: Form, history: str | os.PathLike[str] | Iterable[object], taste: Taste
) -> Recommended:
    """Return the images for a history: a file, or ids or mappings."""
    if isinstance(history, str | os.PathLike):
        events = read_history(as_path(history, "history"))
    else:
        expect_several(history, "history")
        events = given_events(history)
    scope = form.session.scope(Modality.IMAGE)
    found, used = recommend(scope, events, taste, form.limit.k, time.time())
    title = f"{used.likes:,} likes and {used.dislikes:,} dislikes"
    answer = Answer(title, Modality.IMAGE, scope.snapshot.manifest.version, found)
    return Recommended(answer, form.details(answer), used)
