from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from asr import audio, cli
from asr.audio import SAMPLE_RATE
from asr.metrics import align, count_errors
from asr.transcribe import Recognizer

Asr = Callable[..., Result]
EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture
def asr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asr:
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(cli.app, [str(a) for a in arguments], input=stdin)

    return run


@pytest.fixture
def warm(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recognizer of all tests in place of one loaded anew for each command."""
    monkeypatch.setattr(Recognizer, "load", lambda **options: recognizer)


def told(result: Result, status: int) -> list[str]:
    """The lines on stderr, each of the command's own; nothing else may have gone wrong."""
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.splitlines()
    assert all(line.startswith("asr: ") for line in lines), lines
    return [line.removeprefix("asr: ") for line in lines]


def differences(a: str, b: str) -> int:
    return count_errors(align(a.split(), b.split())).errors


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    return audio.load(EXAMPLES / "read-1.opus")


@pytest.fixture(scope="session")
def text(recognizer: Recognizer) -> str:
    return recognizer.transcribe([EXAMPLES / "read-1.opus"])[0].text


# What can go wrong before anything is heard.


def test_help_comes_at_once():
    times = []
    for _ in range(3):
        # Processor time: what else runs on the machine does not count.
        before = os.times()
        shown = subprocess.run([sys.executable, "-m", "asr", "--help"], capture_output=True, check=True)
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert b"transcribe" in shown.stdout and b"evaluate" in shown.stdout
    assert min(times) < 0.5


def test_recordings_that_are_not_there(asr: Asr, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    assert told(asr("transcribe", "none.wav"), 2) == ["none.wav: no such file"]
    assert told(asr("transcribe", "*.flac"), 2) == ["*.flac: no such file"]
    assert told(asr("transcribe", "folder"), 2) == ["folder: no audio files in this folder"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "doc"], "--format doc: take txt or json"),
        (["--device", "tpu"], "unknown device 'tpu': take auto, cpu or cuda"),
        (["--model", "."], ".: no acoustic model here"),
        (["--lexicon", "none.txt"], "none.txt: no such lexicon file"),
        (["--lexicon", "blob.bin"], "blob.bin: not a lexicon file: it is not UTF-8 text"),
        (["--lm", "blob.bin"], "blob.bin: not an ARPA language model"),
        (["--lm", "words.txt"], "words.txt: not an ARPA language model"),
        (["--neural-lm", "."], ".: no neural language model here"),
        (["--lm", "none.arpa"], "none.arpa: no such language model file"),
        (["--words", "fine, ..."], "--words:2: '...' cannot be guessed"),
        (["--output-dir", "words.txt"], "words.txt: a file; name a folder to write into"),
    ],
)
def test_wrong_options_are_one_line(asr: Asr, tmp_path: Path, options: list[str], message: str):
    (tmp_path / "blob.bin").write_bytes(bytes(range(256)))
    (tmp_path / "words.txt").write_text("fine\tf aɪ n\n", encoding="utf-8")
    [line] = told(asr("transcribe", EXAMPLES / "read-1.opus", "--no-user-lexicon", *options), 2)
    assert line.startswith(message)


def test_each_bad_line_of_a_lexicon_is_a_line(asr: Asr, tmp_path: Path):
    (tmp_path / "words.txt").write_text("fine\tf aɪ n\nbad\tx ə\n\nworse\tə weight=7\n", encoding="utf-8")
    lines = told(asr("transcribe", EXAMPLES / "read-1.opus", "--lexicon", "words.txt"), 2)
    assert len(lines) == 2
    assert lines[0].startswith("words.txt:2: unknown phone 'x'; the nearest valid phones are k, ")
    assert lines[1].startswith("words.txt:4: weight= must be above 0")


# What can go wrong with recordings.


