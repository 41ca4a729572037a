"""The state machine of a store's life, and its own record of what the store must contain.

Its steps are the jobs of mmindex, in this process and with the fake model. Kills are those of
:mod:`support.dying`, and the clock is that of :mod:`support.upkeeping`.

What a step draws never depends on the store, so that Hypothesis can repeat it even if a kill hits
another operation: the time of a crawl, for example, decides what its cache contains. A step that
cannot be done does nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmindex.store import holds, versions
from mmindex.store.holds import Hold
from mmindex.store.layout import Layout
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget
from mmindex.upkeep.gc import Retention, gc
from mmindex.upkeep.rollback import rollback
from support.dying import dying
from support.fakestore import run_build, write_photos
from support.model import Books, Version, visible, wrong_answers
from support.upkeeping import set_clock

NAMES = [f"{n}.jpg" for n in range(8)]
names = st.sampled_from(NAMES)
numbers = st.integers(0, 11)
choices = st.integers(0, 23)  # selects one of several, by the remainder
moments = st.integers(0, 220)  # number of operations of a build; later deaths do not happen


class Store(RuleBasedStateMachine):
    """A store, a folder of images, and the record of expected versions."""

    folder: Path  # set by the test
    stepped: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=self.folder))
        self.layout = Layout(self.home / "store")
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(set_clock())
        self.begin = self.clock.at
        self.books = Books()
        self.images = dict(zip(NAMES[:4], range(4), strict=True))
        self.held: list[Hold] = []
        self.checked: object = None
        self.asked: object = None

    def teardown(self) -> None:
        for hold in self.held:
            hold.release()
        self.stack.close()
        shutil.rmtree(self.home)

    @property
    def today(self) -> float:
        return (self.clock.at - self.begin).total_seconds() / 86_400

    def files(self) -> frozenset[tuple[str, int]]:
        """Return every file of the store with its size; objects are named by their content."""
        return frozenset(
            (entry.path, entry.stat().st_size)
            for folder, _, _ in os.walk(self.layout.root)
            for entry in os.scandir(folder)
        )

    @property
    def held_numbers(self) -> set[int]:
        return {hold.manifest.version for hold in self.held}

    def run_build(self) -> None:
        photos = write_photos(self.home / "photos", self.images)
        run_build(self.layout.root, photos, limits__max_removed=1.0)

    def next_version(self) -> Version:
        books = self.books
        return Version(dict(self.images), books.forgotten, books.blank, self.today)

    def stored(self) -> int:
        """Return the number in CURRENT."""
        if not self.layout.format_file.exists():
            return 0
        pointer = versions.read_current_pointer(self.layout)
        return 0 if pointer is None else pointer.version

    def sure(self, extra: Version) -> bool | None:
        """Return whether a build has something to publish; None if only the store knows."""
        books = self.books
        if not books.current:
            return True
        now = books.versions[books.current]
        if (now.seen, now.forgotten, now.blank) == (extra.seen, extra.forgotten, extra.blank):
            return False
        return True if now.images != extra.images else None

    def take_up(self, number: int, version: Version) -> None:
        """Record that ``number`` may have been published in the meantime."""
        assert number in (self.books.current, self.books.current + 1)
        if number > self.books.current:
            self.books.publish(version)

    @initialize()
    def first_build(self) -> None:
        self.build()

    @rule(name=names, number=numbers)
    def put(self, name: str, number: int) -> None:
        self.images[name] = number

    @rule(name=names)
    def take_away(self, name: str) -> None:
        left = {other: n for other, n in self.images.items() if other != name}
        if len(set(visible(left, self.books.forgotten, self.books.blank).values())) >= 3:
            self.images = left

    def enough(self) -> bool:
        shown = visible(self.images, self.books.forgotten, self.books.blank)
        return len(set(shown.values())) >= 3

    @rule(name=names, number=numbers)
    def change_and_build(self, name: str, number: int) -> None:
        """Change the folder and build; most builds have something to do."""
        self.put(name, number)
        self.build()

    @rule()
    def build(self) -> None:
        if not self.enough():
            return
        version, before = self.next_version(), self.books.current
        self.run_build()
        self.take_up(self.stored(), version)
        expected = self.sure_before(before, version)
        if expected is not None:
            assert (self.books.current > before) == expected

    def sure_before(self, before: int, version: Version) -> bool | None:
        now, self.books.current = self.books.current, before
        found = self.sure(version)
        self.books.current = now
        return found

    @rule(moment=moments)
    def killed_build(self, moment: int) -> None:
        if not self.enough():
            return
        version = self.next_version()
        with dying(self.layout.root, moment):
            self.run_build()
        self.take_up(self.stored(), version)

    @rule()
    def hold(self) -> None:
        if len(self.held) < 3 and (hold := holds.take_current(self.layout)) is not None:
            self.held.append(hold)

    @rule(choice=choices)
    def release(self, choice: int) -> None:
        if self.held:
            self.held.pop(choice % len(self.held)).release()

    @rule(days=st.sampled_from([0.5, 2.0, 8.0, -30.0]))
    def time_passes(self, days: float) -> None:
        self.clock.move(days)

    @rule()
    def collect(self) -> None:
        if not self.books.current:
            return
        staying = self.books.staying(self.today, self.held_numbers)
        gc(self.layout.root, Retention())
        self.books.versions = {n: v for n, v in self.books.versions.items() if n in staying}
        assert set(versions.list_versions(self.layout)) == staying

    @rule(moment=st.integers(0, 60))
    def killed_collection(self, moment: int) -> None:
        if not self.books.current:
            return
        staying = self.books.staying(self.today, self.held_numbers)
        with dying(self.layout.root, moment):
            gc(self.layout.root, Retention())
        there = set(versions.list_versions(self.layout))
        assert staying <= there
        self.books.versions = {n: v for n, v in self.books.versions.items() if n in there}

    @rule(choice=choices, moment=st.none() | st.integers(0, 40))
    def roll_back(self, choice: int, moment: int | None) -> None:
        books = self.books
        older = sorted(n for n in books.versions if books.floor <= n < books.current)
        if not older:
            return
        number = older[choice % len(older)]
        old = books.versions[number]
        version = Version(old.seen, old.forgotten, old.blank, self.today)
        with dying(self.layout.root, *([] if moment is None else [moment])):
            rollback(self.layout.root, number, "rollback")
        self.take_up(self.stored(), version)

    @rule(choice=choices, moment=st.none() | st.integers(0, 300))
    def forget(self, choice: int, moment: int | None) -> None:
        books = self.books
        if not books.current:
            return
        now = books.versions[books.current]
        shown = sorted(now.images)
        name = shown[choice % len(shown)]
        # All contents that the name ever had, everywhere; their other names are still allowed.
        there = set(versions.list_versions(self.layout)) & set(books.versions)
        gone = {books.versions[n].images.get(name) for n in there} - {None}
        forgotten, blank = books.forgotten | {name}, books.blank | gone
        version = Version(now.seen, forgotten, blank, self.today)
        if len(set(version.images.values())) < 3:
            return
        with dying(self.layout.root, *([] if moment is None else [moment])) as life:
            forget(self.layout.root, [f"folder/photos/{name}"], "forget")
        if self.stored() > books.current:
            books.publish(version)
            books.forgotten, books.blank, books.floor = forgotten, blank, books.current
        if not life.ended:
            assert self.stored() == books.floor == books.current
            there = set(versions.list_versions(self.layout))
            assert {n for n in there if n < books.floor} <= self.held_numbers

    @invariant()
    def the_store_is_sound(self) -> None:
        self.stepped()
        files = self.files()
        if files == self.checked or not self.layout.format_file.exists():
            return  # everything that was already examined
        self.checked = files
        problems = check(self.layout.root, full=True).problems
        assert not problems, problems
        assert self.stored() == self.books.current

    @invariant()
    def what_must_stay_is_there_and_answers(self) -> None:
        if not self.books.current:
            return
        there = set(versions.list_versions(self.layout))
        kept = {n for n in self.books.versions if n >= self.books.floor}
        assert kept <= there
        assert self.held_numbers <= there
        asked = (self.stored(), frozenset(self.held_numbers), frozenset(there))
        if asked == self.asked:
            return
        self.asked = asked
        objects = Objects(self.layout)
        shown = {hold.manifest.version: hold.manifest for hold in self.held}
        shown[self.books.current] = versions.read_version(self.layout, self.books.current)
        for number, manifest in shown.items():
            images = self.books.versions[number].images
            wrong = wrong_answers(Snapshot(objects, manifest), images)
            assert not wrong, wrong
