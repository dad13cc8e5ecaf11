"""Rooms and noises as strong as they are meant to be."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.training.augment import SAMPLE_RATE, add_room_and_noise, coloured_noise, simulated_room


def test_a_simulated_room_begins_with_the_direct_sound_and_decays() -> None:
    for seed in range(10):
        room = simulated_room(np.random.default_rng(seed))
        assert room[0] == 1 and abs(room[1]) == 0
        assert 0.1 * SAMPLE_RATE <= len(room) <= 0.6 * SAMPLE_RATE
        third = len(room) // 3
        assert np.square(room[-third:]).sum() < 0.05 * np.square(room[1:]).sum()


def test_coloured_noise_falls_with_frequency() -> None:
    slopes = []
    for seed in range(12):
        power = np.abs(np.fft.rfft(coloured_noise(1 << 14, np.random.default_rng(seed)))) ** 2
        low, high = power[100:400].mean(), power[4_000:].mean()
        slopes.append(np.log10(low / high))
    assert min(slopes) > -0.2 and max(slopes) > 2


@pytest.fixture
def library(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "hum.wav", rng.normal(0, 0.05, 8_000), 8_000)
    soundfile.write(tmp_path / "room.wav", np.exp(-np.arange(4_000) / 400) * rng.normal(0, 1, 4_000), 16_000)
    rows = ["path\tduration\tkind\tlicence", "hum.wav\t1\tnoise\tCC0", "room.wav\t0.25\troom\tCC0"]
    (tmp_path / "noise.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_what_comes_out_is_as_long_and_loud_as_allowed(library: Path) -> None:
    speech = 0.1 * np.sin(2 * np.pi * 200 * np.arange(20_000) / SAMPLE_RATE).astype(np.float32)
    for seed in range(20):
        found = add_room_and_noise(speech, library, np.random.default_rng(seed))
        assert found.dtype == np.float32 and len(found) == len(speech)
        assert np.abs(found).max() <= 1
        # What is not the tone is at least 5 dB below, and there.
        spectrum = np.abs(np.fft.rfft(found)) ** 2
        tone = spectrum[240:261].sum()
        assert 0 < (spectrum.sum() - tone) / tone < 10**-0.3


def test_the_noise_is_as_strong_as_asked(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.training.augment._ROOM_PROBABILITY", 0.0)
    rng = np.random.default_rng(3)
    speech = rng.normal(0, 0.1, 60_000).astype(np.float32)
    found = []
    for seed in range(60):
        mixed = add_room_and_noise(speech, library, np.random.default_rng(seed)).astype(np.float64)
        level = (mixed @ speech) / (speech @ speech)  # the share of the mixture that is the speech
        noise = mixed - level * speech
        found.append(10 * np.log10(level**2 * (speech @ speech) / (noise @ noise)))
    assert min(found) > 5 - 0.5 and max(found) < 30 + 0.5
    assert np.mean(found) == pytest.approx(17.5, abs=3) and np.std(found) == pytest.approx(7.2, abs=1.5)


def test_the_same_seed_gives_the_same_room(library: Path) -> None:
    speech = np.random.default_rng(1).normal(0, 0.1, 5_000).astype(np.float32)
    first, second = (add_room_and_noise(speech, library, np.random.default_rng(7)) for _ in range(2))
    assert (first == second).all()
