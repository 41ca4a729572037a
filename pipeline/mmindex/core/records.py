"""Records that stages exchange: frozen, slotted, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

Scalar = str | int | float | bool | None
MetadataValue = Scalar | datetime | list[Scalar]
# Identifies the content of a file: size, mtime in ns and inode. For an object in an object store:
# size, 0 and a digest of the ETag.
Stamp = tuple[int, int, int]

# The columns with the location of an image.
LOCATION_COLUMNS: Final = ("lat", "lon")


class Reason(StrEnum):
    """The reasons why an item goes to quarantine; a closed list."""

    EMPTY = "empty"  # zero bytes
    MISSING = "missing"  # listed in an annotation file, but does not exist
    UNREADABLE = "unreadable"  # the operating system reports an error for this file
    NOT_AN_IMAGE = "not_an_image"  # a file of another type with the name of an image
    UNSUPPORTED = "unsupported"  # an image format or mode without a decoder
    TRUNCATED = "truncated"  # the image ends early
    CORRUPT = "corrupt"  # the decoder rejects the bytes
    TOO_LARGE = "too_large"  # above the limit on pixels or bytes, according to the header
    TOO_THIN = "too_thin"  # aspect ratio above the limit: resizing would leave nothing recognisable
    CHANGED = "changed"  # the file's bytes changed while the run was reading it
    UNSAFE_PATH = "unsafe_path"  # an absolute path, a path with .., or a link out of the source
    BAD_ARCHIVE_MEMBER = "bad_archive_member"  # wrong CRC, or an encrypted or overlapping member
    DUPLICATE_ID = "duplicate_id"  # another image has the same id
    DECODER_DIED = "decoder_died"  # the decoder crashed or ran out of memory or time
    BAD_VECTOR = "bad_vector"  # the model returned NaN, infinity or a zero vector
    BAD_CAPTION = "bad_caption"  # the same for a caption; its image is kept
    OPTED_OUT = "opted_out"  # the publisher has opted out
    FETCH_FAILED = "fetch_failed"  # the URL returned no usable response


@dataclass(frozen=True, slots=True)
class Sidecar:
    """An XMP file next to an image.

    Attributes:
        read: returns its bytes; raises OSError or ItemError.
        stamp: identifies the file as for an image.
        uri: where it is, if it is in an object store.
    """

    read: Callable[[], bytes]
    stamp: Stamp
    uri: str = ""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """An image in a source, not yet read.

    Attributes:
        image_id: stable id, unique in the corpus, e.g. ``coco/val2017/000000000139``.
        uri: the location of the bytes: a path, or ``path.zip!member`` inside an archive.
        split: the split, ``all`` if the source has none.
        captions: the unchanged texts of the source, in order.
        metadata: the columns of the source (licence, title, ...).
        read: returns the bytes of the file; raises OSError, or ItemError with a reason.
        stamp: identifies the file, to skip unchanged files; None if the source has none.
        is_row: whether it is a row of a table, in which rows with the same bytes are one image with
            all their captions. Files with the same bytes stay separate images.
        name: the path of the file relative to the source, with ``/``; empty if it is not a file of
            the user.
        sidecar: the sidecar, or None.
        video: the path of a video whose frames are indexed; ``read`` is then not used.
    """

    image_id: str
    uri: str
    split: str
    captions: tuple[str, ...]
    read: Callable[[], bytes]
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    stamp: Stamp | None = None
    is_row: bool = False
    name: str = ""
    sidecar: Sidecar | None = None
    video: str = ""


@dataclass(frozen=True, slots=True)
class VectorItem:
    """An image of which only a vector is at hand; its file is never opened.

    Attributes:
        image_id: as in :class:`SourceItem`.
        uri: where the source says that the image is.
        split: the split, ``all`` if the source has none.
        key: the sha256 of the vector, in hex.
        width, height, format, size_bytes: as the source says; 0 or empty if it does not.
        metadata: the columns of the source.
    """

    image_id: str
    uri: str
    split: str
    key: str
    width: int = 0
    height: int = 0
    format: str = ""
    size_bytes: int = 0
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptionItem:
    """A caption with a vector, of an image that came before.

    ``key`` is the sha256 of the vector, in hex.
    """

    image_id: str
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source row that cannot be indexed, with the reason."""

    image_id: str
    uri: str
    reason: Reason
    detail: str


