"""The prompts for each image, in the same order in every run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from mmindex.core.errors import DataError
from mmindex.decoder.vqa import Question
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

_BATCH: Final = 8_192
_NUMBER: Final = re.compile(r"(?<![0-9])[0-9]{1,18}\Z")


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts for one image.

    Attributes:
        id, uri: those of the image.
        prompts: questions or instructions.
        names: the ids of the questions; empty if they have no ids.
    """

    id: str
    uri: str
    prompts: tuple[str, ...]
    names: tuple[str, ...] = ()


def one_prompt(snapshot: Snapshot, prompt: str, rows: Rows | None = None) -> Iterator[Task]:
    """Yield a task with the same prompt for every image, in table order.

    Args:
        rows: bool (images,), the images; None for all.
    """
    first = 0
    for batch in snapshot.batches("images", ["image_id", "uri"], _BATCH):
        names = zip(contents(batch["image_id"]), contents(batch["uri"]), strict=True)
        for row, (name, uri) in enumerate(names, start=first):
            if rows is None or rows[row]:
                yield Task(name, uri, (prompt,))
        first += batch.num_rows


def about_images(snapshot: Snapshot, questions: Sequence[Question]) -> list[Task]:
    """Return the questions about each image, in table order.

    An ``image_id`` that is a text is an id or a uri. A number is the number at the end of an id,
    such as 139 for ``coco/val2017/000000000139``. Questions about other images are left out.

    Raises:
        DataError: no image has a question, or a number belongs to two images.
    """
    asked: defaultdict[str | int, list[Question]] = defaultdict(list)
    for question in questions:
        asked[question.image_id].append(question)
    tasks: list[Task] = []
    owners: dict[int, str] = {}
    for task in one_prompt(snapshot, ""):
        number = number_of(task.id)
        found = [*asked.get(task.id, ()), *asked.get(task.uri, ())]
        if number is not None and number in asked:
            if number in owners:
                raise DataError(
                    f"the image number {number} belongs to {owners[number]!r:.80} and to "
                    f"{task.id!r:.80}",
                    "use ids instead of numbers as `image_id` in the file of questions",
                )
            owners[number] = task.id
            found += asked[number]
        if found:
            prompts = tuple(one.question for one in found)
            tasks.append(
                replace(task, prompts=prompts, names=tuple(str(one.question_id) for one in found))
            )
    if not tasks:
        raise DataError(
            "none of the questions is about an indexed image",
            "the `image_id` of a question is an id, a uri, or the number at the end of an id",
        )
    return tasks


def number_of(name: str) -> int | None:
    """Return the number at the end of an image id without its extension.

    None if the id does not end with a number, or if the number has more than 18 digits.
    """
    found = _NUMBER.search(PurePosixPath(name).stem)
    return None if found is None else int(found[0])


def after(tasks: Iterator[Task], prompts: int) -> Iterator[Task]:
    """Yield the tasks without the given number of first prompts."""
    for task in tasks:
        rest = task.prompts[prompts:]
        prompts = max(0, prompts - len(task.prompts))
        if rest:
            yield replace(task, prompts=rest, names=task.names[-len(rest) :])
