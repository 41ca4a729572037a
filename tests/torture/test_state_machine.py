"""Any order of jobs keeps data in use, with correct answers (guarantee 8).

A hypothesis state machine (:mod:`support.machine`) builds, changes, kills, holds, collects, rolls
back and forgets, and compares the store with its own books after every step.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from mmindex.store import holds
from mmindex.upkeep import gc as collect
from mmindex.upkeep.gc import Retention
from support.machine import Store
from support.tally import Tally

pytestmark = pytest.mark.timeout(3600)
EXAMPLES, STEPS = (500, 16), (50, 30)  # full, bounded
CHUNKS = 4  # so that two workers get about the same


def explore(machine: type[Store], examples: int, steps: int, drawn: int) -> None:
    """Run the machine; raise the first error, with the fewest steps that lead to it."""
    run_state_machine_as_test(
        seed(drawn)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_any_order_of_jobs_keeps_what_is_in_use(
    chunk: int, fast_dir: Path, full: bool, tally: Tally
) -> None:
    class Counted(Store):
        folder = fast_dir
        stepped = staticmethod(lambda: tally.add("states", explored=1))

    mode = 0 if full else 1
    drawn = tally.seed(f"state machine {chunk}")
    explore(Counted, EXAMPLES[mode] // CHUNKS, STEPS[mode], drawn)


FAULTS = {
    "none": nullcontext,
    "collects what is held": lambda: mock.patch.object(holds, "lock_exclusive", return_value=None),
    "keeps one version too few": lambda: mock.patch.object(collect, "plan", keep_too_few),
    "trusts a clock set back": lambda: mock.patch.object(Retention, "young", return_value=False),
}
real_plan = collect.plan


def keep_too_few(created: Any, current: Any, retention: Retention, now: Any) -> Any:
    return real_plan(created, current, Retention(2, retention.keep_days), now)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_books_notice_a_careless_collector(fault: str, fast_dir: Path) -> None:
    """A negative control: the same steps, which cause no violation with the real code."""

    class Watched(Store):
        folder = fast_dir
        stepped = staticmethod(lambda: None)

    machine = Watched()
    found = []
    try:
        with FAULTS[fault]():
            machine.first_build()
            machine.hold()
            for number in range(6, 11):
                machine.time_passes(8.0 if number < 10 else -30.0)
                machine.put("0.jpg", number)
                machine.build()
                machine.collect()
                machine.the_store_is_sound()
                machine.what_must_stay_is_there_and_answers()
    except AssertionError as error:
        found.append(error)
    finally:
        machine.teardown()
    assert bool(found) == (fault != "none")
