"""Sessions of one version with different conditions."""

from __future__ import annotations

from mmindex.core.memo import Memo
from mmindex.search.query import Session


class Sessions:
    """Sessions of one version with different conditions; the latest ones are cached.

    Args:
        session: the version, without a condition.
        keep: the number of conditions to cache.
        timeout_s: the time limit for a condition; None: as on the command line.

    Several threads can use it at once.
    """

    def __init__(self, session: Session, keep: int, timeout_s: float | None = None) -> None:
        self.session = session
        self._timeout_s = timeout_s
        self._filtered: Memo[Session] = Memo(keep)

    def under(self, where: str | None) -> Session:
        """Return the session with a condition.

        Raises:
            UsageError: the condition is invalid, or takes too long.
        """
        if where is None:
            return self.session
        return self._filtered.get(where, lambda: self.session.filtered(where, self._timeout_s))

    def close(self) -> None:
        """Release the model and the conditions."""
        self._filtered.clear()
        self.session.vectorizer.close()
