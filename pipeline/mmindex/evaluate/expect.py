"""Compare the recall of a store with expected or published figures."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.evaluate.evaluation import Evaluation
from mmindex.sources.corpora import list_corpora
from mmindex.sources.expected import Expected
from mmindex.store.snapshot import Snapshot

PUBLISHED = "published"
"""In place of a file: the figures that ``data/corpora`` holds."""

_BLOCKS = (
    "text_to_image",
    "image_to_text",
    "text_to_image_index",
    "image_to_text_index",
    "index_recall@10",
)
_COUNTS = ("images", "captions")
# Measured figures are rounded to four digits; this is much smaller.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Figure:
    """An expected figure and the measured one; None if there was nothing to measure."""

    name: str
    expected: float
    measured: float | None
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the measured figure is within the tolerance."""
        if self.measured is None:
            return False
        return abs(self.measured - self.expected) <= self.tolerance + _ROUNDING

    def __str__(self) -> str:
        measured = "nothing" if self.measured is None else f"{self.measured:g}"
        return f"{self.name}: expected {self.expected:g} ± {self.tolerance:g}, measured {measured}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All expected figures; ``title`` names their subject, ``cite`` their source."""

    title: str
    cite: str
    figures: tuple[Figure, ...]

    @property
    def outside(self) -> tuple[Figure, ...]:
        """The figures outside their tolerance."""
        return tuple(figure for figure in self.figures if not figure.within)

    def check(self) -> None:
        """Check that all figures are within their tolerance.

        Raises:
            DataError: names each figure outside its tolerance.
        """
        if self.outside:
            raise DataError(
                f"{len(self.outside)} of {len(self.figures)} figures are not as expected"
                f" ({self.title}): " + "; ".join(str(figure) for figure in self.outside),
                "the corpus, model, precision or index may have changed; if this is intended,"
                " write the new figures into the file",
            )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    expected: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """The model and corpus of a store, to match expected figures."""

    model: str
    pretrained: str
    corpus: str
    split: str

    @classmethod
    def of(cls, snapshot: Snapshot) -> Subject:
        """Read those of a store; several sources and splits are joined with ``+``."""
        manifest, encoder = snapshot.manifest, snapshot.encoder
        column = snapshot.table("images", ["split"])["split"]
        # Bytes instead of strings: a name can contain lone surrogates, which are not UTF-8.
        splits = pc.unique(column.cast(pa.binary())).to_pylist()
        return cls(
            encoder.model,
            encoder.pretrained,
            "+".join(sorted({source.name for source in manifest.sources})),
            "+".join(sorted(str(split, "utf-8", "backslashreplace") for split in splits)),
        )

    def fits(self, golden: Expected) -> bool:
        """Return whether these figures match this store."""
        return all(
            wanted is None or wanted == own
            for wanted, own in (
                (golden.model, self.model),
                (golden.pretrained, self.pretrained),
                (golden.corpus, self.corpus),
                (golden.split, self.split),
            )
        )

    def __str__(self) -> str:
        return f"{self.model} {self.pretrained}".strip() + f" on {self.corpus} {self.split}"


def find_expected(snapshot: Snapshot, name: str) -> Expected:
    """Return the expected figures for this store.

    Args:
        snapshot: the published version of the store.
        name: a TOML file, or ``published`` for the figures included in mmindex.

    Raises:
        NoInputError: there is no such file, or it has no figures for this model and corpus.
        DataError: the file is damaged, or several of its tables match.
    """
    golden = _published() if name == PUBLISHED else _read(Path(name))
    subject = Subject.of(snapshot)
    fitting = [one for one in golden if subject.fits(one)]
    if not fitting:
        known = ", ".join(dict.fromkeys(one.title for one in golden))
        raise NoInputError(f"{name}: no figures for {subject}", f"available: {known or 'none'}")
    if len(fitting) > 1:
        raise DataError(
            f"{name}: {len(fitting)} tables match {subject}",
            "set model, pretrained, corpus and split in each",
        )
    return fitting[0]


def _published() -> tuple[Expected, ...]:
    return tuple(golden for corpus in list_corpora() for golden in corpus.expected)


def _read(path: Path) -> tuple[Expected, ...]:
    with os_errors(path):
        data = path.read_bytes()
    try:
        golden = msgspec.convert(tomllib.loads(data.decode("utf-8")), _File).expected
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", "docs/evaluation.md shows an example") from error
    if empty := [number for number, one in enumerate(golden, 1) if not _figures(one, {})]:
        raise DataError(f"{path}: [[expected]] number {empty[0]} has no figures")
    return golden


def compare(golden: Expected, evaluation: Evaluation) -> Comparison:
    """Compare measured with expected figures."""
    return Comparison(golden.title, golden.cite, _figures(golden, msgspec.to_builtins(evaluation)))


def _figures(golden: Expected, measured: dict[str, Any]) -> tuple[Figure, ...]:
    expected = msgspec.to_builtins(golden)
    counts = [
        Figure(name, expected[name], measured.get(name), 0.0)
        for name in _COUNTS
        if expected[name] is not None
    ]
    blocks = [
        Figure(f"{block} {name}", value, (measured.get(block) or {}).get(name), golden.tolerance)
        for block in _BLOCKS
        for name, value in (expected[block] or {}).items()
    ]
    return (*counts, *blocks)
