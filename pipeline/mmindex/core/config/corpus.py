"""Settings of the corpus: the sources, how they are read, what may be kept out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mmindex.core.config.values import MIB, Seconds, Section, Share, Text


class SourceConfig(Section):
    """What to index. Each source is a table of its own."""

    spec: Text
    """The source, as `--source` takes it: `[NAME=]KIND:PLACE[#SPLIT]`.

    Required in each `[[source]]` table."""

    all_files: bool = False
    """Try every file in a `folder:` source by its content, whatever its extension.

    Set it when pictures have no extension or the wrong one. The crawl takes longer."""

    exclude: tuple[Text, ...] = ()
    """Globs of files and folders below a `folder:` source that are left out.

    Set it to skip parts of a folder: names at any depth (`["*.png", "drafts"]`) or paths from the
    folder's root (`["2019/**"]`)."""

    include: tuple[Text, ...] = ()
    """Globs of the only files below a `folder:` source that are read; all of them by default.

    Set it to index a part of a folder, such as `["2023/**"]`."""

    def recorded(self) -> dict[str, Any]:
        """What a store remembers; globs only where there are any, as older versions wrote it."""
        globs = {"exclude": list(self.exclude), "include": list(self.include)}
        given = {name: values for name, values in globs.items() if values}
        return {"spec": self.spec, "all_files": self.all_files, **given}


class CrawlConfig(Section):
    """How sources are read."""

    rehash: bool = False
    """Read every file again, also those whose size, time and inode have not changed.

    Set it for one run when files may have changed without a new time stamp."""

    metadata: Literal["all", "no-location", "none"] = "all"
    """What to store of the metadata in photographs (EXIF, XMP, IPTC, file names and times).

    Set `no-location` to leave out where a photograph was taken, or `none`. The next build applies
    the change without encoding anything; versions from before keep what they have until `mmindex
    gc` removes them."""

    captions_from: Literal["source", "metadata"] = "source"
    """With `metadata`, the titles, descriptions and keywords in photographs are captions too.

    Set it for photographs that somebody has described. It needs `metadata` to be stored."""

    video_interval: Annotated[float, Field(ge=0.5, le=86_400)] = 10.0
    """One picture for each so many seconds of a video in a `folder:` source, 200 at most.

    Lower it to find short moments, raise it for long recordings. Needs `mmindex[video]`."""


class LimitsConfig(Section):
    """What one image may cost, and what a run may lose."""

    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Largest image, in pixels; larger ones go to the quarantine before they are decoded.

    Raise it for scans and panoramas. Decode workers may then use more memory."""

    max_bytes: Annotated[int, Field(ge=1)] = 256 * MIB
    """Largest image file.

    Raise it for uncompressed scans."""

    max_aspect: Annotated[float, Field(ge=1)] = 200.0
    """Longest side over shortest. Beyond this, nothing is left to see after resizing to a square.

    Lower it to keep out banners and rules."""

    decode_timeout_s: Seconds = 60.0
    """Time limit for decoding one image.

    Raise it on a very slow disk or network share."""

    max_quarantine: Share = 0.01
    """Share of the items that may be unusable before a run stops; ten items always may.

    Raise it for a corpus with many broken images that you want to index all the same."""

    max_removed: Share = 0.2
    """Share of the last version's images that may be gone before a run stops.

    Set it to 1 for one run after you removed images on purpose."""
