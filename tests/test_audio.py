from __future__ import annotations

import io
import logging
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import audio
from asr.audio import SAMPLE_RATE, AudioError, cut, find, load


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE))
    return (level * samples).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_16_khz(tmp_path: Path, rate: int):
    soundfile.write(tmp_path / "a.wav", tone(1.0, rate), rate, subtype="FLOAT")
    heard = load(tmp_path / "a.wav")
    assert heard.dtype == np.float32 and len(heard) == SAMPLE_RATE
    assert np.abs(heard - tone(1.0))[800:-800].max() < 0.01
    assert audio.duration(tmp_path / "a.wav") == pytest.approx(1.0)


def test_channels_are_averaged(tmp_path: Path):
    left, right = tone(0.5), noise(0.5, 0.1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), SAMPLE_RATE, subtype="FLOAT")
    assert np.allclose(load(tmp_path / "a.wav"), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_U8", 0.01),
        ("a.flac", "PCM_24", 1e-5),
        ("a.mp3", None, 0.02),
        ("a.ogg", "VORBIS", 0.05),
        ("wav without suffix", "PCM_16", 1e-4),
    ],
)
def test_formats(tmp_path: Path, name: str, subtype: str | None, tolerance: float):
    kind = "WAV" if "." not in name else None
    soundfile.write(tmp_path / name, tone(1.0), SAMPLE_RATE, subtype=subtype, format=kind)
    heard = load(tmp_path / name)
    assert abs(len(heard) - SAMPLE_RATE) < 0.1 * SAMPLE_RATE
    spectrum = np.abs(np.fft.rfft(heard[4000:12000]))
    assert spectrum.argmax() * 2 == 440
    assert np.abs(np.sort(np.abs(heard[4000:12000]))[-1] - 0.3) < tolerance


def test_stdin(monkeypatch: pytest.MonkeyPatch):
    stream = io.BytesIO()
    soundfile.write(stream, tone(0.5), SAMPLE_RATE, format="FLAC")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(stream.getvalue())))
    assert np.allclose(load("-"), tone(0.5), atol=1e-4)
    with pytest.raises(AudioError, match="stdin: no audio arrived"):
        load("-")


def bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.wav"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("This is a shopping list.\n" * 50, encoding="utf-8")
    elif kind == "header":
        soundfile.write(path, np.zeros(0, np.float32), SAMPLE_RATE)
    elif kind == "nan":
        soundfile.write(path, np.full(1600, np.nan, np.float32), SAMPLE_RATE, subtype="FLOAT")
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut":
        soundfile.write(path, tone(0.1), SAMPLE_RATE)
        path.write_bytes(path.read_bytes()[:20])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("empty", "the file is empty"),
        ("text", "not an audio file that can be read"),
        ("header", "no audio in it"),
        ("nan", "NaN"),
        ("folder", "is a folder"),
        ("cut", "bad.wav"),
    ],
)
def test_what_gives_no_sound_says_why(tmp_path: Path, kind: str, message: str):
    with pytest.raises(AudioError, match=message) as caught:
        load(bad(tmp_path, kind))
    assert "bad.wav: " in str(caught.value) and "\n" not in str(caught.value)
    assert audio.duration(tmp_path / "bad.wav") == (0.1 if kind == "nan" else 0)


@pytest.mark.parametrize("name", ["a.flac", "a.wav", "a.mp3"])
def test_what_comes_before_a_break_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str):
    whole = tone(20.0) + noise(20.0, 0.02)
    soundfile.write(tmp_path / name, whole, SAMPLE_RATE)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING, "asr"):
        heard = load(tmp_path / name)
    assert 8 * SAMPLE_RATE < len(heard) < 11 * SAMPLE_RATE
    assert abs(np.abs(heard[:SAMPLE_RATE]).max() - np.abs(whole[:SAMPLE_RATE]).max()) < 0.05
    assert f"{name}: the file is damaged; only its first " in caplog.text