@pytest.mark.usefixtures("warm")
def test_a_bad_file_spares_the_others(asr: Asr, tmp_path: Path, text: str):
    (tmp_path / "a-empty.wav").touch()
    shutil.copy(EXAMPLES / "read-1.opus", tmp_path / "b.opus")
    (tmp_path / "c-text.wav").write_text("Dear diary,\n" * 100, encoding="utf-8")
    result = asr("transcribe", ".", "none.wav")
    lines = told(result, 1)
    assert result.stdout == f"./b.opus\t{text}\n"
    assert lines[:2] == ["none.wav: no such file", "a-empty.wav: the file is empty"]
    assert lines[2].startswith("c-text.wav: not an audio file that can be read here") and len(lines) == 3
    assert len(told(asr("transcribe", "a-empty.wav", "c-text.wav"), 2)) == 2
    assert json.loads(asr("transcribe", ".", "--format", "json").stdout)[0]["text"] == text


@pytest.mark.usefixtures("warm")
def test_what_a_broken_file_holds_is_transcribed(asr: Asr, tmp_path: Path, speech: np.ndarray, text: str):
    soundfile.write(tmp_path / "a.flac", np.concatenate([speech, speech]), SAMPLE_RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) * 6 // 10])
    result = asr("transcribe", "a.flac")
    [line] = told(result, 0)
    assert line.startswith("a.flac: the file is damaged; only its first ")
    assert differences(text, " ".join(result.stdout.split()[: len(text.split())])) <= 2


