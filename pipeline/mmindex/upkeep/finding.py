"""The results of the checks of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The effect of a finding on a build."""

    OK = "ok"
    NOTE = "note"  # works, with a restriction
    BROKEN = "broken"  # a build cannot run


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    what: str
    state: State
    detail: str
