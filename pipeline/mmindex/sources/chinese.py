"""Common parts of Flickr8k-CN and COCO-CN: numbered caption lines, and lists of the splits.

A line is ``NAME#LANG#N caption`` (Flickr8k-CN: ``667626_18933d713e.jpg#zhc#0 一个女人``) or
``NAME#N<TAB>caption`` (COCO-CN), the name with or without an extension, a space or a tab before
the caption. Sources: X. Li et al., Adding Chinese Captions to Images, ICMR 2016
(https://github.com/li-xirong/flickr8kcn), and COCO-CN for Cross-Lingual Image Tagging, Captioning
and Retrieval, IEEE T-MM 2019 (https://github.com/li-xirong/coco-cn).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError, NoInputError
from mmindex.sources.annotations import find_file, numbered_lines, read_text, stem
from mmindex.sources.base import require_split

_LINE: Final = re.compile(
    r"(?P<name>[^#\t]+)(?:#(?P<language>[A-Za-z]+))?#\d+[ \t]+(?P<caption>\S.*)"
)


@dataclass(frozen=True, slots=True)
class CaptionLayout:
    """The files of a corpus.

    Attributes:
        captions: caption files; the first existing one is read. Human captions come first.
        splits: the file with the images of a split, by split.
        hint: the expected content of the folder.
    """

    captions: tuple[str, ...]
    splits: Mapping[str, str]
    hint: str

    def read(self, path: Path, split: str | None) -> Iterator[tuple[str, str, list[str]]]:
        """Yield stem, split and captions of each image, in the order of the caption file.

        Args:
            path: the corpus; the caption file and lists can be in a subfolder.
            split: the split to read; None for all.

        Raises:
            NoInputError: there are no captions, or no such split.
            DataError: a caption file or list is damaged; the message names the line.
        """
        captions = find_file(path, self.captions)
        if captions is None:
            raise NoInputError(f"{path}: no captions found", self.hint)
        splits: dict[str, str] = {}
        for name, file in self.splits.items():
            found = find_file(path, (file,))
            if found is None and name == split:
                raise NoInputError(f"{path}: {file} not found", self.hint)
            lines = read_text(found) if found is not None else ""
            splits |= {stem(line.strip()): name for _, line in numbered_lines(lines)}
        require_split(split, self.splits, path, self.hint)
        for name, texts in read_numbered(captions).items():
            own = splits.get(stem(name), "all")
            if split in (None, own):
                yield stem(name), own, texts


def read_numbered(path: Path) -> dict[str, list[str]]:
    """Read ``NAME#LANG#N caption`` or ``NAME#N caption`` lines; return captions by name, in order.

    Raises:
        DataError: a line has another form, or the file is not UTF-8.
        MmindexError: the file cannot be read.
    """
    listed: dict[str, list[str]] = {}
    for number, line in numbered_lines(read_text(path)):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise DataError(f"{path}:{number}: expected NAME#LANGUAGE#NUMBER and a caption")
        listed.setdefault(match["name"].removeprefix("./"), []).append(match["caption"])
    return listed
