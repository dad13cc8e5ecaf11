"""Words learnt by saying them, on the command line and in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from asr import audio, cli, paths, words
from asr.audio import SAMPLE_RATE, AudioError
from asr.learn import learn
from asr.model.checkpoint import load_model
from asr.say import say
from asr.transcribe import Recognizer

EXAMPLES = Path(__file__).parent / "examples"
ZERO_SHOT = EXAMPLES / "zero_shot"
Asr = Callable[..., Result]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.txt"


@pytest.fixture
def asr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asr:
    monkeypatch.setattr(paths, "user_lexicon", lambda: tmp_path / "user.txt")
    return lambda *arguments: CliRunner().invoke(cli.app, ["words", *map(str, arguments)])


@pytest.fixture(scope="module")
def siobhan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("said") / "siobhan.wav"
    say("shivorn", path, "en-us+f1")
    return path


def told(result: Result, status: int) -> str:
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    [line] = result.stderr.splitlines()
    return line.removeprefix("asr: ")


def test_a_name_whose_spelling_misleads_is_written_as_it_is_said(siobhan: Path, mine: Path):
    mine.write_text("# mine\n", encoding="utf-8")
    learnt = learn("Siobhanne", [siobhan], file=mine, like="Mary", languages=["de"])
    assert learnt.candidates[0] == learnt.chosen and learnt.chosen.sources == ("heard",)
    # What espeak makes of the spelling is far from what was said.
    guess = next(c for c in learnt.candidates if "de" in c.sources)
    assert guess.score < learnt.chosen.score - 10
    assert learnt.chosen.sounds[0] == "ʃ" and learnt.chosen.sounds[-1] == "n"
    [entry] = words.entries(mine)
    assert learnt.added == (entry,) and (entry.phones, entry.like) == (learnt.chosen.sounds, "mary")


def test_the_command_shows_the_table_and_adds_the_chosen_one(asr: Asr, siobhan: Path, mine: Path):
    dry = asr("learn", "Siobhanne", siobhan, "--lexicon", mine, "--dry-run", "--lang", "de")
    assert dry.exit_code == 0 and not mine.exists()
    rows = [line.split("\t") for line in dry.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(i) for i in range(1, len(rows) + 1)]
    scores = [float(row[1]) for row in rows]
    assert scores[0] == 0 and scores == sorted(scores, reverse=True)
    done = asr(
        "learn", "Siobhanne", siobhan, "--lexicon", mine, "--choose", 2, "--lang", "de", "--boost", 1.5
    )
    assert done.stdout.splitlines() == [*dry.stdout.splitlines(), f"added Siobhanne\t{rows[1][2]}\tboost=1.5"]
    assert mine.read_text(encoding="utf-8") == f"Siobhanne\t{rows[1][2]}\tboost=1.5\n"


def test_a_word_that_has_the_sounds_already(asr: Asr, mine: Path):
    clip = ZERO_SHOT / "dravonik-1.opus"
    first = asr("learn", "dravonik", clip, "--in-sentence", "--lexicon", mine)
    assert first.exit_code == 0 and "added dravonik\t" in first.stdout
    before = mine.read_text(encoding="utf-8")
    again = asr("learn", "dravonik", clip, "--in-sentence", "--lexicon", mine)
    assert told(again, 0) == f"{mine}:1: 'dravonik' has these sounds already; nothing to add"
    assert mine.read_text(encoding="utf-8") == before
    assert "lexicon" in again.stdout.splitlines()[0]


def test_what_one_recording_taught_is_heard_in_another(mine: Path):
    for name in ("trispadol", "drisconel"):
        learnt = learn(name, [ZERO_SHOT / f"{name}-1.opus"], file=mine, in_sentence=True)
        assert learnt.added
    recognizer = Recognizer.load(lexicon=[mine], user_lexicon=False, device="cpu")
    for name in ("trispadol", "drisconel"):
        [transcript] = recognizer.transcribe([ZERO_SHOT / f"{name}-2.opus"])
        assert name in transcript.text.split()


def silence(path: Path) -> Path:
    soundfile.write(path, np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    return path


def test_errors_are_a_line(asr: Asr, siobhan: Path, mine: Path, tmp_path: Path):
    quiet, long = silence(tmp_path / "quiet.wav"), EXAMPLES / "read-1.opus"
    said = told(asr("learn", "x", tmp_path / "no.wav"), 2)
    assert said == f"{tmp_path / 'no.wav'}: no such file"
    assert told(asr("learn", "x", quiet), 2) == f"{quiet}: no speech in it"
    assert told(asr("learn", "x", long), 2).endswith(
        "of speech, more than a word takes: record the word alone, or use --in-sentence"
    )
    assert "espeak-ng has no language 'xx'" in told(asr("learn", "x", siobhan, "--lang", "xx"), 2)
    assert "none is number 999" in told(asr("learn", "x", siobhan, "--choose", 999), 2)
    assert "like=zzyzx" in told(asr("learn", "x", siobhan, "--like", "zzyzx"), 2)
    assert "needs a letter" in told(asr("learn", "?!", siobhan), 2)
    assert "cannot be guessed" in told(asr("learn", "東京", siobhan, "--in-sentence"), 2)
    assert not mine.exists()


def test_errors_of_the_library(siobhan: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="at least one recording"):
        learn("x", [])
    with pytest.raises(AudioError, match="no such file"):
        learn("x", [tmp_path / "no.wav"])
    hour = tmp_path / "long.wav"
    soundfile.write(hour, np.tile(audio.load(siobhan), 60), SAMPLE_RATE)
    with pytest.raises(ValueError, match=r"long.wav: \d+ s long; a recording of a word may take 30 s"):
        learn("x", [hour])
    scrap = tmp_path / "scrap.wav"
    soundfile.write(scrap, audio.load(siobhan)[2000:3600], SAMPLE_RATE)
    with pytest.raises(ValueError, match=r"scrap\.wav: 0\.\d+ s of speech, less than a word"):
        learn("Siobhanne", [scrap], dry_run=True)
    with pytest.raises(ValueError, match="too short for the word"):
        learn("supercalifragilisticexpialidocious" * 3, [siobhan], in_sentence=True)


def test_scripts_that_are_not_guessed_are_heard(siobhan: Path, mine: Path):
    learnt = learn("東京", [siobhan], file=mine, languages=["en-us"])
    assert all(c.sources == ("heard",) for c in learnt.candidates) and words.entries(mine)[0].word == "東京"


def test_the_model_is_the_embedded_one_unless_another_is_named(siobhan: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="no acoustic model here"):
        learn("x", [siobhan], model=tmp_path)
    assert load_model().phones == words.embedded_phones()
