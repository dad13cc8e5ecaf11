from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from asr import cli, paths, words
from asr.decoder.options import for_embedded_model
from asr.edit import edit_lines
from asr.lexicon import Entry, LexiconError, parse_line
from asr.lines import find_base, format_entry
from asr.phones import PhoneSet

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")
Asr = Callable[..., Result]

MINE = """# my words
covfefe\tk ɑː v f eɪ  # as heard

saoirse\ts ɜː ʃ ə
broken\tx x
xochitl
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.txt").write_text(MINE, encoding="utf-8")
    return tmp_path / "mine.txt"


@pytest.fixture
def asr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asr:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.app, ["words", *map(str, arguments)])


def told(result: Result, status: int) -> list[str]:
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.splitlines()
    assert all(line.startswith("asr: ") for line in lines)
    return [line.removeprefix("asr: ") for line in lines]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


# Adding.


def test_a_new_word_goes_to_the_end_and_nothing_else_changes(mine: Path):
    [entry] = words.add("Zolvaniq", ["z ɑː l v ə n ɪ k"], file=mine, like="Coffee", boost=1.5)
    assert mine.read_text(encoding="utf-8") == MINE + "Zolvaniq\tz ɑː l v ə n ɪ k\tlike=coffee\tboost=1.5\n"
    assert entry.where == f"{mine}:7" and words.entries(file=_without(mine, "broken"))[-1].like == "coffee"


def _without(path: Path, word: str) -> Path:
    words.remove(word, file=path)
    return path


def test_another_pronunciation_stands_beside_the_first(mine: Path):
    words.add("saoirse", ["sˈɪɹ.ʃə", "S EH1 R SH AH0"], file=mine, weight=0.5)
    before = MINE.splitlines()
    added = ["saoirse\ts ɪ ɹ ʃ ə\tweight=0.5", "saoirse\ts ɛ ɹ ʃ ə\tweight=0.5"]
    assert lines(mine) == [*before[:4], *added, *before[4:]]


def test_attributes_of_a_word_that_is_there(mine: Path):
    words.add("covfefe", file=mine, like="coffee")
    assert lines(mine)[1] == "covfefe\tk ɑː v f eɪ\tlike=coffee\t# as heard"
    words.add("covfefe", file=mine, boost=2)
    assert lines(mine)[1] == "covfefe\tk ɑː v f eɪ\tlike=coffee\tboost=2\t# as heard"
    words.add("xochitl", file=mine, like="maria")
    assert lines(mine)[5] == "xochitl\t\tlike=maria"
    words.add("coffee", file=mine, boost=1)  # the base lexicon has its sounds
    assert lines(mine)[6:] == ["coffee\tk ɔ f i\tboost=1"]


def test_guesses_say_where_they_come_from(mine: Path):
    words.add("kestrovan", file=mine)
    words.add("Müller", file=mine, language="de")
    words.add("Siobhan", file=mine, sounds_like="shiv awn")
    guessed, german, respelt = lines(mine)[6:]
    assert guessed.startswith("kestrovan\tk ɛ s t ɹ") and guessed.endswith("\t# guessed")
    assert german.startswith("Müller\tm ") and german.endswith("\t# by the rules of de")
    assert respelt == 'Siobhan\tʃ ɪ v ɔː n\t# sounds like "shiv awn"'
    entry = parse_line(german, PHONES)
    assert entry is not None and entry.phones != parse_line(guessed, PHONES).phones  # type: ignore[union-attr]


def test_a_file_that_is_not_there_is_made(tmp_path: Path):
    words.add("Zolvaniq", ["z ɑː l"], file=tmp_path / "new" / "words.txt")
    assert lines(tmp_path / "new" / "words.txt") == ["Zolvaniq\tz ɑː l"]
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "words.txt"]  # no lock is left


def test_the_users_own_file_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "user_lexicon", lambda: tmp_path / "user.txt")
    assert words.entries() == []
    words.add("Zolvaniq", ["z ɑː l"])
    assert [entry.word for entry in words.entries()] == ["Zolvaniq"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bad", "x x"], "unknown phone 'x'; the nearest valid phones are k, "),
        (["bad", "S ER1 SH Q"], "unknown phone 'S'; phones are written in IPA"),
        (
            ["New", "York"],
            "unknown phone 'Y'; phones are written in IPA; if the word is \"New York\", put quotes",
        ),
        (["bad", ""], "the pronunciation '' is empty: write its sounds"),
        (["bad", "s", "ɜː", "ʃ"], 'put quotes around the sounds of a pronunciation: "s ɜː ʃ"'),
        (["bad", "--lang", "klingon"], "espeak-ng has no language 'klingon'; try "),
        (["...", "s"], "'...': a word needs a letter or a digit"),
        (["#1", "w ʌ n"], "'#1': a # at the beginning of a word would make it a comment"),
        (["你好"], "'你好' cannot be guessed from its spelling: write its sounds, or use --sounds-like"),
        (["bad", "--sounds-like", "!!"], "'!!' cannot be guessed: write the sounds of 'bad'"),
        (["saoirse"], "mine.txt:4: 'saoirse' is there already, as s ɜː ʃ ə; give other sounds"),
        (["xochitl"], "mine.txt:6: 'xochitl' is there already, guessed from the spelling; give other"),
        (["saoirse", "s ɜː ʃ ə"], "mine.txt:4: 'saoirse' is there already with these sounds; nothing to add"),
        (
            ["bad", "b", "--like", "covfefe"],
            "like=covfefe: the language model does not know it; take a common",
        ),
        (["bad", "b", "--weight", "2"], "weight= must be above 0 and at most 1, not 2"),
        (["bad", "b", "--boost", "inf"], "boost= must be finite, not inf"),
        (["bad", "b", "--lexicon", "."], f"{os.sep}"),
        (["bad", "b", "--lexicon", "/proc/words.txt"], "/proc: cannot be written into ("),
        (["bad", "b", "--lm", "none.arpa", "--like", "tea"], "none.arpa: no such language model file"),
    ],
)
def test_wrong_additions_are_one_line_and_leave_the_file(
    asr: Asr, mine: Path, arguments: list[str], message: str
):
    [line] = told(asr("add", "--lexicon", "mine.txt", *arguments), 2)
    assert line.startswith(message), line
    assert mine.read_text(encoding="utf-8") == MINE


def test_files_that_cannot_be_written(asr: Asr, mine: Path):
    mine.chmod(0o444)
    for command in (["add", "bad", "b"], ["remove", "saoirse"]):
        [line] = told(asr(*command, "--lexicon", "mine.txt"), 2)
        assert line == f"{mine}: the file is read-only: chmod u+w it, or name another file"
    (mine.parent / "blob").write_bytes(b"\xff\xfe\0")
    [line] = told(asr("add", "bad", "b", "--lexicon", "blob"), 2)
    assert line.endswith("blob: not UTF-8 text: save it as plain text, UTF-8")
    [line] = told(asr("add", "bad", "b", "--lexicon", "mine.txt/words.txt"), 2)
    assert line.endswith("mine.txt: a file; name a folder to write into")


# Removing.


def test_removed_lines_go_and_the_rest_stays(mine: Path):
    [entry] = words.remove("saoirse", file=mine)
    assert (entry.phones, entry.line) == (("s", "ɜː", "ʃ", "ə"), 4)
    assert lines(mine) == [line for line in MINE.splitlines() if not line.startswith("saoirse")]
    words.remove("broken", file=mine)  # a line that cannot be read is removed by its word
    words.remove("xochitl", file=mine)
    assert lines(mine) == MINE.splitlines()[:3]


def test_one_of_several_pronunciations(mine: Path):
    words.add("saoirse", ["s ɪ ɹ ʃ ə"], file=mine)
    words.remove("saoirse", ["s ɜː ʃ ə"], file=mine)
    assert lines(mine)[3] == "saoirse\ts ɪ ɹ ʃ ə"
    with pytest.raises(ValueError, match="'saoirse' has no pronunciation 's ɜː ʃ ə'; asr words show"):
        words.remove("saoirse", ["s ɜː ʃ ə", "s ɪ ɹ ʃ ə"], file=mine)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Saoirse", "mine.txt: 'Saoirse' is not there; did you mean 'saoirse'?"),
        ("sairse", "mine.txt: 'sairse' is not there; did you mean 'saoirse'?"),
        ("window", "mine.txt: 'window' is not there; only words of your own files can be removed"),
    ],
)
def test_a_word_that_is_not_there(asr: Asr, mine: Path, word: str, message: str):
    [line] = told(asr("remove", word, "--lexicon", "mine.txt"), 2)
    assert line == message
    [line] = told(asr("remove", word, "--lexicon", "none.txt"), 2)
    assert line == "none.txt: no such lexicon file"


# Two writers, and files of all kinds.


def test_two_writers_lose_nothing(tmp_path: Path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\n", encoding="utf-8")
    code = (
        "import sys; from asr import words\n"
        "for i in range(50): words.add(f'{sys.argv[2]}{i}', ['b ɑː'], file=sys.argv[1])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("left", "right")]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = [entry.word for entry in words.entries(path)]
    assert sorted(found) == sorted(f"{name}{i}" for name in ("left", "right") for i in range(50))
    for name in ("left", "right"):
        assert [w for w in found if w.startswith(name)] == [f"{name}{i}" for i in range(50)]
    assert lines(path)[0] == "# mine" and list(tmp_path.iterdir()) == [path]


def test_an_edit_that_fails_leaves_the_file(mine: Path):
    def change(lines: list[str]) -> list[str]:
        lines.clear()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        edit_lines(mine, change)
    with pytest.raises(UnicodeEncodeError):
        edit_lines(mine, lambda lines: ["\ud800"])
    assert mine.read_text(encoding="utf-8") == MINE and list(mine.parent.iterdir()) == [mine]


def test_line_ends_mark_mode_and_link_stay(tmp_path: Path):
    (tmp_path / "real.txt").write_bytes("\ufeffa\tb\r\nc\tb".encode())
    (tmp_path / "real.txt").chmod(0o640)
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    words.add("d", ["b"], file=tmp_path / "link.txt")
    assert (tmp_path / "real.txt").read_bytes().decode() == "\ufeffa\tb\r\nc\tb\r\nd\tb\r\n"
    assert (tmp_path / "link.txt").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.txt").stat().st_mode) == 0o640


entries = st.builds(
    lambda word, phones, weight, like, boost: Entry(
        word=word, phones=tuple(phones), weight=weight, like=like, boost=boost
    ),
    st.sampled_from(["saoirse", "New York", "O'Neil", "C#", "été"]),
    st.lists(st.sampled_from(PHONES.phones), max_size=5), st.sampled_from([1.0, 0.5]),
    st.sampled_from(["", "coffee"]), st.sampled_from([0.0, -1.5]),
)  # fmt: skip


@given(entries, st.sampled_from(["", "a remark", 'sounds like "x"']))
def test_what_is_written_is_read(entry: Entry, remark: str):
    assert parse_line(format_entry(entry, PHONES, remark), PHONES) == entry


# Looking up.


def test_show_tells_all(mine: Path):
    words.remove("broken", file=mine)
    words.add("saoirse", ["k ɔ f i"], file=mine, like="coffee")
    shown = words.show("saoirse", files=[mine])
    # The base lexicon has it too.
    assert [entry.where for entry in shown.entries][1:] == [f"{mine}:4", f"{mine}:5"]
    assert shown.homophones == {("s", "ɜː", "ʃ", "ə"): (), ("k", "ɔ", "f", "i"): ("coffee", "coffey")}
    assert shown.lm_word == "coffee" and 1000 < shown.lm_rank < 5000 and -11 < shown.lm_score < -8
    guessed = words.show("xochitl", files=[mine])
    assert guessed.guessed == set(guessed.entries) and guessed.lm_word == ""
    base = words.show("there", files=[])
    assert {"their", "they're"} <= set(base.homophones["ð", "ɛ", "ɹ"]) and base.lm_rank < 100
    with pytest.raises(ValueError, match="'kestrovan' is in no lexicon: add it with: asr words"):
        words.show("kestrovan", files=[mine])
    with pytest.raises(LexiconError, match="unknown phone"):
        mine.write_text("bad\tx\n", encoding="utf-8")
        words.show("bad", files=[mine])


def test_looking_up_in_the_base_finds_what_reading_all_finds():
    found = find_base({"read"}, {("n", "oʊ")}, phones=PHONES)
    assert {e.word for e in found} >= {"read", "no", "know"}
    assert all(e.word == "read" or e.phones == ("n", "oʊ") for e in found)


# Import and export.


def test_class_lists(tmp_path: Path):
    (tmp_path / "names.txt").write_text("Zolvaniq\nNew Kestrovan\n你好\ncoffee\n", encoding="utf-8")
    mine = tmp_path / "mine.txt"
    result = words.import_file(tmp_path / "names.txt", file=mine, like="Smith")
    assert result.format == "plain" and {e.like for e in result.added} == {"smith"}
    assert [e.word for e in words.entries(mine)] == ["Zolvaniq", "New Kestrovan", "coffee"]
    assert all(e.phones for e in result.added)
    assert result.problems == (f"{tmp_path}/names.txt:3: '你好' cannot be guessed from its spelling",)
    again = words.import_file(tmp_path / "names.txt", file=mine, like="Smith")
    assert (len(again.added), again.already) == (0, 3)


def test_what_the_base_has_is_not_imported(tmp_path: Path):
    (tmp_path / "cmu.dict").write_text("coffee K AA1 F IY0\njudge JH AH1 JH\n", encoding="utf-8")
    result = words.import_file(tmp_path / "cmu.dict", file=tmp_path / "mine.txt")
    assert [(e.word, " ".join(e.phones)) for e in result.added] == [("coffee", "k ɑː f i")]
    assert result.already == 1


def test_a_list_tells_which_words_are_expected(tmp_path: Path):
    """Also of those that the base has; a dictionary only tells how they are said."""
    (tmp_path / "list.txt").write_text("coffee\njudge\n", encoding="utf-8")
    result = words.import_file(tmp_path / "list.txt", file=tmp_path / "mine.txt")
    assert {e.word for e in result.added} == {"coffee", "judge"} and result.already == 0


def test_a_word_of_the_base_is_added_as_it_is_said_there(asr: Asr, tmp_path: Path):
    before = asr("show", "latte").stdout.splitlines()
    assert not any("your own" in line for line in before)
    added = asr("add", "latte", "--lexicon", "mine.txt")
    assert added.exit_code == 0
    sounds = before[0].split("\t")[1]
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8").splitlines() == [f"latte\t{sounds}"]
    after = asr("show", "latte", "--lexicon", "mine.txt").stdout.splitlines()
    assert after[-2] == before[-1] and after[-1] == "as a word of your own: at least -10.00"
    # What the model expects more than that stands as it stood, and so does what has its place by like=.
    (tmp_path / "mine.txt").write_text("the\nlatte\tl ɑː t eɪ\tlike=coffee\n", encoding="utf-8")
    for word in ("the", "latte"):
        assert "your own" not in asr("show", word, "--lexicon", "mine.txt").stdout


def test_import_and_export_on_the_command_line(asr: Asr, tmp_path: Path):
    (tmp_path / "in.csv").write_text("word,ipa\nZolvaniq,z ɑː l\nbad,x@\n", encoding="utf-8")
    result = asr("import", "in.csv", "--lexicon", "mine.txt", "--boost", "1")
    assert told(result, 1) == ["in.csv:3: unknown phone '@'; phones are written in IPA"]
    assert result.stdout == "in.csv (csv): 1 pronunciations added, 1 lines left out\n"
    assert told(asr("export", "out.csv", "--lexicon", "mine.txt"), 0) == []
    assert lines(tmp_path / "out.csv") == ["word,pronunciation,weight,like,boost", "Zolvaniq,z ɑː l,,,1"]
    assert asr("export", "-", "--to", "mfa", "--lexicon", "mine.txt").stdout == "Zolvaniq\tz ɑː l\n"
    assert asr("list", "--lexicon", "mine.txt").stdout == "Zolvaniq\tz ɑː l\tboost=1\n"
    for arguments, message in [
        (["export", "out", "--lexicon", "mine.txt"], "say with --to what to write: plain, "),
        (["export", "out", "--to", "doc", "--lexicon", "mine.txt"], "unknown format 'doc': take plain, "),
        (["export", "mine.txt", "--to", "csv", "--lexicon", "mine.txt"], "mine.txt: this is the lexicon"),
        (["import", "none.txt", "--lexicon", "mine.txt"], "none.txt: No such file or directory"),
        (["import", "in.csv", "--from", "doc", "--lexicon", "mine.txt"], "unknown format 'doc': take "),
        (["import", "in.csv", "--like", "qqq", "--lexicon", "mine.txt"], "like=qqq: the language model"),
        (["list", "--lexicon", "none.txt"], "none.txt: no such lexicon file"),
    ]:  # fmt: skip
        [line] = told(asr(*arguments), 2)
        assert line.startswith(message)


def test_words_of_another_script_are_not_spelt_letter_by_letter(asr: Asr, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("OʼNeil\t\nВладимир\t\n", encoding="utf-8")
    for arguments in (["show", "Владимир"], ["export", "-", "--to", "kaldi"]):
        assert told(asr(*arguments, "--lexicon", "mine.txt"), 2) == [
            "mine.txt:2: 'Владимир' cannot be guessed: write its pronunciation"
        ]
    words.remove("Владимир", file=tmp_path / "mine.txt")
    assert words.show("OʼNeil", files=[tmp_path / "mine.txt"]).entries[0].phones == ("oʊ", "n", "iː", "l")


def test_show_on_the_command_line(asr: Asr, mine: Path):
    words.remove("broken", file=mine)
    shown = asr("show", "xochitl", "--lexicon", "mine.txt").stdout.splitlines()
    assert shown[0].endswith("mine.txt:5 (guessed from the spelling)")
    assert shown[1].startswith(
        f"language model: unknown, {for_embedded_model().unknown_word_score:.2f} everywhere; --like WORD"
    )
    shown = asr("show", "there", "--lexicon", "mine.txt").stdout.splitlines()
    assert "sounds the same as their, they're: ð ɛ ɹ" in shown
