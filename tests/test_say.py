from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.say import say


def test_speech_is_written_and_its_length_told(tmp_path: Path):
    seconds = say("good morning to you", tmp_path / "a.wav")
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert seconds == pytest.approx(len(samples) / rate) and 0.7 < seconds < 3
    assert np.abs(samples).max() > 0.1
    assert say("good morning to you", tmp_path / "fast.flac", words_per_minute=300) < 0.8 * seconds


def test_a_voice_of_another_language_speaks_otherwise(tmp_path: Path):
    sounds = []
    for voice in ("en-us", "de"):
        say("computer", tmp_path / "a.wav", voice)
        sounds.append(soundfile.read(tmp_path / "a.wav")[0].tobytes())
    assert sounds[0] != sounds[1]


@pytest.mark.parametrize(
    ("text", "name", "voice", "message"),
    [
        (" ", "a.wav", "en-us", "nothing to say"),
        ("hello", "a.wav", "nobody", "no voice 'nobody'; try en-us"),
        ("hello", "a.xyz", "en-us", r"a\.xyz: cannot be written .*\.wav"),
        ("...", "a.wav", "en-us", r"nothing to say: '\.\.\.' has no words"),
        ("hello", "none/a.wav", "en-us", "a.wav: cannot be written: there is no folder .*none$"),
    ],
)
def test_what_cannot_be_said(tmp_path: Path, text: str, name: str, voice: str, message: str):
    with pytest.raises(ValueError, match=message):
        say(text, tmp_path / name, voice)
