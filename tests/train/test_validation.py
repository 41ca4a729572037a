from __future__ import annotations

import pytest
import torch

from mmindex.core.errors import DataError
from mmindex.train.validation import recall


def test_recall_of_three_captions_of_two_images_as_counted_by_hand() -> None:
    # Captions 0 and 1 belong to image 0, caption 2 to image 1.
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6]])
    found = recall(scores, torch.tensor([0, 0, 1]))
    # Text to image: right, wrong, wrong. Image 0's best caption is first; image 1's is second.
    assert found["t2i_r@1"] == pytest.approx(100 / 3)
    assert found["i2t_r@1"] == 50.0
    assert found["t2i_r@5"] == found["i2t_r@5"] == found["i2t_r@10"] == 100.0


def test_a_constant_network_gets_the_recall_of_random_answers() -> None:
    own = torch.arange(20).repeat_interleave(5)
    found = recall(torch.ones(100, 20), own)
    assert found["t2i_r@1"] == 5.0
    assert found["i2t_r@1"] == 5.0


def test_vectors_that_are_not_numbers_are_an_error_not_a_score() -> None:
    with pytest.raises(DataError, match="not numbers"):
        recall(torch.full((4, 2), float("nan")), torch.tensor([0, 0, 1, 1]))
