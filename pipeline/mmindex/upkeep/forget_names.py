"""Find the images that a user names, and images that look almost the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import NoInputError
from mmindex.core.modality import Modality
from mmindex.core.resources import user_path
from mmindex.insight.dedup import close_to
from mmindex.media.files import is_remote
from mmindex.media.video import split_frame
from mmindex.search.filters import select_images
from mmindex.store import versions
from mmindex.store.holds import hold_current
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.upkeep.forget import ForgetReport, all_tables

# The largest number of images whose near-copies are searched: enough for a decision.
_MOST_LOOKED_AT = 1_000
# The separators after the path of a folder, an archive, a video or a tar member in the uri of its
# content.
_INSIDE = ("/", "!", "#t=", "#bytes=")


def find_ids(root: Path, names: Sequence[str], where: str | None) -> tuple[str, ...]:
    """Return the ids of images that are named or selected by a condition, without duplicates.

    A name is an id, a uri, the path of a file, or the path of a folder, which selects every image
    in it. The path of a video selects all its frames. A name without a match is used as an id.

    Args:
        root: the store.
        names: the names, from any version in the store.
        where: a condition on the published images, see :mod:`mmindex.search.filters`.

    Raises:
        NoInputError: there is no store, or no image matches the condition.
        UsageError: the condition is invalid.
    """
    layout = versions.open_layout(root)
    with hold_current(layout) as manifest:
        if manifest is None:
            return tuple(names)
        current = Snapshot(Objects(layout), manifest)
        found = dict.fromkeys(_selected(current, where) if where is not None else ())
        paths = {_place(name): name for name in names if "\0" not in name}
        known: set[str] = set()
        for ref in all_tables(current, ("crawl/images",)) if names else ():
            for batch in current.objects.iter_batches(ref, ["image_id", "uri"]):
                for image_id, uri in _named(batch, set(names), set(paths)):
                    found[image_id] = None
                    known |= {image_id, uri, split_frame(image_id)[0]}
                    known |= {n for p, n in paths.items() if _below(uri, p)}
        return tuple({**found, **dict.fromkeys(name for name in names if name not in known)})


def _place(name: str) -> str:
    """Return how the uri of what is at this place, or below it, starts."""
    return name if is_remote(name) else str(user_path(name).absolute())


def _selected(current: Snapshot, where: str) -> list[str]:
    rows = select_images(current, where)
    ids = current.table("images", ["image_id"])["image_id"].filter(pa.array(rows))
    if not len(ids):
        raise NoInputError("no image matches `where`; nothing was forgotten")
    return list(ids.to_pylist())


def _named(batch: pa.RecordBatch, names: set[str], paths: set[str]) -> list[tuple[str, str]]:
    """Yield the id and uri of the named rows."""
    asked = pa.array(sorted(names | paths), pa.string())
    mask = pc.or_(
        pc.is_in(batch["image_id"], value_set=asked), pc.is_in(batch["uri"], value_set=asked)
    )
    for path in paths:
        for separator in _INSIDE:
            mask = pc.or_(mask, pc.starts_with(batch["uri"], f"{path.rstrip('/')}{separator}"))
    for name in names:  # the id of a video
        mask = pc.or_(mask, pc.starts_with(batch["image_id"], f"{name}#t="))
    rows = batch.filter(mask)
    return list(zip(rows["image_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))


def _below(uri: str, path: str) -> bool:
    """Return whether a uri is a path, or inside this folder, archive or video."""
    return uri == path or uri.startswith(tuple(path.rstrip("/") + one for one in _INSIDE))


def near_copies(root: Path, report: ForgetReport) -> tuple[str, ...]:
    """Return ids of other images that look like those in a report, nearest first.

    Empty if the store has no image index.
    """
    layout = versions.open_layout(root)
    with hold_current(layout) as manifest:
        if manifest is None or Modality.IMAGE not in manifest.indexes:
            return ()
        gone = [*report.forgotten, *report.same_bytes]
        return close_to(Snapshot(Objects(layout), manifest), gone, most=_MOST_LOOKED_AT)
