"""What becomes of the words of a lexicon in recordings with known text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from asr import audio, cli, paths
from asr.manifest import read_manifest
from asr.rank import LM_WEIGHT, rank
from asr.report import Report, _units, propose, report
from asr.spoken import find_span
from asr.transcribe import Recognizer

EXAMPLES = Path(__file__).parent / "examples"
Asr = Callable[..., Result]


@pytest.fixture
def asr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asr:
    monkeypatch.setattr(paths, "user_lexicon", lambda: tmp_path / "user.txt")
    return lambda *arguments: CliRunner().invoke(cli.app, ["words", *map(str, arguments)])


def manifest(folder: Path, *names: str) -> Path:
    """Some lines of those of the examples."""
    lines = (EXAMPLES / "zero_shot.tsv").read_text(encoding="utf-8").splitlines()
    chosen = [line.split("\t") for line in lines[1:] if any(name in line for name in names)]
    rows = ["\t".join([str(EXAMPLES / path), *rest]) for path, *rest in chosen]
    path = folder / "some.tsv"
    path.write_text("\n".join([lines[0], *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two names said twice: one as it is spelt, one with the sounds of something else; and one unsaid."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "mine.txt").write_text(
        "Oskerby\tɑː s k ɚ b i\nDravonik\ts oʊ f iː ɹ ʌ ŋ\nZolvaniq\n", encoding="utf-8"
    )
    return report(read_manifest(manifest(folder, "oskerby", "dravonik")), file=folder / "mine.txt")


def test_words_are_counted_the_worst_first(found: Report):
    dravonik, oskerby = found.words
    assert (dravonik.word, dravonik.said, dravonik.found, dravonik.false) == ("Dravonik", 2, 0, 0)
    assert (oskerby.word, oskerby.said, oskerby.found, oskerby.false) == ("Oskerby", 2, 2, 0)
    assert found.unsaid == ("Zolvaniq",) and (found.said, found.found) == (4, 2)


def test_pronunciations_by_which_words_were_recognised(found: Report):
    dravonik, oskerby = found.words
    assert sum(times for _, times in oskerby.heard_as) == 2 and oskerby.instead == ()
    assert oskerby.heard_as[0][0] == ("ɑː", "s", "k", "ɚ", "b", "i")
    assert dravonik.heard_as == ((("s", "oʊ", "f", "iː", "ɹ", "ʌ", "ŋ"), 0),)
    assert sum(times for _, times in dravonik.instead) == 2
    # What stands there is a piece of the transcript, not its neighbours "tell" and "that".
    assert all(heard and "train" not in heard for heard, _ in dravonik.instead)


def test_a_pronunciation_that_the_recordings_contradict_is_replaced(found: Report, recognizer: Recognizer):
    dravonik, oskerby = found.words
    assert oskerby.proposal is None or oskerby.proposal.gain < 10
    assert dravonik.proposal is not None and dravonik.proposal.better == 2 and dravonik.proposal.gain > 10
    said = dravonik.proposal.sounds
    assert said[0] in ("d", "t") and "v" in said and said[-1] == "k"


def test_nothing_is_proposed_where_the_lexicon_is_right(recognizer: Recognizer):
    phones = recognizer.model.phones
    rows = recognizer.emissions(audio.load(EXAMPLES / "zero_shot" / "dravonik-1.opus")).log_probs
    said = phones.parse("d ɹ æ v ə n ɪ k")
    span = find_span(rows, tuple(phones.encode(said)), free=True)
    assert span is not None
    word = rows[span.frames[0] : span.end]
    assert rank([word], {said: (("lexicon",), 0.0)}, phones)[0].sounds == said
    assert propose([word], [said], recognizer) is None
    wrong = propose([word], [phones.parse("s oʊ f iː ɹ ʌ ŋ")], recognizer)
    assert wrong is not None and wrong.better == 1


def test_a_proposal_pays_for_its_own_phones_alone(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch):
    """By an n-gram in which every phone costs a tenth, those of the lexicon's pronunciation are free."""
    phones = recognizer.model.phones
    word = recognizer.emissions(audio.load(EXAMPLES / "zero_shot" / "dravonik-1.opus")).log_probs[20:50]
    known = phones.parse("s oʊ f iː ɹ")
    monkeypatch.setattr(recognizer.model, "phone_lm", None)
    plain = propose([word], [known], recognizer)
    monkeypatch.setattr(recognizer.model, "phone_lm", np.full((len(phones),) * 3, -0.1, np.float32))
    weighted = propose([word], [known], recognizer)
    assert plain is not None and weighted is not None and plain.sounds == weighted.sounds
    more = len(plain.sounds) - len(known)
    assert weighted.gain == pytest.approx(plain.gain - LM_WEIGHT * 0.1 * more, abs=1e-3)


def test_names_of_several_words_are_one():
    chosen = {"new york": "New York", "york": "York", "a b c": "ABC"}
    assert _units(["in", "new", "york", "a", "b", "york"], chosen) == ["in", "new york", "a", "b", "york"]


def test_the_table_and_the_json_agree(asr: Asr, tmp_path: Path):
    listed = tmp_path / "list.txt"
    listed.write_text("# names\nthe\nhemlorix\n", encoding="utf-8")
    numbers = tmp_path / "report.json"
    result = asr("report", manifest(tmp_path, "hemlorix-1"), "--words", listed, "--json", numbers)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["hemlorix: 0 of 1 found", "    in no lexicon"]
    assert lines[2].startswith("       1 lost to  ")
    told = json.loads(numbers.read_text(encoding="utf-8"))
    assert [(w["word"], w["said"], w["found"]) for w in told["words"]] == [("hemlorix", 1, 0), ("the", 1, 1)]
    the = told["words"][1]
    assert the["heard_as"]["ð ə"] + the["heard_as"]["ð ɪ"] + the["heard_as"]["ð i"] == 1
    assert lines[-1] == "2 words, 1 of 2 found (50%)"
    assert list(told["words"][0]["instead"]) == [lines[2].split("  ")[-1]]


def test_errors_are_a_line(asr: Asr, tmp_path: Path):
    some = manifest(tmp_path, "hemlorix")
    mine = tmp_path / "mine.txt"
    mine.write_text("Zolvaniq\n", encoding="utf-8")
    (tmp_path / "silent.tsv").write_text("path\ttext\na.wav\t\n", encoding="utf-8")
    for arguments, message in (
        ([tmp_path / "no.tsv"], f"{tmp_path / 'no.tsv'}: no such manifest"),
        ([some], f"{tmp_path / 'user.txt'}: no words in it to report on; name others with --words FILE"),
        ([some, "--lexicon", mine], "none of the 1 words is in the texts of the manifest: Zolvaniq"),
        ([some, "--lexicon", tmp_path / "no.txt"], f"{tmp_path / 'no.txt'}: no such lexicon file"),
        ([some, "--words", tmp_path / "no.txt"], f"{tmp_path / 'no.txt'}: No such file or directory"),
        (
            [tmp_path / "silent.tsv", "--lexicon", mine],
            "no recording in the manifest has a text to compare with",
        ),
    ):
        result = asr("report", *arguments)
        assert (result.exit_code, result.stderr) == (2, f"asr: {message}\n")
    (tmp_path / "latin.txt").write_bytes("Zoë".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8 text"):
        report(read_manifest(some), word_list=tmp_path / "latin.txt")
