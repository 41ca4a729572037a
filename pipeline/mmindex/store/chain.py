"""From CURRENT down to the oldest version, each manifest verified by the one that came after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from mmindex.core.errors import DataError, os_errors
from mmindex.core.modality import Modality
from mmindex.store import holds, versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Link:
    """One version.

    Attributes:
        number: its number.
        manifest: None where it is damaged.
        sha256: of the manifest's bytes on disk.
        problem: what is wrong with the manifest, naming the file; empty where it is sound.
    """

    number: int
    manifest: Manifest | None
    sha256: str
    problem: str = ""


def walk(layout: Layout, newest: Manifest | None) -> Iterator[Link]:
    """Every version from ``newest`` down, each held while the caller looks at it.

    A manifest records the sha256 of its parent's, so that damage is found in old ones too. A
    version whose child is gone (a reader kept it through a collection) is only read. Versions
    that are collected meanwhile are passed over.

    Args:
        layout: the store.
        newest: the published version, which its reader has verified; None: begin at the highest
            number, without any digest to hold it against.

    Raises:
        MmindexError: a manifest cannot be read at all.
    """
    recorded: dict[int, tuple[int, str]] = {}  # by whom, and what
    for number in reversed(versions.list_versions(layout)):
        if newest is not None and number > newest.version:
            continue
        path = layout.version(number)
        descriptor = holds.lock_shared(path)
        if descriptor is None:
            continue
        try:
            with os_errors(path):
                data = path.read_bytes()
            link = _link(layout, number, data, recorded.get(number))
            # What a damaged manifest says of its parent must not condemn the parent.
            if link.manifest and link.manifest.parent and link.manifest.parent_sha256:
                recorded[link.manifest.parent] = (number, link.manifest.parent_sha256)
            yield link
        finally:
            holds.unlock(descriptor)


def last_indexed(layout: Layout, newest: Manifest | None, side: Modality) -> Manifest | None:
    """The version whose index of one side the next one can go on from.

    That is not always the newest: where the stages run one by one, ``crawl`` and ``encode`` publish
    versions without indexes.

    Args:
        layout: the store; its writer lock is held, so that nothing is collected meanwhile.
        newest: the published version.
        side: image or text.

    Returns:
        The newest version that was indexed, or None: it has no such index, a manifest on the way
        is damaged, or it is of before something was forgotten.
    """
    if newest is None or side in newest.indexes:
        return newest
    for link in walk(layout, newest):
        if link.manifest is None or link.number < newest.floor:
            return None
        if "index" in link.manifest.stages:
            return link.manifest if side in link.manifest.indexes else None
    return None


def _link(layout: Layout, number: int, data: bytes, recorded: tuple[int, str] | None) -> Link:
    sha256 = hashlib.sha256(data).hexdigest()
    path = layout.version(number)
    if recorded is not None and recorded[1] != sha256:
        why = f"damaged: its sha256 differs from the one that version {recorded[0]} recorded"
        return Link(number, None, sha256, f"{path}: {why}")
    try:
        manifest = versions.checked(layout, number, data, None)
    except DataError as error:
        return Link(number, None, sha256, error.message)
    if not manifest.counts.balanced:
        return Link(number, None, sha256, f"{path}: counts do not balance")
    return Link(number, manifest, sha256)