@pytest.mark.usefixtures("warm")
def test_short_and_silent_recordings_have_an_empty_transcript(asr: Asr, tmp_path: Path, speech: np.ndarray):
    soundfile.write(tmp_path / "short.wav", speech[16_000:16_800], SAMPLE_RATE)
    soundfile.write(tmp_path / "silence.flac", np.zeros(600 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    began = time.perf_counter()
    result = asr("transcribe", "silence.flac")
    assert told(result, 0) == [] and result.stdout == "\n"
    assert time.perf_counter() - began < 10
    result = asr("transcribe", "short.wav")
    assert told(result, 0) == [] and len(result.stdout.split()) <= 1


@pytest.mark.usefixtures("warm")
def test_formats_are_heard_alike(asr: Asr, tmp_path: Path, speech: np.ndarray, text: str):
    import soxr

    at_44 = soxr.resample(speech, SAMPLE_RATE, 44_100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([at_44, 0.5 * at_44], 1), 44_100)
    soundfile.write(tmp_path / "a.mp3", speech, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.opus", speech, SAMPLE_RATE, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "phone.wav", soxr.resample(speech, SAMPLE_RATE, 8_000), 8_000)
    result = asr("transcribe", "stereo.wav", "a.mp3", "a.opus", "phone.wav")
    assert told(result, 0) == []
    # A telephone keeps half of the band; the speech in the other half is gone.
    for line, most in zip(result.stdout.splitlines(), (1, 1, 1, 6), strict=True):
        name, _, heard = line.partition("\t")
        assert differences(text, heard) <= most, (name, heard)


# What comes out.


@pytest.mark.usefixtures("warm")
def test_stdin(asr: Asr, text: str):
    result = asr("transcribe", "-", stdin=(EXAMPLES / "read-1.opus").read_bytes())
    assert told(result, 0) == [] and result.stdout == text + "\n"
    assert told(asr("transcribe", "-"), 2) == ["stdin: no audio arrived"]


@pytest.mark.usefixtures("warm")
def test_json_has_words_with_times(asr: Asr, text: str):
    result = asr("transcribe", EXAMPLES / "read-1.opus", "--format", "json")
    [transcript] = json.loads(result.stdout)
    assert transcript["text"] == text == " ".join(w["text"] for w in transcript["words"])
    assert all(
        w["start_s"] < w["end_s"] <= transcript["duration_s"] and w["phones"] for w in transcript["words"]
    )


@pytest.mark.usefixtures("warm")
def test_a_file_for_each_recording_and_none_overwritten(asr: Asr, tmp_path: Path, text: str):
    other = "name-velparo.opus"
    for name, source in (("a/x.opus", "read-1.opus"), ("b/x.opus", other), ("b/x.ogg", "read-1.opus")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / source, tmp_path / name)
    result = asr("transcribe", "a", "../" + tmp_path.name + "/b", "--output-dir", "out/new")
    assert told(result, 0) == [] and result.stdout == ""
    written = {str(p.relative_to("out/new")): p.read_text("utf-8") for p in Path("out/new").rglob("*.*")}
    assert sorted(written) == ["a/x.txt", "b/x-2.txt", "b/x.txt"]
    assert written["a/x.txt"] == written["b/x.txt"] == text + "\n" != written["b/x-2.txt"]
    asr("transcribe", "a", "--output-dir", "flat", "--format", "json")
    [path] = Path("flat").rglob("*.*")
    assert path == Path("flat/x.json") and json.loads(path.read_text("utf-8"))[0]["text"] == text


def test_added_words_and_alternatives(asr: Asr, tmp_path: Path):
    """The whole way: a model loaded for this command, a lexicon that repeats itself, words as option."""
    (tmp_path / "words.txt").write_text("kestrovan\tk ɛ s t ɹ ə v æ n\n" * 2, encoding="utf-8")
    recordings = [EXAMPLES / "name-kestrovan.opus", EXAMPLES / "name-norvastin.opus"]
    result = asr(
        "transcribe", *recordings, "--lexicon", "words.txt", "--words", "Norvastin, Velparo", "--nbest", "3",
        "--no-user-lexicon",
    )  # fmt: skip
    assert told(result, 0) == ["words.txt:2: 'kestrovan' stands on line 1 already; line ignored"]
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    for path, name in zip(recordings, ("kestrovan", "Norvastin"), strict=True):
        scores = [float(score) for p, score, _ in rows if p == str(path)]
        texts = [text for p, _, text in rows if p == str(path)]
        assert len(set(texts)) == 3 and scores == sorted(scores, reverse=True)
        assert name in texts[0]


@pytest.mark.usefixtures("warm")
def test_evaluate(asr: Asr, tmp_path: Path):
    (tmp_path / "names.txt").write_text("Kestrovan\n", encoding="utf-8")
    result = asr(
        "evaluate", EXAMPLES / "examples.tsv", "--limit", "4", "--recall", "names.txt", "--json", "out.json"
    )
    assert told(result, 0) == []
    numbers = json.loads(Path("out.json").read_text("utf-8"))
    assert f"WER    {numbers['wer']:7.2%}" in result.stdout and numbers["utterances"] == 4
    assert "recall   0.00%  (0 of 1, 0 false)" in result.stdout
    assert "kestrovan -> " in result.stdout


@pytest.mark.usefixtures("warm")
def test_evaluate_without_what_it_needs(asr: Asr, tmp_path: Path):
    (tmp_path / "m.tsv").write_text("path\ttext\nnone.wav\thello\n", encoding="utf-8")
    (tmp_path / "untold.tsv").write_text("path\tx\na.wav\thello\n", encoding="utf-8")
    (tmp_path / "blob").write_bytes(b"\xff\xfe")
    assert told(asr("evaluate", "none.tsv"), 2) == ["none.tsv: no such manifest"]
    assert told(asr("evaluate", "m.tsv", "--recall", "blob"), 2) == ["blob: not UTF-8 text"]
    assert told(asr("evaluate", "untold.tsv"), 2)[0].startswith("no recording in the manifest has a text")
    assert told(asr("evaluate", "m.tsv", "--recall", os.devnull), 2) == [f"{os.devnull}: no words in it"]
    assert told(asr("evaluate", "m.tsv", "--json", "blob/out.json"), 2)[0].startswith("blob: a file; name a ")
    none = asr("evaluate", "m.tsv", "--json", "new/out.json")
    assert told(none, 2) == ["none.wav: no such file"] and not none.stdout


def test_say(asr: Asr, tmp_path: Path):
    [line] = asr("say", "hello there", "a.wav").stderr.splitlines()
    assert line == f"a.wav: {soundfile.info(tmp_path / 'a.wav').duration:.1f} s"
    assert told(asr("say", " ", "b.wav"), 2) == ["there is nothing to say: the text is empty"]


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path):
    """As in `asr --help | head -1`, but without a race: nobody ever reads."""
    read, write = os.pipe()
    os.close(read)
    shown = subprocess.run([sys.executable, "-m", "asr", "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert b"Traceback" not in shown.stderr and shown.returncode == 1
