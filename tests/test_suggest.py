"""Words that no lexicon has: collected, grouped, spelt, written down to be confirmed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from asr import audio, cli, formats, paths
from asr.decoder import for_embedded_model
from asr.lexicon import read_entries
from asr.phones import PhoneSet
from asr.suggest import Place, Suggestion, _spelled, add_comments, group_alike, marks, suggest
from asr.transcribe import Recognizer
from asr.types import Transcript, Word

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")
EXAMPLES = Path(__file__).parent / "examples"
ZERO_SHOT = EXAMPLES / "zero_shot"
Asr = Callable[..., Result]


@pytest.fixture
def asr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asr:
    monkeypatch.setattr(paths, "user_lexicon", lambda: tmp_path / "user.txt")
    return lambda *arguments: CliRunner().invoke(cli.app, ["words", *map(str, arguments)])


def place(sounds: str, start_s: float = 0.0, path: str = "a.wav", score: float = -1.0) -> Place:
    return Place(path=path, start_s=start_s, end_s=start_s + 0.5, sounds=PHONES.parse(sounds), score=score)


def word(text: str, sounds: str) -> Word:
    return Word(text=text, start_s=1.0, end_s=1.5, phones=PHONES.parse(sounds), score=-0.5)


def test_marks_are_words_written_as_their_phones():
    heard = [word("the", "ð ə"), word("<zɑːlf>", "z ɑː l f"), word("<zɑːlf>", "z ɑː l v")]
    [mark] = marks([Transcript(path="a.wav", text="", duration_s=2.0, words=tuple(heard))])
    assert (mark.path, mark.start_s, mark.end_s, mark.score) == ("a.wav", 1.0, 1.5, -0.5)
    assert mark.sounds == ("z", "ɑː", "l", "f")


def test_marks_that_sound_alike_are_one_word_with_the_middle_first():
    zolvaniq = ["z ɑː l v ə n ɪ k", "z ɑː l f ə n ɪ k", "z ɑː l v ə n ɛ k", "z ɑː l v ə n ɪ k"]
    places = [
        place("k ɛ s t ɹ oʊ v æ n"),
        *(place(said, i) for i, said in enumerate(zolvaniq)),
        place("t ɹ ɪ s p"),
    ]
    groups = group_alike(places, PHONES)
    assert [len(group) for group in groups] == [4, 1, 1]
    assert groups[0][0].sounds == PHONES.parse(zolvaniq[0])
    assert sorted(p.start_s for p in groups[0]) == [0, 1, 2, 3]
    # f for v is near, another consonant in a short word is not.
    assert len(group_alike([place("m ɪ l"), place("f ɪ l")], PHONES)) == 2
    assert group_alike([], PHONES) == []


def test_sounds_that_a_word_has_are_no_new_word():
    groups = [[place("m ɪ l")], [place("b ɪ ɡ ɪ n ə ɹ z")], [place("z ɑː l v ə n ɪ k")]]
    order = {group[0]: i for i, group in enumerate(groups)}
    known, new = _spelled(groups, order, PHONES)
    assert (known.spelling, known.known, known.sounds) == ("beginners", True, groups[1][0].sounds)
    assert new.sounds == groups[2][0].sounds and not new.known and new.spelling.startswith("zolv")


def test_comments_are_to_be_confirmed_and_come_once(tmp_path: Path):
    mine = tmp_path / "mine.txt"
    mine.write_text("norvastin\tn ɔː ɹ v ɪ s t ɪ n\n", encoding="utf-8")
    times = (place("z ɑː l v ə n ɪ k", 12.34, "calls/call.wav"), place("z ɑː l v ə n ɪ k", 1.0, "b.wav"))
    found = [
        Suggestion(spellings=("zolvaniq", "zolvanic"), sounds=times[0].sounds, places=times),
        Suggestion(spellings=("oskerby",), sounds=PHONES.parse("ɑː s k ɚ b i"), places=(place("ɑː", 0.5),)),
        Suggestion(spellings=("norv",), sounds=PHONES.parse("n ɔː ɹ v ɪ s t ɪ n"), places=(place("n"),)),
    ]
    written = add_comments(found, mine, PHONES)
    assert written == [
        "# zolvaniq\tz ɑː l v ə n ɪ k   # 2 times, first in call.wav at 12.3 s",
        "# oskerby\tɑː s k ɚ b i   # once, in a.wav at 0.5 s",
    ]
    assert mine.read_text(encoding="utf-8").splitlines()[1:] == written
    assert len(read_entries(mine, PHONES)[0]) == 1  # nothing counts yet
    assert add_comments(found, mine, PHONES) == []
    confirmed = mine.read_text(encoding="utf-8").replace("# zolvaniq", "zolvaniq")
    mine.write_text(confirmed, encoding="utf-8")
    assert [entry.word for entry in read_entries(mine, PHONES)[0]] == ["norvastin", "zolvaniq"]
    assert add_comments(found, mine, PHONES) == []


def test_json_of_a_marked_word_tells_where_what_and_how_clearly():
    recognizer = Recognizer.load(
        user_lexicon=False, device="cpu", options=for_embedded_model(unknown="mark", unknown_score=-1.0)
    )
    clip = ZERO_SHOT / "dravonik-1.opus"
    [transcript] = recognizer.transcribe([clip])
    found = json.loads(formats.as_json([transcript]))[0]["words"]
    [marked] = [w for w in found if w["text"].startswith("<")]
    assert marked["text"] == f"<{''.join(marked['phones'])}>"
    assert 0 < marked["start_s"] < marked["end_s"] < transcript.duration_s
    assert -3 < marked["score"] < 0
    # The score is what the emissions say of these phones, each where it begins.
    assert min(w["score"] for w in found) < max(w["score"] for w in found) < 0
    rows = recognizer.emissions(audio.load(clip)).log_probs
    first, last = (round(marked[key] / 0.03) for key in ("start_s", "end_s"))
    best = [rows[first:last, PHONES.ids[p]].max() for p in marked["phones"]]
    assert marked["score"] <= sum(best) / len(best) + 0.05


@pytest.mark.slow
def test_names_of_several_recordings_become_suggestions(asr: Asr, tmp_path: Path):
    clips = [ZERO_SHOT / f"{name}-{i}.opus" for name in ("mavlotrin", "dravonik") for i in (1, 2)]
    result = asr("suggest", *clips, "--least", 2, "--add")
    assert result.exit_code == 0, result.output
    *rows, last = result.stdout.splitlines()
    found = [row.split("\t") for row in rows]
    assert [row[0] for row in found] == ["2", "2"] and last.startswith("2 new ones written")
    spelt = {spelling for row in found for spelling in row[1].split(", ")}
    assert any(s.startswith("mav") for s in spelt) and any(s.startswith("dra") for s in spelt)
    assert all(f"{name}-{i}.opus" in result.stdout for name in ("mavlotrin", "dravonik") for i in (1, 2))
    lines = (tmp_path / "user.txt").read_text(encoding="utf-8").splitlines()
    again = asr("suggest", *clips, "--least", 2, "--add")
    assert again.stdout.splitlines() == rows and "nothing new" in again.stderr
    assert len(lines) == 2 and all(line.startswith("# ") and "2 times, first in " in line for line in lines)


def test_errors_are_a_line(asr: Asr, tmp_path: Path):
    missing = asr("suggest", tmp_path / "no.wav")
    assert missing.exit_code == 2 and missing.stderr == f"asr: {tmp_path / 'no.wav'}: no such file\n"
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound", encoding="utf-8")
    broken = asr("suggest", bad)
    assert broken.exit_code == 2 and not broken.stdout
    assert "not an audio file" in broken.stderr and broken.stderr.count("\n") == 1
    with pytest.raises(ValueError, match="no such lexicon file"):
        suggest([EXAMPLES / "read-1.opus"], file=tmp_path / "no.txt")
    with pytest.raises(ValueError, match="a folder; name a file"):
        suggest([EXAMPLES / "read-1.opus"], file=tmp_path, add=True)


def test_a_file_that_is_not_there_is_made(tmp_path: Path):
    clip = ZERO_SHOT / "dravonik-1.opus"
    found = suggest([clip], file=tmp_path / "new.txt", add=True)
    assert [s.places[0].path for s in found.suggestions] == [str(clip)] and len(found.added) == 1
    assert (tmp_path / "new.txt").read_text(encoding="utf-8") == found.added[0] + "\n"
