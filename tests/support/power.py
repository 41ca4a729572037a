"""The possible contents of a disk after a power loss, from a record of file operations.

The model has the weakest guarantees of POSIX: the bytes of a file are safe after an fsync of the
file, and a change of a name (creation, rename, removal) after an fsync of its directory. Before
that, each change may or may not have happened, independently and in any order. A rename is atomic.
Not modelled: hardware that loses acknowledged data, and names that change back after they were made
durable.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.lossy import Content, Event

DAMAGES = ("absent", "empty", "zeroed", "half", "one bit", "whole")
_UNKNOWN = Content(b"never read back", 0)
_STAGING = "staging"
# The folder of the store exists; LOCK contains a note for people, and its lock is in the kernel.
_UNPROMISED = ("", "LOCK")


@dataclass(slots=True, eq=False)
class Node:
    """A file or folder; ``names`` of a folder are the safe ones, ``live`` the visible ones."""

    folder: bool
    contents: list[tuple[int, Content]] = field(default_factory=list)
    safe: Content | None = None
    names: dict[str, Node] = field(default_factory=dict)
    live: dict[str, Node] = field(default_factory=dict)

    def latest(self, moment: int) -> Content:
        """Return the content of the file, including what is being written."""
        later = (content for when, content in self.contents if when >= moment)
        last = self.contents[-1][1] if self.contents else _UNKNOWN
        return next(later, last)


@dataclass(slots=True, eq=False)
class Change:
    """The names that are not safe until ``where`` is fsynced."""

    where: Node
    puts: list[tuple[Node, str, Node | None]]


@dataclass(frozen=True, slots=True)
class State:
    """One possible content of the folder: bytes and time by path, None for folders."""

    tree: dict[str, Content | None]
    story: str

    def digest(self) -> int:
        """Return a digest of the content."""
        return hash(
            frozenset(
                (path, None if content is None else content.data)
                for path, content in self.tree.items()
            )
        )

    def write(self, folder: Path) -> None:
        """Create ``folder`` with this content."""
        folder.mkdir(parents=True)
        for path in sorted(self.tree):  # parents are sorted before their content
            content = self.tree[path]
            if content is None:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(content.data)
                os.utime(folder / path, ns=(content.mtime_ns, content.mtime_ns))


class Disk:
    """The safe content while a record is replayed."""

    def __init__(self, events: Sequence[Event], before: dict[str, Content | None]) -> None:
        """Start with ``before``, which was completely safe when the record began."""
        self._events = events
        self._before = before
        self._read = self._contents()
        self._reset()

    def _reset(self) -> None:
        self.root = Node(folder=True)
        self.pending: list[Change] = []
        self._files: list[Node] = []
        for path, content in sorted(self._before.items()):
            node = self._new(folder=content is None)
            node.safe = content
            if content is not None:
                node.contents.insert(0, (-1, content))
            parent, name = self._parent(path)
            parent.names[name] = parent.live[name] = node

    def _contents(self) -> list[list[tuple[int, Content]]]:
        """Yield the content of each file by time, with files in the order of their creation."""
        self._read: list[list[tuple[int, Content]]] = []
        self._reset()
        for moment, event in enumerate(self._events):
            self._apply(event)
            for path, content in event.contents.items():
                moved = event.kind == "rename"
                place = event.target + path[len(event.path) :] if moved else path
                if (node := self._find(place)) is not None:
                    node.contents.append((moment, content))
        return [node.contents for node in self._files]

    def _new(self, *, folder: bool) -> Node:
        node = Node(folder)
        if len(self._files) < len(self._read):
            node.contents = self._read[len(self._files)]
        self._files.append(node)
        return node

    def moments(self) -> Iterator[tuple[int, Event]]:
        """Replay the record; yield after each event."""
        self._reset()
        for moment, event in enumerate(self._events):
            self._apply(event)
            yield moment, event

    def _find(self, path: str) -> Node | None:
        node: Node | None = self.root
        for part in path.split("/") if path else ():
            node = node.live.get(part) if node is not None else None
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        node = self._find(folder)
        assert node is not None, path
        return node, name

    def _apply(self, event: Event) -> None:
        if event.kind == "mark" or (event.kind != "sync_dir" and event.path in _UNPROMISED):
            return
        if event.kind == "sync":
            node = self._find(event.path)
            assert node is not None, event
            node.safe = event.contents[event.path]
        elif event.kind == "sync_dir":
            self._sync_folder(self._find(event.path))
        elif event.kind == "rename":
            (source, old), (target, new) = self._parent(event.path), self._parent(event.target)
            node = source.live.get(old) or self._new(folder=False)
            self._change(target, [(source, old, None), (target, new, node)])
        else:
            self._make_or_remove(event)

    def _make_or_remove(self, event: Event) -> None:
        parent, name = self._parent(event.path)
        there = name in parent.live
        if event.kind in ("unlink", "rmdir"):
            if there:
                self._change(parent, [(parent, name, None)])
        elif not there:
            self._change(parent, [(parent, name, self._new(folder=event.kind == "mkdir"))])

    def _change(self, where: Node, puts: list[tuple[Node, str, Node | None]]) -> None:
        self.pending.append(Change(where, puts))
        for folder, name, node in puts:
            _put(folder.live, name, node)

    def _sync_folder(self, folder: Node | None) -> None:
        waiting = []
        for change in self.pending:
            if change.where is not folder:
                waiting.append(change)
                continue
            for parent, name, node in change.puts:
                _put(parent.names, name, node)
                # Earlier changes of the same name are irrelevant.
                for older in waiting:
                    older.puts = [put for put in older.puts if put[:2] != (parent, name)]
        self.pending = [change for change in waiting if change.puts]


def _put(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def crash_states(disk: Disk, moment: int, most: int, dice: random.Random) -> Iterator[State]:
    """Return possible contents of the folder if the power fails now.

    All combinations if there are at most ``most``. Otherwise everything kept, everything lost,
    each single thing the other way from both, and some combinations at random. Names in staging
    are one thing: all leftovers there, or none.
    """
    aside = {id(node) for node in _below(disk.root.live.get(_STAGING))}
    changes = [change for change in disk.pending if id(change.where) not in aside]
    junk = [change for change in disk.pending if id(change.where) in aside]
    live = [node for node in _below(disk.root) if id(node) not in aside]
    dirty = [n for n in live if not n.folder and n.safe != n.latest(moment)]
    options: list[Sequence[str]] = [
        *(("not", "done") for _ in changes),
        *(DAMAGES for _ in dirty),
        ("none", "left") if junk else ("none",),
    ]
    for choice in _choices(options, most, dice):
        done = [c for c, wanted in zip(changes, choice, strict=False) if wanted == "done"]
        for change in junk:
            made = any(node is not None for _, _, node in change.puts)
            if made == (choice[-1] == "left"):
                done.append(change)
        order = [change for change in disk.pending if change in done]
        damage = dict(zip(map(id, dirty), choice[len(changes) : -1], strict=True))
        yield State(_tree(disk.root, order, damage, moment), " ".join(choice))


def _below(node: Node | None) -> Iterator[Node]:
    if node is not None:
        yield node
        for child in node.live.values():
            yield from _below(child)


def _choices(
    options: list[Sequence[str]], most: int, dice: random.Random
) -> Iterator[tuple[str, ...]]:
    total = 1
    for option in options:
        total = min(total * len(option), most + 1)
    if total <= most:
        yield from itertools.product(*options)
        return
    for base in ([option[-1] for option in options], [option[0] for option in options]):
        yield tuple(base)
        for place, option in enumerate(options):
            for other in option:
                yield (*base[:place], other, *base[place + 1 :])
    for _ in range(most // 4):
        yield tuple(dice.choice(option) for option in options)


def _tree(
    root: Node, done: list[Change], damage: dict[int, str], moment: int
) -> dict[str, Content | None]:
    names: dict[int, dict[str, Node]] = {}
    for change in done:
        for folder, name, node in change.puts:
            _put(names.setdefault(id(folder), dict(folder.names)), name, node)
    tree: dict[str, Content | None] = {}

    def walk(folder: Node, prefix: str) -> None:
        for name, node in names.get(id(folder), folder.names).items():
            if node.folder:
                tree[prefix + name] = None
                walk(node, f"{prefix}{name}/")
            else:
                content = damaged(node, damage.get(id(node), "half"), moment)
                if content is not None:
                    tree[prefix + name] = content

    walk(root, "")
    return tree


def damaged(node: Node, how: str, moment: int) -> Content | None:
    """Return a file of which some bytes were never synced; the synced ones are unchanged."""
    latest, safe = node.latest(moment), node.safe
    if safe == latest or how == "whole":
        return latest
    if how == "absent":
        return safe
    kept = safe.data if safe is not None and latest.data.startswith(safe.data) else b""
    new = latest.data[len(kept) :]
    if how == "one bit":
        new = bytes([new[0] ^ 1]) + new[1:] if new else new
    else:
        new = {"empty": b"", "zeroed": bytes(len(new)), "half": new[: len(new) // 2]}[how]
    return Content(kept + new, latest.mtime_ns)
