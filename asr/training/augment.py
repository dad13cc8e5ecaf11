"""Rooms and noises: what a recording would have been elsewhere."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

SAMPLE_RATE = 16_000
MEASURED_ROOMS = 0.2  # share of the rooms, where there are any
SNR_DB = (5.0, 30.0)
GAIN_DB = (-12.0, 6.0)
# Of simulated rooms: how long until the tail is 60 dB weaker, how long until the first wall is heard, and how
# much louder than the tail the direct sound is.
DECAY_S = (0.1, 0.6)
FIRST_WALL_S = (0.001, 0.008)
DIRECT_DB = (0.0, 15.0)
_ROOM_PROBABILITY = 0.6
_COLOURED_NOISE_PROBABILITY = 0.3


def add_room_and_noise(waveform: np.ndarray, folder: Path, rng: np.random.Generator) -> np.ndarray:
    """Float32 waveform (samples,) at 16 kHz -> the same length in a room, with a noise, at another level.

    `folder` holds noise.tsv (path, duration, kind, licence): recorded noises and room impulse responses. Most
    rooms are simulated (decaying noise after the direct sound), some noises are (1/f^a), so that none is
    learnt by heart.
    """
    noises, rooms = noises_and_rooms(folder)
    if rng.random() < _ROOM_PROBABILITY:
        real = rooms and rng.random() < MEASURED_ROOMS
        room = rooms[rng.integers(len(rooms))] if real else simulated_room(rng)
        waveform = scipy.signal.fftconvolve(waveform, room)[: len(waveform)]
    if not noises or rng.random() < _COLOURED_NOISE_PROBABILITY:
        noise = coloured_noise(len(waveform), rng)
    else:
        source = noises[rng.integers(len(noises))]
        start = rng.integers(len(source))
        noise = np.take(source, np.arange(start, start + len(waveform)), mode="wrap")
    snr = rng.uniform(*SNR_DB)
    powers = [np.square(sound).mean() + 1e-9 for sound in (waveform, noise)]
    mixed = (waveform + np.sqrt(powers[0] / powers[1]) * 10 ** (-snr / 20) * noise) * 10 ** (
        rng.uniform(*GAIN_DB) / 20
    )
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def simulated_room(rng: np.random.Generator) -> np.ndarray:
    """An impulse response: direct sound, then noise that decays (Polack's model)."""
    decay_s = rng.uniform(*DECAY_S)
    time_s = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail[: int(rng.uniform(*FIRST_WALL_S) * SAMPLE_RATE)] = 0
    direct_to_reverberant = 10 ** (rng.uniform(*DIRECT_DB) / 10)
    tail *= np.sqrt(1 / (direct_to_reverberant * np.square(tail).sum() + 1e-9))
    tail[0] = 1.0
    return tail.astype(np.float32)


def coloured_noise(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with a power spectrum of 1/f^a, a from 0 (white) to 2 (brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    frequency = np.maximum(np.arange(len(spectrum)), 1 + num_samples // 400)
    return np.fft.irfft(spectrum / frequency ** (rng.uniform(0, 2) / 2), num_samples)


@functools.lru_cache(maxsize=2)
def noises_and_rooms(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The recorded noises and the impulse responses, from their direct sound on, that `folder` holds. Raises
    ValueError for a folder or a recording that cannot be read."""
    noises: list[np.ndarray] = []
    rooms: list[np.ndarray] = []
    table = folder / "noise.tsv"
    if not table.is_file():
        raise ValueError(f"{table}: not there: name a folder with a table of path and kind (noise or room)")
    with table.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file, delimiter="\t"), 2):
            try:
                sound, rate = soundfile.read(folder / row["path"], dtype="float32", always_2d=True)
                is_noise = row["kind"] == "noise"
            except (KeyError, OSError, soundfile.SoundFileError) as error:
                raise ValueError(f"{table}:{line}: wants path and kind of a recording ({error})") from None
            sound = sound[:, 0]
            if rate != SAMPLE_RATE:
                sound = scipy.signal.resample_poly(sound, SAMPLE_RATE, rate)
            if is_noise:
                noises.append(sound)
                continue
            sound = sound[int(np.abs(sound).argmax()) :][: SAMPLE_RATE // 2]
            rooms.append((sound / np.sqrt(np.square(sound).sum())).astype(np.float32))
    return noises, rooms
