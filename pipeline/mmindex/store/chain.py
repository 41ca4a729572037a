"""Walk from CURRENT down to the oldest version; each manifest is verified by its child's record."""

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
    """A version in the chain.

    Attributes:
        number: the version number.
        manifest: the manifest; None if it is damaged.
        sha256: digest of the manifest's bytes on disk.
        problem: what is wrong with the manifest, including the file name; empty if it is sound.
    """

    number: int
    manifest: Manifest | None
    sha256: str
    problem: str = ""


def walk(layout: Layout, newest: Manifest | None) -> Iterator[Link]:
    """Yield every version from ``newest`` down; each is held while the caller uses it.

    A manifest records the sha256 of its parent's manifest, so that damage is also found in old
    versions. If a version's child no longer exists (a reader held the version during ``gc``), the
    version is read without verification. Versions that ``gc`` removes in the meantime are skipped.

    Args:
        layout: the store.
        newest: the published version, already verified by its reader; None: start at the highest
            number, without a digest to verify it against.

    Raises:
        MmindexError: a manifest cannot be read at all.
    """
    recorded: dict[int, tuple[int, str]] = {}  # child's number, expected sha256
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
            # A damaged manifest's record of its parent is not reliable.
            if link.manifest and link.manifest.parent and link.manifest.parent_sha256:
                recorded[link.manifest.parent] = (number, link.manifest.parent_sha256)
            yield link
        finally:
            holds.unlock(descriptor)


def last_indexed(layout: Layout, newest: Manifest | None, side: Modality) -> Manifest | None:
    """Return the version whose index of one side the next version can extend.

    This is not always the newest: if the stages run separately, ``crawl`` and ``encode`` publish
    versions without indexes.

    Args:
        layout: the store; its writer lock is held, so that nothing is collected meanwhile.
        newest: the published version.
        side: image or text.

    Returns:
        The newest version with such an index. None if there is no such version, if a manifest on
        the way is damaged, or if the version is older than the last removal of forgotten items.
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
