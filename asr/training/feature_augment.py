"""Other speakers, noises and telephones, made from log-mel features anew each time an utterance is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr.model.features import FLOOR, NUM_MELS

LOW_HZ, HIGH_HZ = 20.0, 7_800.0  # of the mel bands: see LogMel


@dataclass(frozen=True, kw_only=True)
class FeatureAugmentConfig:
    """How often, and how far. `warp`: the longest and shortest vocal tract beside the speaker's own.
    `snr_db`: of the noise that is mixed in; it is babble of `babble` other utterances, or stationary with a
    random colour. `narrow`: a telephone's band, from the first to the second pair of limits in Hz; outside of
    it is `floor_db` less than the speech has on average."""

    warp_probability: float = 0.0
    warp: tuple[float, float] = (0.88, 1.14)
    noise_probability: float = 0.0
    snr_db: tuple[float, float] = (5.0, 25.0)
    babble: int = 3
    narrow_probability: float = 0.0
    narrow: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 350.0), (3_300.0, 4_000.0))
    floor_db: tuple[float, float] = (35.0, 80.0)


def warp_frequencies(features: np.ndarray, factor: float) -> np.ndarray:
    """Log-mel (frames, mels) as of a vocal tract that is `factor` times as short (Jaitly & Hinton 2013, 2):
    what was at f Hz is at factor * f."""
    source = _band(np.minimum(band_hertz() / factor, HIGH_HZ))
    below = np.clip(np.floor(source).astype(np.int64), 0, NUM_MELS - 2)
    share = np.clip(source - below, 0, 1).astype(features.dtype)
    return features[:, below] * (1 - share) + features[:, below + 1] * share


def mix_noise(features: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add the powers of log-mel `noise` (frames, mels) to those of `features`, at that ratio of their mean
    powers."""
    gap = _mean_power_db(features) - _mean_power_db(noise) - snr_db
    return np.logaddexp(features, noise + np.float32(gap * np.log(10) / 10))


def limit_band(
    features: np.ndarray, low_hz: float, high_hz: float, floor_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Log-mel (frames, mels) as a line lets through that carries only these frequencies: outside of them is a
    hiss, so much below the mean power."""
    hertz = band_hertz()
    outside = (hertz < low_hz) | (hertz > high_hz)
    power_db = _mean_power_db(features) - floor_db
    hiss = rng.standard_gamma(2.0, (len(features), int(outside.sum()))) / 2
    limited = features.copy()
    limited[:, outside] = np.log(np.maximum(hiss * 10 ** (power_db / 10), FLOOR))
    return limited


def stationary_noise(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Log-mel (frames, mels) of a steady noise whose spectrum is a slope and a bump."""
    bands = np.arange(NUM_MELS)
    slope = rng.uniform(-0.06, 0.03) * bands
    bump = rng.uniform(0, 2) * np.exp(-(((bands - rng.uniform(0, NUM_MELS)) / rng.uniform(4, 20)) ** 2))
    # The power of a band in a 25 ms window of noise is about a chi-square of few degrees of freedom.
    power = rng.standard_gamma(2.0, (num_frames, NUM_MELS)) / 2
    return (slope + bump + np.log(power + FLOOR)).astype(np.float32)


def babble(voices: list[np.ndarray], num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Log-mel of several utterances at once, each from anywhere in it on, over and over."""
    mixed = np.full((num_frames, NUM_MELS), np.float32(np.log(FLOOR)))
    for voice in voices:
        start = int(rng.integers(len(voice)))
        mixed = np.logaddexp(mixed, np.take(voice, np.arange(start, start + num_frames), axis=0, mode="wrap"))
    return mixed.astype(np.float32)


def _mean_power_db(features: np.ndarray) -> float:
    return float(10 * np.log10(np.exp(features).mean() + FLOOR))


def band_hertz() -> np.ndarray:
    """The middle of each mel band (mels,)."""
    low, high = to_mel(LOW_HZ), to_mel(HIGH_HZ)
    return 700 * (10 ** ((low + (np.arange(NUM_MELS) + 1) * (high - low) / (NUM_MELS + 1)) / 2595) - 1)


def _band(hertz: np.ndarray) -> np.ndarray:
    low, high = to_mel(LOW_HZ), to_mel(HIGH_HZ)
    return (2595 * np.log10(1 + hertz / 700) - low) * (NUM_MELS + 1) / (high - low) - 1


def to_mel(hertz: float) -> float:
    """HTK's mel scale, as torchaudio's features use it."""
    return 2595 * float(np.log10(1 + hertz / 700))
