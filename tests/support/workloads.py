"""The workloads of the torture tests: a prepared store, a command, and the states around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.fakestore import truncated_jpeg, write_photos
from support.oracle import copy_store
from support.zygote import Ended, Zygote

_SHARD_ROWS: Final = 4
_IMAGES: Final = {f"{number:03}.jpg": number for number in range(9)} | {"copy.jpg": 0}
_BROKEN: Final = {"text.jpg": b"not a picture", "torn.jpg": truncated_jpeg(90)}


@dataclass(frozen=True, slots=True)
class Bench:
    """The environment of one worker: its zygote and its folder in memory."""

    zygote: Zygote
    folder: Path

    def command(self, *argv: str, **model: int) -> Ended:
        """Run a command that must succeed; ``model`` is for :func:`support.jobs.command`."""
        ended = self.zygote.run("command", argv=argv, **model)
        assert ended.code == 0, f"{argv}: {ended}"
        return ended

    def look(self, root: Path) -> Any:
        """Return the state of a store; see :func:`support.jobs.look`."""
        ended = self.zygote.run("look", root=str(root))
        assert ended.code == 0, ended
        return ended.result


@dataclass(slots=True)
class Stage:
    """The data for the preparation of a workload."""

    bench: Bench
    name: str
    dim: int
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.bench.folder / self.name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @property
    def store(self) -> Path:
        """The path of the store, during its preparation and in every run."""
        return self.folder / "store"

    def photos(self, change: int = 0) -> None:
        """Write the corpus; a change adds two images, removes one, replaces one and a caption."""
        images, captions = dict(_IMAGES), {}
        for number in range(1, change + 1):
            images |= {f"new{number}.jpg": 20 + number, f"more{number}.jpg": 30 + number}
            images["005.jpg"] = 50 + number
            images.pop(f"{number:03}.jpg")
            captions["000.jpg"] = [f"another caption {number}", "a square 0"]
        texts = {name: [f"drawing {n}", f"a square {n}"] for name, n in images.items()}
        write_photos(self.folder / "photos", images, texts | captions, _BROKEN)

    def build_argv(self, *more: str) -> list[str]:
        config = self.folder / "config.toml"
        config.write_text(
            f'[[source]]\nspec = "folder:{self.folder}/photos"\n'
            f"[encode]\nworkers = 0\nbatch_size = 4\nshard_rows = {_SHARD_ROWS}\n"
            "[index]\nthreads = 1\ngpu = 'never'\n[limits]\nmax_removed = 1.0\n"
        )
        return ["build", "--store", str(self.store), "--config", str(config), *more]

    def argv(self, *words: str) -> list[str]:
        return [*words, "--store", str(self.store)]

    def built(self, changes: int = 0, *more: str) -> list[str]:
        """Build versions 1 to ``changes + 1``; return the command line of the build."""
        argv = self.build_argv(*more)
        for change in range(changes + 1):
            self.photos(change)
            self.bench.command(*argv, dim=self.dim)
        return argv


Prepare = Callable[[Stage], Sequence[str]]


def first_build(stage: Stage) -> Sequence[str]:
    stage.photos()
    return stage.build_argv()


def first_build_quantised(stage: Stage) -> Sequence[str]:
    stage.photos()
    return stage.build_argv("--index", "sq8")


def build_with_changes(stage: Stage) -> Sequence[str]:
    argv = stage.built()
    stage.photos(1)
    return argv


def build_quantised_with_changes(stage: Stage) -> Sequence[str]:
    argv = stage.built(0, "--index", "sq8")
    stage.photos(1)
    return argv


def unchanged_build(stage: Stage) -> Sequence[str]:
    return stage.built()


def model_change(stage: Stage) -> Sequence[str]:
    return stage.built()


def build_with_an_adapted_model(stage: Stage) -> Sequence[str]:
    """It maps the vectors of the last build, and encodes two new images."""
    argv = stage.built()
    stage.photos(1)
    return argv


def build_after_a_kill(stage: Stage) -> Sequence[str]:
    """A killed run has left staged files, a folder, a shard, and a manifest above CURRENT."""
    argv = stage.built()
    stage.photos(1)
    kept = stage.folder / "kept"
    copy_store(stage.store, kept)
    stage.bench.command(*argv, dim=stage.dim)
    shutil.copy(kept / "CURRENT", stage.store / "CURRENT")
    (stage.store / "staging" / "0123.tmp").write_bytes(b"half")
    (stage.store / "staging" / "folder").mkdir()
    (stage.store / "staging" / "folder" / "file").write_bytes(b"half")
    return argv


def gc(stage: Stage) -> Sequence[str]:
    stage.built(4)
    return stage.argv("gc", "--keep", "1", "--keep-days", "0")


def rollback(stage: Stage) -> Sequence[str]:
    stage.built(2)
    return stage.argv("rollback", "1")


def forget(stage: Stage) -> Sequence[str]:
    """Forget an image that has a copy with another name."""
    stage.built(1)
    return stage.argv("forget", "folder/photos/000.jpg")


def build_after_forgetting(stage: Stage) -> Sequence[str]:
    argv = stage.built()
    stage.bench.command(*stage.argv("forget", "folder/photos/000.jpg"))
    stage.photos(1)
    return argv


def repair(stage: Stage) -> Sequence[str]:
    stage.built(1)
    stage.bench.zygote.run("damage_current", root=str(stage.store))
    return stage.argv("check", "--repair")


WORKLOADS: Final[dict[str, Prepare]] = {
    function.__name__.replace("_", " "): function
    for function in (
        first_build,
        first_build_quantised,
        build_with_changes,
        build_quantised_with_changes,
        unchanged_build,
        model_change,
        build_with_an_adapted_model,
        build_after_a_kill,
        gc,
        rollback,
        forget,
        build_after_forgetting,
        repair,
    )
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A command on a prepared store, which can be run many times."""

    name: str
    bench: Bench
    argv: Sequence[str]
    store: Path
    template: Path | None
    model: Mapping[str, int]
    before: Any
    after: Any

    def reset(self) -> None:
        """Restore the prepared store."""
        copy_store(self.template, self.store)

    def start(self, job: str = "command", **limits: Any) -> int:
        """Start the command in a child that waits for ``bench.zygote.release()``."""
        return self.bench.zygote.start(job, argv=self.argv, **self.model, **limits)

    def run(self, **limits: Any) -> Ended:
        """Run the command to its end."""
        self.start(**limits)
        self.bench.zygote.release()
        return self.bench.zygote.wait()

    def violations(self, exit_code: int | None) -> list[str]:
        """Return the oracle's result for the current store."""
        ended = self.bench.zygote.run(
            "judge",
            root=str(self.store),
            before=self.before,
            after=self.after,
            exit_code=exit_code,
            rerun=self.argv,
            **self.model,
        )
        if not isinstance(ended.result, list):
            return [f"the oracle ended with {ended}"]
        return [*map(str, ended.result)]


def make_workload(bench: Bench, name: str) -> Workload:
    """Prepare a workload and determine its result."""
    # The quantised indexes must be larger than a page.
    dim = 512 if "quantised" in name else 16
    stage = Stage(bench, name.replace(" ", "-"), dim)
    argv = WORKLOADS[name](stage)
    model = {"seed": 1 if name == "model change" else 0, "dim": dim}
    if name == "build with an adapted model":
        model["adapted"] = 1
    template = None
    if stage.store.exists():
        template = stage.folder / "template"
        stage.store.rename(template)
        copy_store(template, stage.store)
    before = bench.look(stage.store)
    bench.command(*argv, **model)
    after = bench.look(stage.store)
    made = Workload(name, bench, argv, stage.store, template, model, before, after)
    made.reset()
    return made
