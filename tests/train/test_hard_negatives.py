from __future__ import annotations

import numpy as np
import pytest

from mmindex.train.batches import POOL, mixed_batches, pool_of, word_vectors


def test_a_pool_never_crosses_an_epoch_and_covers_every_step_once() -> None:
    for batches_an_epoch in (1, 5, POOL, POOL + 3, 3 * POOL):
        for step in range(2 * batches_an_epoch):
            first, batches = pool_of(step, batches_an_epoch)
            assert first <= step < first + batches <= first + POOL
            assert first // batches_an_epoch == (first + batches - 1) // batches_an_epoch
            assert pool_of(first, batches_an_epoch) == (first, batches)


def test_each_image_of_a_pool_is_in_one_batch() -> None:
    vectors = np.random.default_rng(0).standard_normal((96, 10)).astype(np.float32)
    batches = mixed_batches(vectors, 6, 4, np.random.default_rng(1))
    assert [len(batch) for batch in batches] == [16] * 6
    assert sorted(np.concatenate(batches).tolist()) == list(range(96))


def test_images_with_the_same_words_share_a_batch() -> None:
    topics = np.repeat(np.arange(8), 8)
    shuffled = np.random.default_rng(2).permutation(topics)
    rows = [np.array([[1, 10 + topic, 99, 0]], np.int32) for topic in shuffled]
    batches = mixed_batches(word_vectors(rows), 4, 8, np.random.default_rng(3))
    met = [len(set(shuffled[batch].tolist())) for batch in batches]
    assert met == [2, 2, 2, 2]  # a random batch of 16 would contain seven of the eight topics


def test_words_in_every_caption_have_no_weight() -> None:
    rows = [np.array([[1, word, 99, 0]], np.int32) for word in (10, 10, 11)]
    vectors = word_vectors(rows)
    assert not vectors[:, [0, 1, 99]].any()
    assert vectors[0] @ vectors[1] == pytest.approx(1.0)
    assert vectors[0] @ vectors[2] == 0.0
