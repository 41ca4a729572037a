"""Record jobs on a store, and simulate a power loss at every moment of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmindex.core.errors import MmindexError
from mmindex.store.layout import Layout
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.lock import writer_lock
from support.lossy import Content, Event, recording
from support.oracle import Expected, State, at_rest, observe, violations
from support.power import Disk, crash_states
from support.power import State as OnDisk

_END = "end of a step"


@dataclass(frozen=True, slots=True)
class Step:
    """One job on the store.

    Attributes:
        name: for people.
        do: the job that a crash interrupts, and that a re-run repeats.
        prepare: prepares the job, outside the store.
        once: repeated only if it had no effect, because it would be another job (a rollback).
        unsure: the result of the previous run was not safe yet, and can be lost with this one.
        fails: it does not end by itself, so its end guarantees nothing.
        exact: afterwards, and after a re-run, exactly these versions are kept.
        verdict: returns violated conditions, one line each, in addition to the oracle or, with
            ``alone``, instead of it; its argument states whether the job had ended.
    """

    name: str
    do: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    once: bool = False
    unsure: bool = False
    fails: bool = False
    exact: bool = True
    verdict: Callable[[bool], list[str]] = lambda _ended: []
    alone: bool = False


@dataclass(slots=True)
class Recording:
    """The operations of steps on one store, and its state after each."""

    root: Path
    steps: Sequence[Step]
    events: list[Event]
    shown: list[State] = field(default_factory=list)
    staged: list[set[str]] = field(default_factory=list)  # leftovers at the start of each step

    def expected(self, step: int) -> Expected:
        before = self.shown[step - self.steps[step].unsure]
        return Expected(before, self.shown[step + 1], self.steps[step].exact)


def record(root: Path, steps: Sequence[Step]) -> Recording:
    """Run the steps one after the other, starting without a store."""
    made = Recording(root, steps, [])
    made.shown.append(observe(root))
    for step in steps:
        step.prepare()
        made.staged.append({f"staging/{path.name}" for path in root.glob("staging/*")})
        with recording(root) as recorder:
            step.do()
            recorder.mark(_END)
        made.events += recorder.events
        made.shown.append(observe(root))
    leftovers = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
    held = {
        name: Content(path.read_bytes(), path.stat().st_mtime_ns)
        for name, path in leftovers.items()
    }
    made.events.append(Event("mark", "", contents=held))
    return made


def without(events: Sequence[Event], site: str) -> list[Event]:
    """Return the same record for a program without the fsync at ``site``."""
    kept = []
    for event in events:
        if event.site != site:
            kept.append(event)
        elif event.kind == "sync":
            kept.append(Event("mark", event.path, contents=event.contents))
    return kept


def steps_asking(events: Sequence[Event], site: str) -> list[int]:
    """Return the steps that call the fsync at ``site``."""
    step, found = 0, {}
    for event in events:
        if event.site == site:
            found[step] = True
        step += event.kind == "mark" and event.path == _END
    return list(found)


@dataclass(frozen=True, slots=True)
class Crash:
    """A power loss: its step, whether the step had ended, and the content of the disk."""

    step: int
    ended: bool
    disk: OnDisk
    moment: int


def crashes(
    events: Sequence[Event],
    seed: int,
    steps: Collection[int],
    most: int = 64,
) -> Iterator[Crash]:
    """Yield every different state in which a power loss can leave the store in these steps."""
    dice = random.Random(seed)
    disk = Disk(events, {})
    seen: set[tuple[int, bool, int]] = set()
    step = 0
    for moment, event in disk.moments():
        ended = event.kind == "mark" and event.path == _END
        if step in steps:
            for state in crash_states(disk, moment, most, dice):
                crash = (step, ended, state.digest())
                if crash not in seen:
                    seen.add(crash)
                    yield Crash(step, ended, state, moment)
        step += ended


def judge(made: Recording, crash: Crash, *, rerun: bool) -> list[str]:
    """Return violated conditions after a crash; with ``rerun``, also after repeating the job."""
    shutil.rmtree(made.root, ignore_errors=True)
    crash.disk.write(made.root)
    step, expected = made.steps[crash.step], made.expected(crash.step)
    ended = crash.ended and not step.fails
    found = step.verdict(ended)
    if ended:
        # Files that a run found and removed could contain items forgotten in the meantime.
        left = made.staged[crash.step].intersection(crash.disk.tree)
        found += [f"back in staging: {name}" for name in sorted(left)]

    def again() -> int:
        step.prepare()
        try:
            if not step.once or observe(made.root).content != expected.after.content:
                step.do()
            else:  # what every other writer does first
                with writer_lock(Layout(made.root)):
                    remove_leftovers(Layout(made.root))
        except MmindexError as error:
            return error.exit_code
        return 0

    if step.alone:
        return found
    code = 0 if ended else None
    if rerun and not step.fails:
        return found + violations(made.root, expected, code, again)
    return found + at_rest(made.root, expected, code)
