"""Jobs: questions and annotations are compared before the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmindex.core.errors import DataError
from mmindex.decoder import job as module
from mmindex.decoder.generate import GREEDY
from mmindex.decoder.job import Job
from mmindex.decoder.tasks import Task
from mmindex.decoder.vqa import read_annotations


def test_annotations_of_other_questions_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, annotations = tmp_path / "questions.json", tmp_path / "annotations.json"
    asked = {"question_id": 1, "image_id": "a", "question": "how many?"}
    questions.write_text(json.dumps({"questions": [asked]}))
    answer = {"question_id": 2, "answers": [{"answer": "2"}]}
    annotations.write_text(json.dumps({"annotations": [answer]}))
    tasks = [Task("a", "a.png", ("how many?",), ("1",))]
    monkeypatch.setattr(module, "about_images", lambda *_: tasks)
    job = Job(None, None, GREEDY, tmp_path / "out.parquet")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no question has an answer and an annotation"):
        job.answer(questions, read_annotations(annotations))
    assert not any(one.name.startswith("out") for one in tmp_path.iterdir())
