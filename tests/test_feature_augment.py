"""Warped vocal tracts and mixed noises do what the same on waveforms would."""

import numpy as np
import pytest
import torch

from asr.model.features import NUM_MELS, LogMel
from asr.training.feature_augment import (
    babble,
    limit_band,
    mix_noise,
    stationary_noise,
    warp_frequencies,
)


def log_mel(waveform: np.ndarray) -> np.ndarray:
    features, _ = LogMel()(torch.from_numpy(waveform.astype(np.float32))[None], torch.tensor([len(waveform)]))
    return features[0].numpy()


def tone(hertz: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(8_000) / 16_000)


@pytest.mark.parametrize("factor", [0.88, 1.0, 1.12])
def test_a_warped_tone_is_the_tone_of_that_frequency(factor: float) -> None:
    warped = warp_frequencies(log_mel(tone(1_000)), factor)[25]
    assert abs(int(warped.argmax()) - int(log_mel(tone(1_000 * factor))[25].argmax())) <= 1


def test_a_factor_of_one_changes_nothing() -> None:
    features = np.random.default_rng(0).normal(0, 1, (7, NUM_MELS)).astype(np.float32)
    assert warp_frequencies(features, 1.0) == pytest.approx(features, abs=1e-4)


def test_mixing_features_is_mixing_waveforms() -> None:
    rng = np.random.default_rng(0)
    speech, noise = tone(500), rng.normal(0, 0.02, 8_000)
    mixed = mix_noise(log_mel(speech), log_mel(noise), snr_db=10.0)
    # The same by waveforms: the noise scaled to that ratio of mel powers.
    ratio = np.exp(log_mel(speech)).mean() / np.exp(log_mel(noise)).mean() / 10
    expected = log_mel(speech + noise * np.sqrt(ratio))
    assert np.abs(mixed - expected).mean() < 0.3
    assert np.abs(log_mel(speech) - expected).mean() > 1


def test_a_telephone_lets_through_its_band_alone() -> None:
    features = log_mel(tone(1_000) + tone(6_000))
    limited = limit_band(features, 300.0, 4_000.0, 40.0, np.random.default_rng(0))
    middle, high = (int(log_mel(tone(hertz))[25].argmax()) for hertz in (1_000, 6_000))
    assert (limited[:, middle] == features[:, middle]).all()
    power_db = 10 * np.log10(np.exp(features).mean())
    hiss_db = 10 * np.log10(np.exp(limited[:, high]).mean())
    assert hiss_db == pytest.approx(power_db - 40, abs=1.5)
    assert 10 * np.log10(np.exp(features[:, high]).mean()) > power_db
    untouched = (limited == features).all(0)
    assert untouched.any() and not untouched[0] and not untouched[-1]


def test_noises_are_as_long_as_asked_and_differ() -> None:
    rng = np.random.default_rng(0)
    one, other = stationary_noise(40, rng), stationary_noise(40, rng)
    assert one.shape == other.shape == (40, NUM_MELS)
    assert np.abs(one.mean(0) - other.mean(0)).max() > 0.3
    assert np.abs(one[:20].mean() - one[20:].mean()) < 0.2
    voices = [np.full((9, NUM_MELS), level, np.float32) for level in (0.0, 1.0)]
    assert babble(voices, 40, rng) == pytest.approx(np.full((40, NUM_MELS), np.log(1 + np.e)), abs=1e-3)
