"""Metadata of photographs: columns of the ``images`` table, and captions.

The values come from the image, its sidecar (:mod:`mmindex.media.photo`) and its file. A column of
the source with the same name has priority in every row, even if it is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from mmindex.core.config import CrawlConfig
from mmindex.core.errors import UsageError
from mmindex.core.records import LOCATION_COLUMNS, MetadataValue, SourceItem
from mmindex.crawl.stamps import Known
from mmindex.crawl.tables import column_name
from mmindex.crawl.tally import storable
from mmindex.media.files import is_remote
from mmindex.media.photo import Fields, merged
from mmindex.media.uris import split_uri

_EPOCH: Final = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class PhotoRules:
    """Settings for the metadata of photographs.

    Attributes:
        metadata: ``all``, ``no-location`` (everything except the location) or ``none``.
        captions_from: with ``metadata``, title, description and keywords also become captions.
        video_interval: seconds between the frames of a video that become images.
    """

    metadata: Literal["all", "no-location", "none"] = "all"
    captions_from: Literal["source", "metadata"] = "source"
    video_interval: float = 10.0

    @classmethod
    def of(cls, settings: CrawlConfig) -> Self:
        """Create the rules from the settings.

        Raises:
            UsageError: captions come from metadata, but no metadata is stored.
        """
        if settings.captions_from == "metadata" and settings.metadata == "none":
            raise UsageError(
                "`captions_from=metadata` needs metadata, which `metadata=none` excludes",
                "pass `metadata=all` or `metadata=no-location`",
            )
        return cls(settings.metadata, settings.captions_from, settings.video_interval)

    def kept(self, fields: Fields) -> Fields:
        """Return the fields of a file that can be stored."""
        if self.metadata == "none":
            return {}
        if self.metadata == "all":
            return fields
        return {name: value for name, value in fields.items() if name not in LOCATION_COLUMNS}


def row_metadata(item: SourceItem, known: Known, rules: PhotoRules) -> dict[str, MetadataValue]:
    """Return the additional columns of an image by name."""
    own = {column_name(name): value for name, value in item.metadata.items()}
    if rules.metadata == "none":
        return own
    taken = {name.lower() for name in own}  # SQL ignores letter case
    found = {**dict(_file_columns(item)), **photo_fields(known)}
    return {**own, **{name: value for name, value in found.items() if name not in taken}}


def photo_captions(known: Known, rules: PhotoRules) -> tuple[str, ...]:
    """Return captions from the title, description and keywords of a photograph."""
    if rules.captions_from == "source":
        return ()
    fields = photo_fields(known)
    words = fields.get("keywords")
    keywords = ", ".join(map(str, words)) if isinstance(words, list) else ""
    texts = (str(fields.get("title", "")), str(fields.get("description", "")), keywords)
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def photo_fields(known: Known) -> Fields:
    """Return the metadata in an image and its sidecar; the sidecar has priority."""
    return merged(known.fields, known.sidecar.fields) if known.sidecar else known.fields


def _file_columns(item: SourceItem) -> Iterator[tuple[str, MetadataValue]]:
    if not item.name:
        return
    folder, _, filename = storable(item.name).rpartition("/")
    yield "folder", folder
    yield "filename", filename
    _, member = split_uri(item.uri)
    # That of a member is the archive's, and that of an object tells when it was uploaded.
    if item.stamp is not None and member is None and not is_remote(item.uri):
        yield "modified", _utc(item.stamp[1])


def _utc(ns: int) -> MetadataValue:
    """Return the time of a file in UTC; None for impossible times, for example on damaged disks."""
    try:
        return _EPOCH + timedelta(microseconds=ns // 1000)
    except OverflowError:
        return None
