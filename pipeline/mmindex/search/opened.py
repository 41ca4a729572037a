"""An open version: its model, and the parts that searches read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from mmindex.core.errors import NoInputError
from mmindex.core.memo import Memo
from mmindex.core.modality import Modality
from mmindex.keywords.index import KeywordIndex, open_keywords
from mmindex.search.calibration import Calibration, read_calibrations
from mmindex.search.hubness import Hubness, read_hubness
from mmindex.search.searcher import Searcher
from mmindex.search.vectorize import LoadTexts, Vectorizer, no_text_encoder
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.models.encoder import Encoder

T = TypeVar("T")

# The indexes of both sides, the keyword index, the calibrations and the correction of hubness.
_PARTS: Final = 5


class Opened:
    """One published version with the parts that searches read.

    Each part is read on first use and once, for all threads and for all sessions of the version.

    Args:
        snapshot: the version.
        load: loads the model of the index; called once, when it is first needed.
        load_texts: as for :class:`mmindex.search.vectorize.Vectorizer`.

    Attributes:
        snapshot: the version.
        vectorizer: the model.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        load: Callable[[], Encoder],
        load_texts: LoadTexts = no_text_encoder,
    ) -> None:
        self.snapshot = snapshot
        self.vectorizer = Vectorizer(snapshot, load, load_texts)
        self._parts: Memo[Any] = Memo(_PARTS)

    def searcher(self, side: Modality) -> Searcher:
        """Return the vector index of one side.

        Raises:
            NoInputError: this side has nothing to search.
            DataError: the index is damaged.
        """
        return self._once(f"index/{side}", lambda: Searcher(self.snapshot, side))

    def keywords(self) -> KeywordIndex:
        """Return the keyword index; raises as :func:`~mmindex.keywords.index.open_keywords`."""
        return self._once("keywords", lambda: open_keywords(self.snapshot))

    def calibration(
        self, asked: Modality | None, to: Modality, *, needed: bool
    ) -> Calibration | None:
        """Return the calibration for queries from one side; None if there is none.

        Args:
            asked: the side of the queries; None for queries that are never calibrated.
            to: the side that is searched.
            needed: raise an error if there is none.

        Raises:
            NoInputError: there is none, but it is ``needed``.
            DataError: the calibrations are damaged.
        """
        for one in self._once("calibrations", lambda: read_calibrations(self.snapshot)):
            if (one.asked, one.to) == (asked, to):
                return one
        if needed:
            raise NoInputError(
                f"version {self.snapshot.manifest.version} has no calibration for this kind of "
                "query, so weak hits are not known",
                "use `good` to find images by one text or captions by one image, in a store that "
                "was evaluated with at least 50 captioned images",
            )
        return None

    def hubness(self) -> Hubness | None:
        """Return the correction of hubness; None if the version has none.

        Raises:
            DataError: it is damaged.
        """
        return self._once("hubness", lambda: read_hubness(self.snapshot))

    def _once(self, name: str, read: Callable[[], T]) -> T:
        return cast("T", self._parts.get(name, read))
