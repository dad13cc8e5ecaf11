from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.neighbours import distance as distance_by_definition
from typer.testing import CliRunner

from asr import cli, paths
from asr.contexts import Contexts, Rival
from asr.decoder.ngram import NgramModel
from asr.lexicon import read_entries
from asr.lint import Finding, check
from asr.neighbours import Sorted, confusion_costs, find_neighbours
from asr.phones import PhoneSet

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")
COSTS = confusion_costs(PHONES)


def lint(folder: Path, *lines: str) -> list[Finding]:
    (folder / "mine.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return check([folder / "mine.txt"])


def messages(findings: Sequence[Finding], word: str) -> list[str]:
    return [finding.message for finding in findings if finding.word == word]


# Neighbours.


def packed(pronunciations: Sequence[Sequence[int]]) -> Sorted:
    offsets = np.cumsum([0, *map(len, pronunciations)])
    return Sorted.of(np.array([t for p in pronunciations for t in p], np.int16), offsets)


few = st.lists(st.integers(1, 4), min_size=1, max_size=5)  # four phones, so that many share a beginning


@settings(deadline=None)  # the first call compiles the kernels
@given(few, st.lists(few, min_size=1, max_size=30), st.floats(0.0, 12.0), st.integers(0, 40))
def test_neighbours_are_those_of_the_definition(
    query: list[int], pronunciations: list[list[int]], bound: float, shift: int
):
    query = [t + shift for t in query]
    among = sorted([t + shift for t in p] for p in pronunciations)
    expected = {
        i: d
        for i, p in enumerate(among)
        if (d := distance_by_definition(p, query, COSTS.substitution, COSTS.gap)) <= bound
    }
    edge = [
        i
        for i, p in enumerate(among)
        if abs(distance_by_definition(p, query, COSTS.substitution, COSTS.gap) - bound) < 1e-4
    ]
    numbers, distances = find_neighbours(np.array(query), packed(among), COSTS, bound)
    found = dict(zip(numbers.tolist(), distances.tolist(), strict=True))
    assert found.keys() - set(edge) == expected.keys() - set(edge)
    assert all(found[i] == pytest.approx(expected[i], abs=1e-4) for i in found.keys() & expected.keys())


def test_sounds_that_are_alike_cost_less():
    cost = {
        (a, b): COSTS.substitution[PHONES.ids[a], PHONES.ids[b]]
        for a, b in [("s", "z"), ("p", "b"), ("ɪ", "ə"), ("s", "m"), ("p", "iː"), ("ɪ", "aʊ"), ("z", "s")]
    }
    assert cost["s", "z"] == cost["z", "s"] < cost["s", "m"] and cost["p", "b"] < cost["p", "iː"]
    assert cost["ɪ", "ə"] < cost["ɪ", "aʊ"]
    assert (
        np.array_equal(COSTS.substitution, COSTS.substitution.T) and not COSTS.substitution.diagonal().any()
    )


# Contexts.

ARPA = """\\data\\
ngram 1=8
ngram 2=6

\\1-grams:
-9	<unk>
0	<s>	-0.5
-1.0	</s>
-0.6	the	-0.4
-0.9	a	-0.2
-1.1	dear	-0.3
-0.8	deer	0
-1.5	doctor	-0.1

\\2-grams:
-0.3	<s> dear
-0.2	the deer
-1.4	the dear
-0.9	a deer
-0.4	dear doctor
-0.5	deer </s>

\\end\\
"""


@pytest.mark.parametrize(("boost", "distance"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (3.0, 0.5), (-3.0, 0.2)])
@pytest.mark.parametrize("said", ["deer", "dear", "doctor"])
def test_losses_are_those_of_every_history(tmp_path: Path, said: str, boost: float, distance: float):
    (tmp_path / "lm.arpa").write_text(ARPA, encoding="utf-8")
    lm = NgramModel.read(tmp_path / "lm.arpa")
    weight, word = 0.8, lm.ids()[said]
    mine, theirs = Rival(lm_id=0, score=boost - 2.5), Rival(lm_id=word, score=-0.5)
    lost = total = 0.0
    stays = set()
    for history, name in enumerate(lm.words):
        # Sentences begin as often as they end.
        probability = math.exp(lm.log_prob[lm.end if name == "<s>" else history])
        use = probability * math.exp(lm.scores_after(np.array([history]), word)[0])
        new = mine.score + weight * (lm.scores_after(np.array([history]), 0)[0] - lm.log_prob[0])
        lead = new - theirs.score - weight * lm.scores_after(np.array([history]), word)[0]
        share = float(lead > 0) if distance == 0 else min(1.0, math.exp(lead - distance))
        lost += use * share
        total += use
        if share < 0.1:
            stays.add(name)
    found = Contexts(lm, weight).loss(theirs, mine, distance)
    assert found.share == pytest.approx(lost / total, abs=1e-5)
    assert set(found.safe) <= stays
    dropped = Contexts(lm, weight).loss(theirs, mine, distance, drop=boost)
    plain = Contexts(lm, weight).loss(theirs, Rival(lm_id=0, score=-2.5), distance)
    assert dropped == plain


# Findings.


def test_a_clean_file_has_none(tmp_path: Path):
    assert lint(tmp_path, "# mine", "kestrovan", "zolvaniq\tz ɑː l v ə n ɪ k\tlike=aspirin", "") == []


def test_lines_that_are_wrong_are_errors(tmp_path: Path):
    findings = lint(tmp_path, "good\tz ɑː l v ə n ɪ k", "bad\tx x", "worse\tb\tweight=7", "你好", "\tb")
    errors = [(f.where.rpartition(":")[2], f.word, f.message) for f in findings if f.error]
    assert errors[0][:2] == ("2", "bad") and errors[0][2].startswith("unknown phone 'x'; the nearest valid")
    assert errors[1] == ("3", "worse", "weight= must be above 0 and at most 1, not 7")
    assert errors[2] == ("4", "你好", "cannot be guessed from its spelling: write its sounds")
    assert errors[3][0] == "5" and errors[3][2].startswith("no word before the TAB")
    assert len(errors) == len(findings) == 4


def test_what_shows_in_an_entry_alone(tmp_path: Path):
    findings = lint(
        tmp_path,
        "oyb\tɔɪ",
        "kbps",
        "KBPS",
        "zolvaniq\tz ɑː l v ə n ɪ k\tlike=kestrovan",
        "kestrovan\tk ɛ s t ɹ oʊ v æ n\tboost=5",
        "zolvanix\tz ɑː l v ə n ɪ k s\tboost=-9",
        "and\tæ n d",
        "and\tæ n d\tboost=0.5",
        "coffee\tk ɔ f i",  # is in the base too, but less expected there than a word that is added
    )
    assert messages(findings, "oyb")[0].startswith("only one sound, found inside other words")
    assert messages(findings, "kbps")[0].startswith("spelt letter by letter, k eɪ b iː p iː ɛ s: if it is")
    assert not any("spelt" in message for message in messages(findings, "KBPS"))
    assert messages(findings, "zolvaniq") == [
        "like=kestrovan has no effect, the language model does not know it: take a common word"
    ]
    assert messages(findings, "kestrovan")[0].startswith("boost=5 makes it 148 times as likely")
    assert messages(findings, "zolvanix") == [
        "boost=-9 leaves it hardly a chance: try -1 to -3, or remove it"
    ]
    here = f"is at {paths.base_lexicon()}:5 with these sounds: the line changes nothing, remove it"
    assert {here, f"stands at {tmp_path}/mine.txt:7 already with these sounds: remove one of them"} <= set(
        messages(findings, "and")
    )
    assert not any("changes nothing" in message for message in messages(findings, "coffee"))
    assert not any(finding.error for finding in findings)


def test_homophones(tmp_path: Path):
    findings = lint(
        tmp_path, "Thair\tð ɛ ɹ", "Kitschen\tk ɪ tʃ ə n\tboost=3", "Zolva\tz ɑː l v ə", "Zolver\tz ɑː l v ə"
    )
    [rarer] = [m for m in messages(findings, "Thair") if "the same" in m]
    assert "'there'" in rarer and rarer.endswith(
        "written unless the words around tell otherwise: give it a like= that tells"
    )
    [louder] = [m for m in messages(findings, "Kitschen") if "the same" in m]
    assert louder.startswith("sounds the same as 'kitchen' and will be written instead in ")
    assert " of its uses, not after '" in louder and louder.endswith(" would prevent it")
    assert messages(findings, "Zolver") == [
        f"sounds the same as 'Zolva' ({tmp_path}/mine.txt:3): give them different like=, or keep one"
    ]


def advised(message: str) -> float:
    return float(message.split("boost=")[1].split()[0])


@pytest.mark.parametrize(
    ("word", "sounds", "known"), [("Kitschen", "k ɪ tʃ ə n", "kitchen"), ("Kidchen", "k ɪ tʃ ə m", "kitchen")]
)
def test_words_that_would_be_stolen_and_the_advice_against_it(
    tmp_path: Path, word: str, sounds: str, known: str
):
    def thefts(boost: float) -> list[str]:
        findings = lint(tmp_path, f"{word}\t{sounds}\tboost={boost}")
        return [m for m in messages(findings, word) if "written instead" in m and f"{known!r}" in m]

    [message] = thefts(6.0)
    assert thefts(advised(message)) == []
    assert advised(message) < 6.0


def test_near_neighbours_that_would_win(tmp_path: Path):
    [message] = messages(lint(tmp_path, "beoble\tb iː p ə l"), "beoble")
    assert message.startswith("sounds almost like 'people', which may be written instead")
    # What stands where a frequent word stands holds its own.
    assert not any(
        "may be written" in m for m in messages(lint(tmp_path, "beoble\tb iː p ə l\tlike=people"), "beoble")
    )


def test_the_readme_shows_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("lewie\tlike=louis\nrtnt\n", encoding="utf-8")
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    shown = [line.strip() for line in readme.splitlines() if line.startswith("    names.txt:")]
    assert shown == [str(finding) for finding in check(["names.txt"])]


def test_only_frequent_words_are_guarded(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("Kitschen\tk ɪ tʃ ə n\n", encoding="utf-8")
    assert check([tmp_path / "mine.txt"], frequent=100) == [] == check([tmp_path / "mine.txt"], frequent=0)
    assert any("'kitchen'" in str(finding) for finding in check([tmp_path / "mine.txt"]))


def test_files_that_cannot_be_checked(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none\.txt: no such lexicon file"):
        check([tmp_path / "none.txt"])
    (tmp_path / "blob").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match="blob: not a lexicon file: it is not UTF-8 text"):
        check([tmp_path / "blob"])
    with pytest.raises(ValueError, match=r"none\.arpa: no such language model file"):
        check([], lm="none.arpa")


@pytest.mark.slow
def test_a_thousand_words_against_the_whole_base(tmp_path: Path):
    entries = read_entries(paths.base_lexicon(), PHONES)[0][60_000:61_000]
    text = "".join(f"{e.word}x\t{' '.join(e.phones)} s\n" for e in entries)
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    check([tmp_path / "mine.txt"], frequent=1)  # the kernels are compiled
    began = time.process_time()
    assert check([tmp_path / "mine.txt"], frequent=200_000)
    assert time.process_time() - began < 10


def test_check_on_the_command_line(tmp_path: Path):
    path = tmp_path / "mine.txt"

    def run() -> tuple[int, list[str]]:
        result = CliRunner().invoke(cli.app, ["words", "check", "--lexicon", str(path)])
        return result.exit_code, result.stdout.splitlines()

    path.write_text("zolvaniq\tz ɑː l v ə n ɪ k\n", encoding="utf-8")
    assert run() == (0, [])
    path.write_text("oyb\tɔɪ b\n", encoding="utf-8")
    status, [line, *_] = run()
    assert status == 0 and line.startswith(f"{path}:1: oyb: only 2 sounds, found inside other words")
    path.write_text("bad\tx\n", encoding="utf-8")
    status, [line] = run()
    assert status == 1 and line.startswith(f"{path}:1: bad: unknown phone 'x'")
