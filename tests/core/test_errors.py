"""Errors that end a run are reported as what they are."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from mmindex.core.errors import Terminated, duckdb_interrupts, exit_code_of


@pytest.fixture
def on_sigterm() -> Iterator[None]:
    """Restores the handler of SIGTERM afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("on_sigterm")
@pytest.mark.parametrize(("terminated", "code"), [(True, 143), (False, 130)])
def test_a_query_of_duckdb_that_a_signal_ended_is_reported_as_that_signal(
    terminated: bool, code: int
) -> None:
    """DuckDB itself raises a RuntimeError, which would look like a bug."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN if terminated else signal.SIG_DFL)
    with pytest.raises((Terminated, KeyboardInterrupt)) as caught, duckdb_interrupts():
        raise RuntimeError("Query interrupted")  # what duckdb 2 raises for any signal
    assert exit_code_of(caught.value) == code


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="else"), duckdb_interrupts():
        raise RuntimeError("something else")
