"""Settings of the corpus: sources, how they are read, and limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mmindex.core.config.values import MIB, Seconds, Section, Share, Text


class SourceConfig(Section):
    """What to index. Write one table for each source."""

    spec: Text
    """The source, in the same form as for `--source`: `[NAME=]KIND:PLACE[#SPLIT]`.

    Required in each `[[source]]` table."""

    all_files: bool = False
    """Try every file in a `folder:` source by its content, whatever its extension.

    Set it if images have no extension or a wrong one. The crawl takes longer."""

    exclude: tuple[Text, ...] = ()
    """Globs of files and folders in a `folder:` source to skip.

    Set it to leave out parts of a folder: names at any depth (`["*.png", "drafts"]`) or paths from
    the root of the folder (`["2019/**"]`)."""

    include: tuple[Text, ...] = ()
    """Globs of the files in a `folder:` source to read; by default, all files are read.

    Set it to index only a part of a folder, such as `["2023/**"]`."""

    def recorded(self) -> dict[str, Any]:
        """Return what a store remembers; globs only if there are any, as in older versions."""
        globs = {"exclude": list(self.exclude), "include": list(self.include)}
        given = {name: values for name, values in globs.items() if values}
        return {"spec": self.spec, "all_files": self.all_files, **given}


class CrawlConfig(Section):
    """How sources are read."""

    rehash: bool = False
    """Read every file again, including those whose size, time and inode have not changed.

    Set it for one run if files may have changed without a new modification time."""

    metadata: Literal["all", "no-location", "none"] = "all"
    """Which metadata of photographs to store (EXIF, XMP, IPTC, file names and times).

    Set `no-location` to leave out locations, or `none` to store no metadata. The next build applies
    the change without encoding anything. Older versions keep the metadata until `mmindex gc`
    removes them."""

    captions_from: Literal["source", "metadata"] = "source"
    """With `metadata`, titles, descriptions and keywords in photographs also become captions.

    Set it for photographs with titles or keywords. `crawl.metadata` must not be `none`."""

    video_interval: Annotated[float, Field(ge=0.5, le=86_400)] = 10.0
    """Seconds between the frames of a video that become images, at most 200 frames per video.

    Lower it to find short scenes; raise it for long recordings. It requires `mmindex[video]`."""


class LimitsConfig(Section):
    """Limits on the size of an image, and on unusable and missing images."""

    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Largest image, in pixels. Larger images go to quarantine before they are decoded.

    Raise it for scans and panoramas. Decode workers then use more memory."""

    max_bytes: Annotated[int, Field(ge=1)] = 256 * MIB
    """Largest image file.

    Raise it for uncompressed scans."""

    max_aspect: Annotated[float, Field(ge=1)] = 200.0
    """Largest ratio of the longer to the shorter side. Longer images are unrecognisable at the
    size that models use.

    Lower it to exclude banners and lines."""

    decode_timeout_s: Seconds = 60.0
    """Time limit for decoding one image.

    Raise it on a very slow disk or network share."""

    max_quarantine: Share = 0.01
    """Share of items that can be unusable before a run stops. Ten items are always allowed.

    Raise it to index a corpus with many damaged images."""

    max_removed: Share = 0.2
    """Share of the images in the last version that can be missing before a run stops.

    Set it to 1 for one run after you removed images intentionally."""
