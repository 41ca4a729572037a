"""Find the images in an annotation list; used by all kinds with such a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmindex.core.records import (
    ItemError,
    MetadataValue,
    Note,
    NoteKind,
    Rejected,
    Sidecar,
    SourceEvent,
    SourceItem,
)
from mmindex.media.places import ImagePlace


@dataclass(frozen=True, slots=True)
class Listed:
    """An image in a list.

    Attributes:
        image_id: the id relative to the source.
        name: the file name relative to the folder of the images.
        captions: the captions; None if there is no caption list.
        split: the split.
        metadata: the other columns of the list.
        sidecar: the name of its XMP file, or empty.
        is_video: whether it is a video, whose frames are the images.
    """

    image_id: str
    name: str
    captions: Sequence[str] | None
    split: str = "all"
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sidecar: str = ""
    is_video: bool = False


def image_events(place: ImagePlace, listed: Listed) -> Iterator[SourceEvent]:
    """Find a listed image, or reject it and count the captions that are lost."""
    captions = tuple(listed.captions or ())
    try:
        found = place.find(listed.name)
    except ItemError as error:
        yield from rejected_events(place, listed, error)
        return
    if listed.captions is not None and not captions:
        yield Note(NoteKind.IMAGES_WITHOUT_CAPTIONS)
    sidecar = None
    if listed.sidecar:
        try:
            beside = place.find(listed.sidecar)
            sidecar = Sidecar(beside.read, beside.stamp, beside.uri)
        except ItemError:
            yield Note(NoteKind.UNREADABLE_SIDECARS)
    yield SourceItem(
        image_id=listed.image_id,
        uri=found.uri,
        split=listed.split,
        captions=captions,
        read=found.read,
        metadata=listed.metadata,
        stamp=found.stamp,
        name=listed.name,
        sidecar=sidecar,
        video=found.path if listed.is_video else "",
    )


def rejected_events(place: ImagePlace, listed: Listed, error: ItemError) -> Iterator[SourceEvent]:
    """Reject a listed image for a reason."""
    yield Rejected(listed.image_id, place.uri(listed.name), error.reason, error.detail)
    if listed.captions:
        yield Note(NoteKind.CAPTIONS_OF_REJECTED_IMAGES, len(listed.captions))