@pytest.mark.parametrize("promised", [0, 0x7FFFF024, 0xFFFFFFFF])
def test_a_wav_file_from_a_pipe_is_not_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, promised: int
):
    """Its header was written before its length was known."""
    soundfile.write(tmp_path / "a.wav", tone(1.0), SAMPLE_RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = promised.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert len(load(tmp_path / "a.wav")) == len(load("-")) == SAMPLE_RATE
    assert not caplog.text


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.wav",
        "sub/a.MP3",
        "sub/.hidden.wav",
        ".git/c.wav",
        "notes.txt",
        "empty/x.txt",
        "[1].wav",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert find(["."]) == (["./[1].wav", "./b.wav", "./sub/a.MP3"], [])
    assert find(["sub", "b.wav", "sub/a.MP3", "-"]) == (["sub/a.MP3", "b.wav", "-"], [])
    assert find(["*.wav", "**/*.MP3"]) == (["[1].wav", "b.wav", "sub/a.MP3"], [])
    assert find(["[1].wav", "notes.txt"]) == (["[1].wav", "notes.txt"], [])  # named is meant
    files, errors = find(["none.wav", "empty", "b.wav"])
    assert files == ["b.wav"]
    assert errors == ["none.wav: no such file", "empty: no audio files in this folder"]


def test_silence_has_no_segments():
    assert cut(np.zeros(600 * SAMPLE_RATE, np.float32)) == []
    assert cut(np.full(SAMPLE_RATE, 0.5, np.float32)) == []  # an offset is no sound
    assert cut(np.zeros(0, np.float32)) == []
    assert cut(noise(30, 1e-5)) == []


def test_a_short_recording_stays_whole():
    waveform = np.concatenate([np.zeros(5 * SAMPLE_RATE, np.float32), tone(2.0)])
    assert [(s.start, s.end) for s in cut(waveform)] == [(0, len(waveform))]


def test_long_silence_is_left_out_and_cuts_fall_into_pauses():
    # Speech of 7 s with pauses of half a second, five minutes of nothing, and 7 s again.
    phrase = np.concatenate([tone(7.0), noise(0.5, 1e-3)])
    waveform = np.concatenate([phrase] * 4 + [noise(300, 1e-3)] + [phrase] * 4)
    segments = cut(waveform)
    assert sum(map(len, segments)) / SAMPLE_RATE == pytest.approx(60, abs=3)
    pauses = [(7.5 * i - 0.5, 7.5 * i) for i in range(1, 5)] + [(30 - 0.5, 330.5)]
    pauses += [(330 + a, 330 + b) for a, b in pauses[:4]]
    for segment in segments:
        for edge in (segment.start, segment.end):
            assert edge == 0 or any(a <= edge / SAMPLE_RATE <= b for a, b in pauses), edge / SAMPLE_RATE


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1e-3, 0.1, 0.5]), st.floats(0.01, 40)), min_size=1, max_size=5),
    st.sampled_from([5.0, 20.0]),
)
def test_segments_are_in_order_short_and_hold_all_that_is_loud(
    parts: list[tuple[float, float]], longest_s: float
):
    waveform = np.concatenate([noise(seconds, level) for level, seconds in parts])
    segments = cut(waveform, longest_s)
    assert all(0 < len(s) <= longest_s * SAMPLE_RATE for s in segments)
    assert all(a.end <= b.start for a, b in pairwise(segments))
    assert not segments or (segments[0].start >= 0 and segments[-1].end <= len(waveform))
    covered = np.zeros(len(waveform), bool)
    for segment in segments:
        covered[segment.start : segment.end] = True
    at = 0
    for level, seconds in parts:
        samples = int(seconds * SAMPLE_RATE)
        if level == max(level for level, _ in parts) and level >= 0.1:
            assert covered[at : at + samples].all()
        at += samples
