from __future__ import annotations

import math

import pytest
import torch

from mmindex.train.step import contrastive_loss, equal_rows

IMAGES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
TEXTS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])


def test_the_loss_is_the_mean_of_both_cross_entropies_as_computed_by_hand() -> None:
    # Logits 2 * images @ texts.T = [[2, 1.2], [0, 1.6]]: each term is log(1 + e**-(own - other)).
    rows = (math.log1p(math.exp(-0.8)) + math.log1p(math.exp(-1.6))) / 2
    columns = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(-0.4))) / 2
    loss = contrastive_loss(IMAGES, TEXTS, torch.tensor(2.0))
    assert float(loss) == pytest.approx((rows + columns) / 2, rel=1e-6)


def test_a_caption_that_two_images_share_is_not_a_negative_for_either() -> None:
    tokens = torch.tensor([[1, 5, 9], [1, 5, 9]])
    loss = contrastive_loss(IMAGES, TEXTS, torch.tensor(2.0), equal_rows(tokens))
    assert float(loss) == 0.0  # nothing is left to distinguish


def test_only_whole_rows_of_tokens_count_as_the_same_caption() -> None:
    tokens = torch.tensor([[1, 5, 9], [1, 6, 9], [1, 5, 9]])
    expected = [[True, False, True], [False, True, False], [True, False, True]]
    assert equal_rows(tokens).tolist() == expected
