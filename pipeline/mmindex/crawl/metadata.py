"""What the ``images`` table says of a photograph beside its pixels: columns and captions.

The values come from the image's own blocks and its sidecar (:mod:`mmindex.media.photo`), and from
its file. A column that the source has under the same name wins, row by row, also where it is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from mmindex.core.config import CrawlConfig
from mmindex.core.errors import UsageError
from mmindex.core.records import MetadataValue, SourceItem
from mmindex.crawl.stamps import Known
from mmindex.crawl.tables import column_name
from mmindex.crawl.tally import storable
from mmindex.media.photo import LOCATION_COLUMNS, Fields, merged
from mmindex.media.uris import split_uri

_EPOCH: Final = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class PhotoRules:
    """What is taken over from photographs.

    Attributes:
        metadata: ``all``, ``no-location`` (everything but the place) or ``none``.
        captions_from: ``metadata``: title, description and keywords are captions too.
        video_interval: seconds of a video for each image.
    """

    metadata: Literal["all", "no-location", "none"] = "all"
    captions_from: Literal["source", "metadata"] = "source"
    video_interval: float = 10.0

    @classmethod
    def of(cls, settings: CrawlConfig) -> Self:
        """Take the rules out of the settings.

        Raises:
            UsageError: captions are wanted from metadata that is not stored.
        """
        if settings.captions_from == "metadata" and settings.metadata == "none":
            raise UsageError(
                "`captions_from=metadata` needs metadata, which `metadata=none` excludes",
                "pass `metadata=all` or `metadata=no-location`",
            )
        return cls(settings.metadata, settings.captions_from, settings.video_interval)

    def kept(self, fields: Fields) -> Fields:
        """Those fields of a file that may be stored."""
        if self.metadata == "none":
            return {}
        if self.metadata == "all":
            return fields
        return {name: value for name, value in fields.items() if name not in LOCATION_COLUMNS}


def row_metadata(item: SourceItem, known: Known, rules: PhotoRules) -> dict[str, MetadataValue]:
    """The columns of an image beside the fixed ones, by name."""
    own = {column_name(name): value for name, value in item.metadata.items()}
    if rules.metadata == "none":
        return own
    taken = {name.lower() for name in own}  # SQL does not tell letter case apart
    found = {**dict(_file_columns(item)), **photo_fields(known)}
    return {**own, **{name: value for name, value in found.items() if name not in taken}}


def photo_captions(known: Known, rules: PhotoRules) -> tuple[str, ...]:
    """The captions that a photograph's title, description and keywords make."""
    if rules.captions_from == "source":
        return ()
    fields = photo_fields(known)
    words = fields.get("keywords")
    keywords = ", ".join(map(str, words)) if isinstance(words, list) else ""
    texts = (str(fields.get("title", "")), str(fields.get("description", "")), keywords)
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def photo_fields(known: Known) -> Fields:
    """What is written in an image and its sidecar; the sidecar wins."""
    return merged(known.fields, known.sidecar.fields) if known.sidecar else known.fields


def _file_columns(item: SourceItem) -> Iterator[tuple[str, MetadataValue]]:
    if not item.name:
        return
    folder, _, filename = storable(item.name).rpartition("/")
    yield "folder", folder
    yield "filename", filename
    _, member = split_uri(item.uri)
    if item.stamp is not None and member is None:  # otherwise it is the archive's
        yield "modified", _utc(item.stamp[1])


def _utc(ns: int) -> MetadataValue:
    """A file's time in UTC; None for one that no calendar has, as damaged disks may give."""
    try:
        return _EPOCH + timedelta(microseconds=ns // 1000)
    except OverflowError:
        return None
