"""Recognise a folder in which nothing has changed, without looking at its files one by one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mmindex.sources.rules import Rules
from mmindex.store.layout import Layout


def tree_digest(folder: str, rules: Rules, before_ns: int) -> str | None:
    """Return the sha256 of everything in a folder that a crawl depends on.

    These are the name, size, inode, modification time and change time of each file; a change of
    permissions or content changes the latter. Folders that the rules skip, and stores, are left
    out. Entries are not sorted, because file systems list unchanged folders in the same order.

    Args:
        folder: the folder.
        rules: its rules for skipping folders.
        before_ns: a change at this time or later could go unnoticed.

    Returns:
        the digest in hex; None if there are links, which depend on other places, a file may have
        changed since, or a folder cannot be read.
    """
    root = os.fsencode(folder)
    digest = hashlib.sha256(root)
    waiting = [(root, b"")]
    try:
        while waiting:
            path, below = waiting.pop()
            lines, folders = [below], []
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_symlink():
                        return None
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, below + name + b"/"))
                        continue
                    status = entry.stat(follow_symlinks=False)
                    changed = status.st_ctime_ns
                    if changed >= before_ns or status.st_mtime_ns >= before_ns:
                        return None
                    lines.append(
                        b"%b\0%d %d %d %d"
                        % (name, status.st_size, status.st_ino, status.st_mtime_ns, changed)
                    )
            digest.update(b"\0\0".join(lines))
            waiting += [one for one in folders if not _skipped(one[0], one[1], rules)]
    except OSError:
        return None
    return digest.hexdigest()


def _skipped(path: bytes, below: bytes, rules: Rules) -> bool:
    name = os.fsdecode(below.rstrip(b"/"))
    return rules.skip_folder(name) is not None or Layout(Path(os.fsdecode(path))).is_store()
