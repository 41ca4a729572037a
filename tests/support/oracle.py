"""The oracle: the conditions that a store must meet after any crash, fault or kill.

``check --full`` passes; CURRENT names the previous or the new version, never a mixture; the golden
queries return exactly their stored answers; a re-run exits with 0, results in the new version with
the same content, and leaves nothing in staging; no quarantine entry is lost; exit code 0 means the
new version.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmindex.core.errors import MmindexError
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.quarantine import read_ledger
from mmindex.upkeep.check import check


class State(msgspec.Struct, frozen=True):
    """The visible state of a store.

    Attributes:
        content: the content of the published version; empty if nothing is published.
        damaged: the bytes of CURRENT if they name no version (the state before a repair).
        ledger: the quarantine ledger's lines, sorted.
        kept: numbers of the versions that are kept.
    """

    content: str = ""
    damaged: bytes = b""
    ledger: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """The two states that a run can leave; ``exact`` also compares the kept versions."""

    before: State
    after: State
    exact: bool = True


def observe(root: Path) -> State:
    """Return the state of a store, or of a folder without one.

    Raises:
        MmindexError: a manifest or the ledger cannot be read.
    """
    layout = Layout(root)
    if not layout.format_file.exists():
        return State()
    ledger = tuple(sorted(msgspec.json.encode(entry).decode() for entry in read_ledger(layout)))
    kept = tuple(versions.list_versions(layout))
    try:
        pointer = versions.read_current_pointer(layout)
    except MmindexError:
        data = layout.current_file.read_bytes() if layout.current_file.exists() else b"missing"
        return State(damaged=data, ledger=ledger, kept=kept)
    manifest = versions.read_current(layout) if pointer else None
    content = manifest.content().decode() if manifest else ""
    return State(content=content, ledger=ledger, kept=kept)


def violations(
    root: Path, expected: Expected, exit_code: int | None, rerun: Callable[[], int]
) -> list[str]:
    """Return the violated conditions of the store at ``root``, one line each.

    Args:
        root: the store; it is run again, so it is changed.
        expected: the states it may be in.
        exit_code: of the run that came before; None where a signal ended it.
        rerun: does the run again, whole and undisturbed, and returns its exit code.
    """
    found = at_rest(root, expected, exit_code)
    code = rerun()
    if code:
        return [*found, f"the re-run ends with exit code {code}"]
    found += [f"after the re-run: {line}" for line in _sound(root)]
    try:
        state = observe(root)
    except MmindexError as error:
        return [*found, f"after the re-run: {error}"]
    if state.content != expected.after.content:
        found.append(f"after the re-run: {_differs(state.content, expected.after.content)}")
    if state.ledger != expected.after.ledger:
        found.append(f"after the re-run: quarantine entries {state.ledger}")
    if expected.exact and state.kept != expected.after.kept:
        found.append(f"after the re-run: versions {state.kept}, not {expected.after.kept}")
    left = [path.name for path in Layout(root).staging_dir.iterdir()]
    if left:
        found.append(f"after the re-run: left in staging: {left}")
    return found


def at_rest(root: Path, expected: Expected, exit_code: int | None) -> list[str]:
    """Return the conditions that are violated before anything is run again."""
    before, after = expected.before, expected.after
    try:
        state = observe(root)
    except MmindexError as error:
        return [f"cannot be read: {error}"]
    if state.content != after.content:
        if exit_code == 0:
            return ["exit 0, but the version after is not published"]
        if (state.content, state.damaged) != (before.content, before.damaged):
            return [f"neither before nor after: {_differs(state.content, before.content)}"]
    lost = set(before.ledger) & set(after.ledger) - set(state.ledger)
    found = [f"lost from quarantine: {entry}" for entry in sorted(lost)]
    return found if state.damaged else found + _sound(root)


def _sound(root: Path) -> list[str]:
    """Return what ``check --full`` reports for a store; nothing for a folder without one."""
    if not Layout(root).format_file.exists():
        return []
    try:
        return list(check(root, full=True).problems)  # also runs the golden queries
    except MmindexError as error:
        return [f"check: {error}"]


def _differs(found: str, wanted: str) -> str:
    """Return the first difference between two contents, for people."""
    place = next(
        (at for at, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other),
        min(len(found), len(wanted)),
    )
    begin = max(0, place - 80)
    return f"content differs: {found[begin : place + 80]!r}, not {wanted[begin : place + 80]!r}"


def copy_store(template: Path | None, target: Path) -> None:
    """Copy a prepared store (or nothing) to ``target`` without sharing files."""
    if target.exists():
        shutil.rmtree(target)
    if template is not None:
        shutil.copytree(template, target, symlinks=True)
