"""Find the correct labels of images, and the images in arguments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.resources import user_path
from mmindex.insight.classify import Prediction
from mmindex.insight.pairs import beside, read_truth
from mmindex.media.files import is_remote
from mmindex.media.kinds import image_extensions

FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Truth:
    """The known correct labels.

    Attributes:
        known: whether there are any.
        column: the column of the images table with the labels.
        folder: whether the folder name of an image is its label.
        listed: labels by the name of the image in the list.
        files: labels by the absolute path of the file.
    """

    known: bool = False
    column: str | None = None
    folder: bool = False
    listed: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def given(self, told: Iterable[Prediction]) -> Iterator[Prediction]:
        """Add the correct label to each image."""
        for one in told:
            if self.folder:
                yield replace(one, truth=Path(one.id).parent.name)
            elif self.listed:
                yield replace(one, truth=self._listed(one))
            else:
                yield one

    def _listed(self, one: Prediction) -> str | None:
        """Return the label by id or name, otherwise by file."""
        return self.listed.get(one.id, self.files.get(one.uri))


def known_truth(
    truth: str | None, drawn: bool, images: Sequence[str] | None, where: str | None
) -> Truth:
    """Read ``--truth`` and check that it can be combined with the other options.

    Raises:
        UsageError: a confusion matrix without truth, a condition with a list of images, or a column
            with images outside the corpus.
        DataError: the list of labels is damaged.
    """
    if images and where is not None:
        raise UsageError(
            "`where` selects indexed images and cannot be combined with a list of images",
            "use only one of them",
        )
    if truth is None:
        if drawn:
            raise UsageError("`confusion` needs the correct labels", "add `truth`")
        return Truth()
    if truth == FOLDER:
        return Truth(known=True, folder=True)
    if Path(truth).suffix.lower() in (".csv", ".tsv", ".jsonl"):
        listed = read_truth(Path(truth))
        files = {_file(Path(truth), name): label for name, label in listed.items()}
        return Truth(known=True, listed=listed, files=files)
    if images:
        raise UsageError(
            f"`truth={truth}`: a column of the images table cannot be combined with a list of "
            "images",
            "use `truth=folder`, or a .csv, .tsv or .jsonl with the columns image, label",
        )
    return Truth(known=True, column=truth)


def _file(path: Path, name: str) -> str:
    """Return the absolute path of a name in the list at ``path``, or an object's URI."""
    if is_remote(name):
        return name
    return os.path.abspath(beside(path, str(user_path(name))))  # noqa: PTH100 # links stay


def expand(images: Sequence[str]) -> list[str]:
    """Return the images in arguments; a folder selects all image files in it, sorted by name.

    Raises:
        NoInputError: a folder contains none.
    """
    found: list[str] = []
    for image in images:
        path = user_path(image)
        if "\0" in image or not path.is_dir():
            found.append(image)
            continue
        files = [
            str(file)
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in image_extensions() and file.is_file()
        ]
        if not files:
            raise NoInputError(f"{image}: no image files in this folder")
        found += files
    return found
