"""Canonical correlation compared with known results."""

from __future__ import annotations

import numpy as np
import torch

from mmindex.adaptation.correlate import Moments, Noise, Settings, Whitened
from mmindex.adaptation.measure import rank
from support.adapting import related_pairs, unit

EVEN = Noise.of(None, None, 32)


def test_sums_of_parts_are_the_sums_of_the_whole():
    pairs = related_pairs(101, captions=3)
    parts = np.array_split(np.arange(101), 4)
    total = sum(
        (Moments.of(pairs.only(part)) for part in parts[1:]), Moments.of(pairs.only(parts[0]))
    )
    whole = Moments.of(pairs)
    assert total.count == whole.count == 101
    for name in ("image", "text", "images", "texts", "both"):
        assert torch.allclose(getattr(total, name), getattr(whole, name), atol=1e-4)


def test_an_image_has_the_same_weight_with_any_number_of_captions():
    pairs = related_pairs(60, captions=1)
    chosen = np.arange(60)
    twice = type(pairs)(pairs.images, np.repeat(pairs.texts, 2, axis=0), 2 * pairs.counts)
    one, other = Moments.of(pairs.only(chosen)), Moments.of(twice)
    for name in ("text", "texts", "both"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-4)


def test_the_first_directions_are_those_of_canonical_correlation():
    """Without a ridge the singular values are the correlations, at most 1."""
    pairs = related_pairs(2_000)
    whitened = Whitened.of(Moments.of(pairs), EVEN, Settings(1e-6, 1e-6, 0.0))
    values = torch.linalg.svdvals(whitened.correlation)
    assert float(values[0]) <= 1.0 + 1e-6
    assert float(values[11]) > 0.5  # twelve numbers are shared
    assert float(values[13]) < 0.2


def test_full_trust_gives_the_scores_of_the_unchanged_model_around_the_centres():
    pairs = related_pairs(300)
    moments = Moments.of(pairs)
    fit = Whitened.of(moments, EVEN, Settings(0.3, 0.3, 1.0)).fit(1.0)
    product = fit.image @ fit.text.T
    assert torch.allclose(product / product[0, 0], torch.eye(32), atol=1e-4)


def test_maps_reduce_the_distance_between_images_and_captions():
    pairs = related_pairs(600)
    fit = Whitened.of(Moments.of(pairs.only(np.arange(400))), EVEN, Settings(0.1, 0.1, 0.0)).fit(
        0.0
    )
    test = pairs.only(np.arange(400, 600))
    assert rank(test, None).score < 15
    assert rank(test, fit.affines).score > 60


def test_a_direction_without_variance_is_harmless():
    pairs = related_pairs(200)
    flat = pairs.images.copy()
    flat[:, 5] = 0
    flat = unit(flat.astype(np.float32)).astype(np.float16)
    noise = Noise.of(torch.diag(torch.tensor([1.0] * 5 + [0.0] + [1.0] * 26).double()), None, 32)
    fit = Whitened.of(
        Moments.of(type(pairs)(flat, pairs.texts, pairs.counts)), noise, Settings(0.1, 0.1, 0.4)
    ).fit(0.4)
    for affine in fit.affines:
        assert np.isfinite(affine.weight).all()
        assert np.isfinite(affine.bias).all()


def test_noise_of_features_has_mean_variance_one_and_is_nowhere_zero():
    noise = Noise.of(torch.diag(torch.arange(32).double()), torch.full((32, 32), torch.nan), 32)
    assert abs(float(noise.image.trace()) - 32) < 1e-9
    assert float(torch.linalg.eigvalsh(noise.image)[0]) > 0
    assert torch.equal(noise.text, torch.eye(32, dtype=torch.float64))


def test_a_ridge_for_more_images_is_smaller():
    assert Settings(3.0, 1.0, 0.4, 30).for_more(60, 120) == Settings(1.5, 0.5, 0.4, 30)
