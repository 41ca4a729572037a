"""Texts about many prompts: maps are copied for one batch at a time, not for all prompts."""

from __future__ import annotations

from itertools import islice, product
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmindex.decoder import writer as module
from mmindex.decoder.generate import GREEDY, generate
from mmindex.decoder.network import DecoderNetwork
from mmindex.decoder.tasks import Task
from mmindex.decoder.writer import Writer

PROMPTS = [" ".join(words) for words in product(("red", "boat", "is"), repeat=3)]


class _MapsOfOne:
    """Feature maps that are the same for every image."""

    def __init__(self, maps):
        self._maps = maps
        self.images = 0

    def __call__(self, images):
        self.images += len(images)
        return [one[:1].expand(len(images), -1, -1) for one in self._maps]


@pytest.fixture
def writer(model, maps, monkeypatch):
    monkeypatch.setattr(Writer, "_maps", lambda self, images: self._features(images))
    return Writer(model, _MapsOfOne(maps), None)


@pytest.fixture
def sizes(monkeypatch):
    """The number of rows of the maps in each call of generate."""
    found = []

    def recorded(model, maps, *others):
        found.append(len(maps[0]))
        return generate(model, maps, *others)

    monkeypatch.setattr(module, "generate", recorded)
    return found


def picture(folder: Path) -> str:
    path = folder / "picture.png"
    Image.new("RGB", (4, 4)).save(path)
    return str(path)


def test_maps_are_not_copied_for_each_blind_prompt(writer, sizes):
    assert list(writer.blind([*PROMPTS, *PROMPTS], GREEDY)) == PROMPTS
    assert sizes == [1]


def test_maps_are_not_copied_for_each_question_about_an_image(writer, sizes, tmp_path):
    found = list(writer.each([Task("a", picture(tmp_path), tuple(PROMPTS))], GREEDY))
    assert [one.prompt for one in found] == PROMPTS
    assert set(sizes) == {1}


def test_an_image_with_many_questions_has_its_first_answers_early(
    writer, sizes, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_PROMPTS", 10)
    texts = writer.each([Task("a", picture(tmp_path), tuple(PROMPTS))], GREEDY)
    assert len(list(islice(texts, 10))) == 10
    assert len(sizes) == 1
    assert len(list(texts)) == len(PROMPTS) - 10


def test_rows_choose_the_maps(model, maps, monkeypatch):
    prompts, rows = ["how many boats", "is it red", "is it"], [2, 0, 2]
    chosen = [one[torch.tensor(rows)] for one in maps]
    assert generate(model, maps, prompts, GREEDY, rows) == generate(model, chosen, prompts)
    most = []
    memory = DecoderNetwork.memory

    def recorded(self, maps, unseen=None):
        most.append(len(maps[0]))
        return memory(self, maps, unseen)

    monkeypatch.setattr(DecoderNetwork, "memory", recorded)
    monkeypatch.setattr("mmindex.decoder.generate._AT_ONCE", 8)
    generate(model, maps, PROMPTS, GREEDY, [1] * len(PROMPTS))
    assert max(most) == 8
