"""Generated texts: of limited length, without repetitions, the same alone and in a batch."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from mmindex.core.errors import UsageError
from mmindex.decoder.generate import Search, generate, likelihoods
from mmindex.decoder.words import split_words


def words_of(texts):
    return [split_words(one.text) for one in texts]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_ends_and_repeats_no_three_words(model, maps, beams):
    for words in words_of(generate(model, maps, ["how many boats"] * 3, Search(beams=beams))):
        assert 1 <= len(words) <= 32
        triples = list(zip(words, words[1:], words[2:], strict=False))
        assert len(set(triples)) == len(triples)
        assert all(one != two for one, two in pairwise(words))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_an_endless_text_is_cut(model, maps, most):
    model.network.words.weight[3] = -100  # the end is never likely
    for words in words_of(generate(model, maps, ["boats"] * 3, Search(most_words=most))):
        assert len(words) <= most


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_gives_the_texts_of_single_images(model, maps, beams):
    prompts = ["how many boats", "is it red", "a red boat, a blue boat"]
    together = generate(model, maps, prompts, Search(beams=beams))
    for row, prompt in enumerate(prompts):
        [alone] = generate(model, [one[row : row + 1] for one in maps], [prompt], Search(beams))
        assert alone.text == together[row].text
        assert alone.score == pytest.approx(together[row].score, abs=1e-4)


def test_without_the_image_all_images_have_the_same_answer(model, maps):
    texts = generate(model, maps, ["how many boats"] * 3, Search(blind=True))
    assert len({one.text for one in texts}) == 1


def test_a_wide_beam_finds_the_likeliest_text(model, maps):
    """Beside an exhaustive search over texts of at most two words."""
    one = [part[:1] for part in maps]
    words = [word for word in model.vocabulary.words if word != ","]
    texts = [*words, *(" ".join(pair) for pair in product(words, words) if len(set(pair)) == 2)]
    scores = likelihoods(model, one, "is it red", texts)[0]
    [found] = generate(model, one, ["is it red"], Search(beams=200, most_words=2))
    if "," not in found.text:
        assert found.score == pytest.approx(float(scores.max()), abs=1e-4)
    assert found.score >= float(scores.max()) - 1e-4


def test_likelihoods_are_those_of_the_generated_text(model, maps):
    texts = generate(model, maps, ["how many boats"] * 3)
    for row, one in enumerate(texts):
        image = [part[row : row + 1] for part in maps]
        known = likelihoods(model, image, "how many boats", [one.text, "yes"])
        assert float(known[0, 0]) == pytest.approx(one.score, abs=1e-4)


def test_a_prompt_without_words_is_refused(model, maps):
    with pytest.raises(UsageError, match="no words"):
        generate(model, maps, ["how many boats", "?", "is it red"])


def test_padding_and_other_sequences_do_not_change_a_state(model, maps):
    from mmindex.decoder.batches import pack

    vocabulary = model.vocabulary
    first = (vocabulary.prompt("how many boats"), vocabulary.answer("2"))
    second = (vocabulary.prompt("is it red"), vocabulary.answer("yes"))
    seen = torch.zeros(1, dtype=torch.bool).numpy()
    alone, both = pack([[first]], seen), pack([[first, second]], seen)
    memory = model.network.memory([one[:1] for one in maps])

    def states(packed):
        return model.network(packed.tokens, packed.positions, packed.mask, memory)[0][0]

    length = alone.tokens.shape[1]
    torch.testing.assert_close(states(alone), states(both)[:length], atol=1e-5, rtol=1e-4)
    turned = pack([[second, first]], seen)
    torch.testing.assert_close(states(turned)[-length:], states(alone), atol=1e-5, rtol=1e-4)