class Skip(StrEnum):
    """Rules by which a source ignores files and rows; a closed list. Versions keep the counts."""

    FORGOTTEN = "forgotten"
    NOT_AN_IMAGE = "not an image by its extension"
    HIDDEN = "hidden"
    CACHE = "thumbnails or previews that another program keeps"
    EXCLUDED = "excluded"
    OTHER_NAME = "another name of a picture in the corpus"
    SAME_IMAGE = "another row of the same picture"
    STORE = "an mmindex store"  # its files would change the corpus in every build
    LINKED_FOLDER = "a link to a folder of the source"
    OTHER_SPLIT = "in another split"
    NO_FOLDER = "its folder is not there"
    NO_IMAGE = "sample_without_image"
    REPEATED_ADDRESS = "repeated_address"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A number of files or rows that a source ignored by rule.

    ``suffix`` is the file extension if it is the reason.
    """

    why: Skip
    count: int = 1
    suffix: str = ""


class NoteKind(StrEnum):
    """The anomalies that lose no image; a closed list. Versions keep the counts by these names."""

    CAPTIONS_OF_UNKNOWN_IMAGES = "captions_of_unknown_images"
    CAPTIONS_OF_REJECTED_IMAGES = "captions_of_rejected_images"
    IMAGES_WITHOUT_CAPTIONS = "images_without_captions"
    EMPTY_CAPTIONS = "empty_captions"
    CAPTIONS_WITHOUT_VECTOR = "captions_without_vector"
    VECTORS_SCALED = "vectors_scaled_to_length_1"
    UNREADABLE_CAPTION_FILES = "unreadable_caption_files"
    UNREADABLE_SIDECARS = "unreadable_sidecars"
    LONE_SURROGATES_REPLACED = "lone_surrogates_replaced"
    LOST_SEPARATORS_MENDED = "lost_separators_mended"
    DUPLICATE_IMAGES = "duplicate_images"
    DUPLICATE_IMAGE_NUMBERS = "duplicate_image_numbers"
    IMAGES_BESIDE_THE_FIRST = "images_beside_the_first"
    IMAGES_WITHOUT_FOLDER = "images_without_folder"
    SPLITS_WITHOUT_IMAGES = "splits_without_images"
    # Numbers of URLs of a list, by status (mmindex.fetch.outcome.FetchStatus).
    ADDRESSES_STORED = "addresses_stored"
    ADDRESSES_FORGOTTEN = "addresses_forgotten"
    ADDRESSES_TIMEOUT = "addresses_timeout"
    ADDRESSES_CONNECTION = "addresses_connection"
    ADDRESSES_DNS = "addresses_dns"
    ADDRESSES_SERVER_ERROR = "addresses_server_error"
    ADDRESSES_THROTTLED = "addresses_throttled"
    ADDRESSES_ROBOTS_UNREACHABLE = "addresses_robots_unreachable"
    ADDRESSES_HOST_GIVEN_UP = "addresses_host_given_up"
    ADDRESSES_OPTED_OUT = "addresses_opted_out"
    ADDRESSES_CRAWL_DELAY = "addresses_crawl_delay"
    ADDRESSES_GONE = "addresses_gone"
    ADDRESSES_CLIENT_ERROR = "addresses_client_error"
    ADDRESSES_BAD_URL = "addresses_bad_url"
    ADDRESSES_BAD_REDIRECT = "addresses_bad_redirect"
    ADDRESSES_REFUSED_ADDRESS = "addresses_refused_address"
    ADDRESSES_NOT_AN_IMAGE = "addresses_not_an_image"
    ADDRESSES_EMPTY = "addresses_empty"
    ADDRESSES_TOO_LARGE = "addresses_too_large"


@dataclass(frozen=True, slots=True)
class Note:
    """A number of anomalies of a source that lose no image."""

    kind: NoteKind
    count: int = 1


@dataclass(frozen=True, slots=True)
class Detail:
    """Figures of a source for the report of the run, for example about downloads."""

    name: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Expected:
    """How many more images a source has listed; for progress bars."""

    images: int


SourceEvent = SourceItem | VectorItem | CaptionItem | Rejected | Ignored | Note | Detail | Expected


class ItemError(Exception):
    """A single item fails, with a quarantine reason; this never ends the run."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A row of the ``images`` table; ``key`` is the sha256 of the bytes of the file, in hex."""

    image_id: str
    key: str
    source: str
    uri: str
    split: str
    width: int
    height: int
    format: str
    size_bytes: int
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """A row of the ``captions`` table; ``key`` is the sha256 of the UTF-8 text, in hex."""

    caption_id: str
    key: str
    image_id: str
    text: str


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An entry in the quarantine ledger: an image or a caption.

    A caption's entry has the caption's id, and the uri and source of its image.
    """

    id: str
    uri: str
    source: str
    stage: str
    reason: Reason
    detail: str
    key: str = ""

    @property
    def is_caption(self) -> bool:
        """Whether the entry is a caption, not an image."""
        return self.reason is Reason.BAD_CAPTION


class NamedHit(Protocol):
    """The fields of a hit in tables and pages, see :class:`Hit`."""

    @property
    def rank(self) -> int: ...  # noqa: D102 # as in :class:`Hit`
    @property
    def score(self) -> float: ...  # noqa: D102
    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def uri(self) -> str: ...  # noqa: D102
    @property
    def caption(self) -> str | None: ...  # noqa: D102
    @property
    def image_id(self) -> str: ...  # noqa: D102
    @property
    def copies(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Hit:
    """A hit of a query.

    Attributes:
        score: cosine similarity with the query.
        copies: number of near-duplicates that were left out; None without ``distinct``.
    """

    rank: int
    score: float
    id: str
    uri: str
    caption: str | None
    image_id: str
    copies: int | None = None
