"""Other speeds, rooms, noises and speakers, made from waveforms anew each time an utterance is seen.

Everything is done for a whole batch at once on the device that trains: a GPU has made another recording of an
utterance long before a processor would have read a prepared one. `augment.py` and `feature_augment.py` are
the same ideas for one utterance on a processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.model.features import FLOOR, NUM_MELS, SAMPLE_RATE
from asr.training.augment import (
    DECAY_S,
    DIRECT_DB,
    FIRST_WALL_S,
    GAIN_DB,
    MEASURED_ROOMS,
    SNR_DB,
    noises_and_rooms,
)
from asr.training.feature_augment import HIGH_HZ, LOW_HZ, band_hertz, to_mel

_TAPS = 16  # of the interpolation between samples
_LONGEST_ROOM = round(DECAY_S[1] * SAMPLE_RATE)  # samples


@dataclass(frozen=True, kw_only=True)
class WaveformAugmentConfig:
    """How often, and how far. `speed`: the slowest and fastest. `room`: share of the utterances in a room,
    some of them a measured one where there are any. `noise`: share with a recorded or a coloured noise
    or with babble of `babble` other utterances, each as often, at `snr_db`. `warp`: share with another vocal
    tract, `narrow`: share as over a telephone, their ranges as in `FeatureAugmentConfig`. `gain_db`: level.
    """

    speed: tuple[float, float] = (0.88, 1.12)
    room: float = 0.4
    noise: float = 0.5
    snr_db: tuple[float, float] = SNR_DB
    babble: int = 3
    warp: float = 0.5
    warp_range: tuple[float, float] = (0.88, 1.14)
    narrow: float = 0.1
    narrow_hz: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 350.0), (3_300.0, 4_000.0))
    floor_db: tuple[float, float] = (35.0, 80.0)
    gain_db: tuple[float, float] = GAIN_DB


@dataclass(frozen=True)
class Sounds:
    """Recorded noises one behind the other (samples,), and measured rooms (rooms, samples), zero-padded."""

    noise: Tensor
    rooms: Tensor

    @classmethod
    def read(cls, folder: Path | None, device: torch.device) -> Sounds:
        """Of a folder with noise.tsv, empty without a folder. Raises ValueError as `noises_and_rooms`."""
        noises, rooms = noises_and_rooms(folder) if folder else ([], [])
        # All at one level: the signal-to-noise ratio decides how loud they are.
        level = [np.float32(sound / (np.sqrt(np.square(sound).mean()) + 1e-6)) for sound in noises]
        padded = torch.zeros(len(rooms), _LONGEST_ROOM)
        for row, room in zip(padded, rooms, strict=True):
            row[: len(room)] = torch.from_numpy(room[:_LONGEST_ROOM])
        noise = torch.from_numpy(np.concatenate(level)) if level else torch.zeros(0)
        return cls(noise.to(device), padded.to(device))


@dataclass(frozen=True)
class Dice:
    """Random numbers for the rows of a batch, from a generator of the device."""

    generator: torch.Generator
    rows: int

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        """(rows, *shape)."""
        numbers = torch.rand(self.rows, *shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * numbers

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.rows, *shape, generator=self.generator, device=self.generator.device)

    def below(self, limits: Tensor) -> Tensor:
        """A whole number from 0 to below each of the limits (rows,), int64."""
        return (self.uniform() * limits).long().minimum(limits - 1)

    def happens(self, probability: float) -> Tensor:
        """(rows,) bool."""
        return self.uniform() < probability


def read_at_speed(
    pool: Tensor,
    starts: Tensor,
    lengths: Tensor,
    speeds: Tensor,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Utterances of the int16 `pool` (samples,) from `starts` (batch,) on, `lengths` long, with `before` and
    `after` samples of silence, played at `speeds`, pitch included -> (batch, samples) float32 in [-1, 1],
    zero beyond the lengths (batch,) that they have now.

    Band-limited interpolation with a windowed sinc (Smith & Gossett 1984), narrower where speech is speeded
    up, so that nothing is folded back from above the highest frequency.
    """
    before, after = (torch.zeros_like(starts) if silence is None else silence for silence in (before, after))
    now = ((before + lengths + after) / speeds).floor().long().clamp_min(1)
    # In 64 bits: after ten seconds 32 would tell tenths of a sample apart.
    places = torch.arange(int(now.max()), device=pool.device) * speeds.double()[:, None] - before[:, None]
    floor = places.floor()
    share = (places - floor).float()
    cutoff = speeds.reciprocal().clamp_max(1.0)[:, None]
    played = torch.zeros_like(share)
    sample = floor.long()
    for tap in range(1 - _TAPS // 2, 1 + _TAPS // 2):
        distance = tap - share
        weight = cutoff * torch.sinc(cutoff * distance) * torch.cos(distance * (math.pi / _TAPS)).square()
        place = sample + tap
        inside = (place >= 0) & (place < lengths[:, None])
        samples = pool[(starts[:, None] + place).clamp(0, len(pool) - 1)]
        played += torch.where(inside, weight * samples, 0)
    inside = torch.arange(played.shape[1], device=pool.device) < now[:, None]
    return torch.where(inside, played / 32_768, 0), now


def in_rooms(waveforms: Tensor, sounds: Sounds, share: float, dice: Dice) -> Tensor:
    """Convolve a share of the waveforms (batch, samples) with a room each. Simulated ones are as
    `asr.training.augment.simulated_room` makes them."""
    time = torch.arange(_LONGEST_ROOM, device=waveforms.device) / SAMPLE_RATE
    decay_s = dice.uniform(*DECAY_S)[:, None]
    tail = dice.normal(_LONGEST_ROOM) * 10 ** (-3 * time / decay_s)
    tail = tail.masked_fill((time < dice.uniform(*FIRST_WALL_S)[:, None]) | (time >= decay_s), 0)
    ratio = 10 ** (dice.uniform(*DIRECT_DB) / 10)
    rooms = tail / (ratio * tail.square().sum(1) + 1e-9).sqrt()[:, None]
    rooms[:, 0] = 1
    if len(sounds.rooms):
        which = dice.below(torch.full((dice.rows,), len(sounds.rooms), device=waveforms.device))
        rooms = torch.where(dice.happens(MEASURED_ROOMS)[:, None], sounds.rooms[which], rooms)
    heard = torch.arange(_LONGEST_ROOM, device=waveforms.device) == 0
    rooms = torch.where(dice.happens(share)[:, None], rooms, heard.to(rooms.dtype))
    # A multiple of a power of two: transforms of few different lengths, all of them fast.
    size = -(-(waveforms.shape[1] + _LONGEST_ROOM) // 8192) * 8192
    product = torch.fft.rfft(waveforms, size) * torch.fft.rfft(rooms, size)
    return torch.fft.irfft(product, size)[:, : waveforms.shape[1]]


def with_noise(
    waveforms: Tensor,
    lengths: Tensor,
    spoken: Tensor,
    others: Tensor,
    sounds: Sounds,
    config: WaveformAugmentConfig,
    dice: Dice,
) -> Tensor:
    """Mix noise into a share of the waveforms (batch, samples) of `lengths`, of which `spoken` samples are no
    added silence: their power is compared with the noise's. `others` (batch, samples) is the babble that some
    get."""
    num = waveforms.shape[1]
    inside = torch.arange(num, device=waveforms.device) < lengths[:, None]
    noise = torch.where(dice.happens(0.5)[:, None], others, coloured_noise(num, dice))
    if len(sounds.noise):
        first = dice.below(torch.full((dice.rows,), len(sounds.noise), device=waveforms.device))
        places = (first[:, None] + torch.arange(num, device=waveforms.device)) % len(sounds.noise)
        noise = torch.where(dice.happens(1 / 3)[:, None], sounds.noise[places], noise)
    powers = [
        torch.where(inside, sound, 0).square().sum(1) / samples + 1e-9
        for sound, samples in ((waveforms, spoken), (noise, lengths))
    ]
    gain = (powers[0] / powers[1]).sqrt() * 10 ** (-dice.uniform(*config.snr_db) / 20)
    gain = torch.where(dice.happens(config.noise), gain, 0)
    mixed = waveforms + gain[:, None] * noise
    return torch.where(inside, mixed * 10 ** (dice.uniform(*config.gain_db) / 20)[:, None], 0)


def coloured_noise(num_samples: int, dice: Dice) -> Tensor:
    """(rows, samples) with power spectra 1/f^a, a from 0 (white) to 2 (brown), each of its own."""
    size = -(-num_samples // 8192) * 8192
    spectrum = torch.fft.rfft(dice.normal(size))
    frequency = torch.arange(spectrum.shape[1], device=spectrum.device).clamp_min(1 + size // 400)
    slope = dice.uniform(0, 1)[:, None]
    return torch.fft.irfft(spectrum * (frequency / frequency[-1]) ** -slope, size)[:, :num_samples]


def with_other_tracts(features: Tensor, config: WaveformAugmentConfig, dice: Dice) -> Tensor:
    """Log-mel (batch, frames, mels), a share of them as of vocal tracts of other lengths (Jaitly & Hinton
    2013, 2)."""
    factors = torch.where(dice.happens(config.warp), dice.uniform(*config.warp_range), 1.0)
    hertz = torch.from_numpy(band_hertz()).to(features)
    low, high = to_mel(LOW_HZ), to_mel(HIGH_HZ)
    source = 2595 * (1 + (hertz / factors[:, None]).clamp_max(HIGH_HZ) / 700).log10() - low
    source = source * (NUM_MELS + 1) / (high - low) - 1
    below = source.floor().long().clamp(0, NUM_MELS - 2)
    share = (source - below).clamp(0, 1)[:, None]
    lower, upper = (features.gather(2, (below + i)[:, None].expand_as(features)) for i in (0, 1))
    return lower + share * (upper - lower)


def over_telephones(features: Tensor, lengths: Tensor, config: WaveformAugmentConfig, dice: Dice) -> Tensor:
    """Log-mel (batch, frames, mels) of `lengths`, a share of them as a line lets through that carries few
    frequencies: outside of them is a hiss."""
    hertz = torch.from_numpy(band_hertz()).to(features)
    low, high = (dice.uniform(*limits)[:, None] for limits in config.narrow_hz)
    outside = ((hertz < low) | (hertz > high)) & dice.happens(config.narrow)[:, None]
    inside = (torch.arange(features.shape[1], device=features.device) < lengths[:, None])[..., None]
    power = torch.where(inside, features.exp(), 0).sum((1, 2)) / (lengths * NUM_MELS) + FLOOR
    floor = power * 10 ** (-dice.uniform(*config.floor_db) / 10)
    # The power of a band in a window of noise: about a chi-square of few degrees of freedom.
    hiss = -dice.uniform(1e-6, 1, *features.shape[1:], 2).log().sum(3) / 2
    hiss = (hiss * floor[:, None, None]).clamp_min(FLOOR).log()
    return torch.where(outside[:, None], hiss, features)


def spec_augment(
    features: Tensor, lengths: Tensor, mels: tuple[int, int], times: tuple[int, int], dice: Dice
) -> Tensor:
    """Set masks of normalised features (batch, frames, mels) to 0, their mean (Park et al. 2019): `mels` says
    how many and how wide at most, `times` for how many frames there is one and how wide at most."""
    bands = _masked(features.shape[2], torch.full_like(lengths, features.shape[2]), mels[0], mels[1], dice)
    counts = (lengths // times[0]).clamp_min(1)
    frames = _masked(features.shape[1], lengths, int(counts.max()), times[1], dice, counts)
    return features.masked_fill(bands[:, None] | frames[..., None], 0)


def _masked(
    size: int, lengths: Tensor, most: int, width: int, dice: Dice, counts: Tensor | None = None
) -> Tensor:
    """(batch, size) bool: `most` masks, or of those as many as `counts` says, within `lengths`."""
    widths = dice.uniform(0, width + 1, most).floor().minimum(lengths[:, None])
    first = (dice.uniform(0, 1, most) * (lengths[:, None] - widths + 1).clamp_min(1)).floor()
    if counts is not None:
        widths = widths.masked_fill(torch.arange(most, device=widths.device) >= counts[:, None], 0)
    places = torch.arange(size, device=widths.device)
    inside = (places >= first[..., None]) & (places < (first + widths)[..., None])
    return inside.any(1)
