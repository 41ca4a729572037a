"""A power loss affects at most the run in progress; every fsync is necessary (guarantee 3).

Five stores are recorded (:mod:`support.outages`). For every moment of each record, every content
that the disk may then have (:mod:`support.power`) is made and judged.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.fakestore import fast_folder
from support.fsyncs import fsync_sites
from support.naive import naive_writer
from support.outage import Crash, Recording, crashes, judge, record, steps_asking, without
from support.outages import builds, drawn, fetched, forgotten_again, life, taken_up
from support.tally import Tally

pytestmark = pytest.mark.timeout(1800)
LIVES = (
    "fetched",
    "forgotten again",
    "drawn",
    "taken up",
    "life",
)  # the shortest first, because they show a missing fsync soonest
STEPS = 9  # of the longest
# In the bounded form: states per step, and the share of them that is also run again.
SAMPLE, RERUN = 40, 4


Sound = set[tuple[int, int]]


@pytest.fixture(scope="module")
def recordings() -> Iterator[dict[str, Recording]]:
    with fast_folder() as folder, ExitStack() as stack:
        places = {name: folder / name for name in LIVES}
        for place in places.values():
            place.mkdir()
        yield {
            "fetched": stack.enter_context(fetched(places["fetched"])),
            "forgotten again": forgotten_again(places["forgotten again"]),
            "drawn": drawn(places["drawn"]),
            "taken up": taken_up(places["taken up"]),
            "life": life(places["life"]),
        }


def told(made: Recording, crash: Crash, found: list[str]) -> str:
    step, event = made.steps[crash.step].name, made.events[crash.moment]
    return f"{step}, after {event.kind} {event.path} {event.target} ({crash.disk.story}): {found}"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *(("life", step) for step in range(STEPS)),
        ("drawn", 0),
        ("fetched", 0),
        ("forgotten again", 3),
        *(("taken up", step) for step in range(4)),
    ],
)
def test_whatever_a_power_loss_leaves_the_store_is_intact(
    recordings: dict[str, Recording], name: str, step: int, full: bool, tally: Tally
) -> None:
    made, seed = recordings[name], tally.seed(f"power loss, {name} {step}")
    bad, states = [], list(crashes(made.events, seed, [step]))
    if not full and len(states) > SAMPLE:
        states = random.Random(seed).sample(states, SAMPLE)
    for number, crash in enumerate(states):
        found = judge(made, crash, rerun=full or number % RERUN == 0)
        tally.add("power losses", tried=1, survived=not found)
        if found:
            bad.append(told(made, crash, found))
    assert not bad, f"{len(bad)} violations:\n" + "\n".join(bad[:10])


@pytest.fixture(scope="module")
def sound(recordings: dict[str, Recording]) -> dict[str, Sound]:
    """Return what a power loss can leave with the real code, by step; it was tested above."""
    return {
        name: {
            (crash.step, crash.disk.digest())
            for crash in crashes(made.events, 0, range(len(made.steps)))
            if not crash.ended
        }
        for name, made in recordings.items()
    }


@pytest.mark.parametrize("site", fsync_sites())
def test_every_fsync_is_necessary(
    recordings: dict[str, Recording], sound: dict[str, Sound], site: str, tally: Tally
) -> None:
    """Each fsync is removed from the record, which only makes the disk less safe."""
    found = (harm(recordings[name], sound[name], site) for name in LIVES)
    needed = next(filter(None, found), "")
    tally.add("fsyncs", left_out=1, did_harm=bool(needed))
    print(needed)  # noqa: T201 - what it is good for
    assert needed, f"nothing needs the fsync at {site}"


def harm(made: Recording, sound: Sound, site: str) -> str:
    """Return the first violation without an fsync; empty if there is none."""
    events = without(made.events, site)
    if events == made.events:
        return ""
    for step in steps_asking(made.events, site):
        # The last states have the most to lose.
        for crash in reversed(list(crashes(events, 0, [step], most=16))):
            if (crash.step, crash.disk.digest()) in sound and not crash.ended:
                continue
            if found := judge(made, crash, rerun=False):
                return told(made, crash, found)
    return ""


def test_a_writer_in_place_does_not_survive_a_power_loss(tally: Tally) -> None:
    """A negative control: nothing is synced or renamed."""
    with fast_folder() as folder:
        with naive_writer():
            made = record(folder / "store", builds(folder))
        states = crashes(made.events, 0, range(len(made.steps)), most=16)
        tried = list(itertools.islice(states, 0, 2_000, 40))
        caught = sum(bool(judge(made, crash, rerun=False)) for crash in tried)
    tally.add("careless writer, power losses", tried=len(tried), caught=caught)
    assert caught > len(tried) // 2
