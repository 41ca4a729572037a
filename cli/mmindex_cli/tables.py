"""Options and reports of the commands that write texts about images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmindex.core.display import visible
from mmindex.core.errors import UsageError

if TYPE_CHECKING:
    from mmindex.api.index import Index
    from mmindex.decoder.table import TableReport


@dataclass(frozen=True, slots=True)
class Target:
    """The images to write about.

    Attributes:
        image: one image; None with ``corpus``.
        corpus: whether to write about all images that match ``where``.
        out: the file for the texts of the corpus.
        where: the condition.
        beams: the width of the beam search.
    """

    image: str | None
    corpus: bool
    out: Path | None
    where: str | None
    beams: int

    def __post_init__(self) -> None:
        if self.corpus == (self.image is not None):
            raise UsageError("name one image, or all of them", "use `image` or `corpus`")
        if self.corpus and self.out is None:
            raise UsageError("`corpus` needs a file for the texts", "add `out`")
        if not self.corpus and (self.out is not None or self.where is not None):
            raise UsageError("`out` and `where` need `corpus`", "add `corpus`")


def facts_of(index: Index) -> dict[str, str]:
    """Return the fields of JSON that describe the model of the store."""
    info = index.snapshot.encoder
    return {"model": info.model, "fingerprint": info.fingerprint}


def report_lines(report: TableReport, unit: str = "images") -> Iterator[str]:
    """Return the lines of a report for people."""
    yield f"{visible(str(report.path))}  {report.rows:,} {unit}"
    if report.resumed:
        yield f"{report.resumed:,} of them are from an interrupted run"
    if report.failed:
        yield f"{report.failed:,} {unit} cannot be used: see the column error"


def report_record(report: TableReport, unit: str = "images") -> dict[str, object]:
    """Return a report for JSON."""
    counts = {unit: report.rows, "failed": report.failed, "resumed": report.resumed}
    return {"file": str(report.path), **counts}
