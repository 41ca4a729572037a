"""The versions of a store in a report."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mmindex.core.errors import DataError, NoInputError
from mmindex.evaluate.evaluation import Evaluation
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Counts
from mmindex.store.snapshot import Snapshot

# Two months of nightly builds; `mmindex versions` lists older ones.
MOST_VERSIONS = 60


@dataclass(frozen=True, slots=True)
class PastVersion:
    """One version.

    Attributes:
        version: the number.
        created_at: ISO 8601; empty if the manifest is damaged.
        counts: the counts; None if the manifest is damaged.
        evaluation: None if it was not evaluated.
        problem: what is damaged, or empty.
    """

    version: int
    created_at: str = ""
    counts: Counts | None = None
    evaluation: Evaluation | None = None
    problem: str = ""


def past_versions(newest: Snapshot, evaluation: Evaluation) -> tuple[PastVersion, ...]:
    """Return the versions up to ``newest``, oldest first, at most :data:`MOST_VERSIONS`.

    A damaged version is listed with the problem and does not cause an error.

    Args:
        newest: the version of the report.
        evaluation: its new evaluation.
    """
    layout, manifest = newest.layout, newest.manifest
    numbers = [number for number in versions.list_versions(layout) if number < manifest.version]
    found = (_past(layout, number) for number in numbers[1 - MOST_VERSIONS :])
    older = [past for past in found if past is not None]
    own = PastVersion(manifest.version, manifest.created_at, manifest.counts, evaluation)
    return (*older, own)


def _past(layout: Layout, number: int) -> PastVersion | None:
    """Return a version; None if gc has removed it in the meantime."""
    try:
        found = versions.read_version(layout, number)
        if found.evaluation is None:
            return PastVersion(number, found.created_at, found.counts)
        evaluation = msgspec.convert(found.evaluation, Evaluation)
    except NoInputError:
        return None
    except DataError as error:
        # The message begins with a path of this machine, which the page must not show.
        return PastVersion(number, problem=error.message.rpartition(f"{number}.json: ")[2])
    except msgspec.ValidationError as error:
        return PastVersion(number, problem=f"its evaluation is damaged: {error}")
    return PastVersion(number, found.created_at, found.counts, evaluation)
