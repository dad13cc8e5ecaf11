"""Mixtures find what made the data."""

import itertools

import numpy as np
import pytest

from asr.training.gmm import NUM_CEPSTRA, Mixtures, cepstra


def test_one_gaussian_is_mean_and_variance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4_000)
    features = rng.normal(
        np.array([[0.0, 5.0], [-3.0, 1.0]])[labels], np.array([[1.0, 2.0], [0.5, 1.0]])[labels]
    )
    model = Mixtures.from_labels(features.astype(np.float32), labels, 2)
    assert model.means[:, 0] == pytest.approx(np.array([[0, 5], [-3, 1]]), abs=0.15)
    assert np.sqrt(model.variances[:, 0]) == pytest.approx(np.array([[1, 2], [0.5, 1]]), abs=0.1)
    assert (model.scores(features.astype(np.float32)).argmax(1) == labels).mean() > 0.9


def test_scores_are_log_densities() -> None:
    rng = np.random.default_rng(1)
    model = Mixtures(
        means=rng.normal(0, 1, (1, 2, 1)), variances=rng.uniform(0.5, 2, (1, 2, 1)),
        log_weights=np.log(np.array([[0.3, 0.7]], np.float32)),
    )  # fmt: skip
    x = np.linspace(-12, 12, 4_001, dtype=np.float32)[:, None]
    density = np.exp(model.scores(x)[:, 0])
    assert float(density.sum() * (x[1, 0] - x[0, 0])) == pytest.approx(1, abs=1e-3)


def test_splitting_and_training_raise_the_likelihood_and_find_both_clusters() -> None:
    rng = np.random.default_rng(2)
    features = np.concatenate([rng.normal(-4, 1, (800, 3)), rng.normal(4, 1, (400, 3))]).astype(np.float32)
    labels = np.zeros(len(features), np.int64)
    model = Mixtures.from_labels(features, labels, 1)
    likelihoods = [float(model.scores(features).mean())]
    model = model.split()
    for _ in range(10):
        model = model.update(features, labels)
        likelihoods.append(float(model.scores(features).mean()))
    assert all(b >= a - 1e-3 for a, b in itertools.pairwise(likelihoods[1:]))
    assert likelihoods[-1] > likelihoods[0] + 0.5
    assert sorted(model.means[0, :, 0]) == pytest.approx([-4, 4], abs=0.3)
    assert sorted(np.exp(model.log_weights[0])) == pytest.approx([1 / 3, 2 / 3], abs=0.03)


def test_a_class_without_frames_keeps_its_parameters() -> None:
    features = np.random.default_rng(3).normal(0, 1, (100, 2)).astype(np.float32)
    model = Mixtures.from_labels(features, np.zeros(100, np.int64), 2)
    assert np.isfinite(model.scores(features)).all()
    assert model.means[1, 0] == pytest.approx(features.mean(0), abs=1e-5)


def test_cepstra_have_no_mean_and_follow_slopes() -> None:
    ramp = np.outer(np.arange(50), np.ones(80)).astype(np.float32)
    found = cepstra(ramp)
    assert found.shape == (50, 3 * NUM_CEPSTRA)
    assert abs(found[:, 0].mean()) < 1e-3
    slope = found[10:40, NUM_CEPSTRA]
    assert slope == pytest.approx(np.full(30, found[11, 0] - found[10, 0]), rel=1e-3)
    assert found[10:40, 2 * NUM_CEPSTRA] == pytest.approx(np.zeros(30), abs=1e-3)
