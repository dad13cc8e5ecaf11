from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import paths
from asr.lexicon import Entry, Lexicon, LexiconError, complete, parse_line, read_entries
from asr.phones import PhoneSet

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")


def spell(words: Sequence[str]) -> list[list[tuple[str, ...]]]:
    """A G2P that knows only s and t, and two ways to say what has both."""
    found = []
    for word in words:
        sounds = tuple(c for c in word if c in "st")
        found.append(([sounds, sounds[::-1]] if len(set(sounds)) > 1 else [sounds]) if sounds else [])
    return found


def write(folder: Path, *lines: str) -> Path:
    path = folder / "words.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("saoirse\ts ɜː ʃ ə", Entry(word="saoirse", phones=("s", "ɜː", "ʃ", "ə"))),
        ("saoirse   sˈɜːʃə  # a name", Entry(word="saoirse", phones=("s", "ɜː", "ʃ", "ə"))),
        ("saoirse\ts ɜː weight=0.5", Entry(word="saoirse", phones=("s", "ɜː"), weight=0.5)),
        ("Xochitl", Entry(word="Xochitl", phones=())),
        ("Xochitl\t", Entry(word="Xochitl", phones=())),
        ("covfefe\t  like=Coffee boost=2", Entry(word="covfefe", phones=(), like="coffee", boost=2.0)),
        ("covfefe like=coffee  boost=-2", Entry(word="covfefe", phones=(), like="coffee", boost=-2.0)),
        ("New  York\tn uː", Entry(word="New York", phones=("n", "uː"))),
        ("C#\ts iː", Entry(word="C#", phones=("s", "iː"))),
        ("# saoirse\ts", None),
        ("   ", None),
    ],
)
def test_lines(line: str, entry: Entry | None):
    assert parse_line(line, PHONES) == entry


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("saoirse s ɜː ʃ ə", "write a TAB"),
        ("saoirse s ɜː weight=0.5", "write a TAB"),
        ("\ts ɜː", "no word before the TAB"),
        ("saoirse\ts ʁ", "unknown phone 'ʁ'; the nearest valid phones are .*ɡ"),
        ("saoirse\ts weight=2", "above 0 and at most 1"),
        ("saoirse\ts weight=0", "above 0 and at most 1"),
        ("saoirse\ts weight=nan", "above 0"),
        ("saoirse\ts boost=inf", "finite"),
        ("saoirse\ts boost=much", "wants a number, not 'much'"),
        ("saoirse\ts bost=1", "unknown attribute bost=1; known are weight=, like= and boost="),
        ("saoirse\ts like=", "unknown attribute like="),
    ],
)
def test_bad_lines_say_what_is_wrong(line: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse_line(line, PHONES)


words = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
pronunciations = st.lists(st.sampled_from(PHONES.phones), min_size=1, max_size=8).map(tuple)


@given(words, pronunciations, st.floats(0.01, 1), st.floats(-20, 20))
def test_what_is_written_is_read(word: str, phones: tuple[str, ...], weight: float, boost: float):
    entry = parse_line(f"{word}\t{' '.join(phones)}\tweight={weight} boost={boost}", PHONES)
    assert entry is not None
    assert (entry.phones, entry.weight, entry.boost) == (phones, weight, boost)
    assert entry.word.casefold() == parse_line(word, PHONES).word.casefold()  # type: ignore[union-attr]


def test_each_bad_line_has_its_line_in_the_error(tmp_path: Path):
    path = write(tmp_path, "good\ts", "bad\ts ʁ", "", "worse\ts weight=no", *["w w w"] * 20)
    with pytest.raises(LexiconError) as caught:
        read_entries(path, PHONES)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:2: unknown phone 'ʁ'; the nearest valid phones are ")
    assert lines[1].startswith(f"{path}:4: weight= wants a number")
    assert len(lines) == 11 and lines[-1] == f"{path}: and 12 more bad lines"


def test_a_repeated_line_is_remarked_and_left_out(tmp_path: Path):
    path = write(tmp_path, "saoirse\ts ɜː", "saoirse\ts ə", "saoirse\tsɜː")
    lexicon = Lexicon.read([path], PHONES)
    assert lexicon.pronunciations() == {"saoirse": [("s", "ɜː"), ("s", "ə")]}
    assert lexicon.notes == (f"{path}:3: 'saoirse' stands on line 1 already; line ignored",)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00s", b"RIFF\0\0WAVE", b"caf\xe9\ts"])
def test_what_is_no_text_is_no_lexicon(tmp_path: Path, content: bytes):
    (tmp_path / "blob").write_bytes(content)
    with pytest.raises(LexiconError, match="blob: not a lexicon file: it is not UTF-8 text"):
        read_entries(tmp_path / "blob", PHONES)


def test_editors_of_all_systems_write_lexicons(tmp_path: Path):
    text = "\ufeffa\ts\r\ncafe\u0301\ts t\r\n"
    (tmp_path / "words.txt").write_bytes(text.encode())
    assert Lexicon.read([tmp_path / "words.txt"], PHONES).words() == {"a", "café"}


def test_a_missing_file_is_an_oserror(tmp_path: Path):
    with pytest.raises(OSError, match="none"):
        Lexicon.read([tmp_path / "none"], PHONES)


def test_files_stack_and_g2p_fills_gaps(tmp_path: Path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("stop\ts t\nsee\ts\n", encoding="utf-8")
    second.write_text("stop\tt\nStat  boost=1\n", encoding="utf-8")
    lexicon = Lexicon.read([first, second], PHONES, spell)
    assert lexicon.pronunciations() == {
        "stop": [("s", "t"), ("t",)],
        "see": [("s",)],
        "stat": [("t", "t")],
    }
    assert lexicon.entries[-1].where == f"{second}:2" and lexicon.entries[-1].boost == 1.0
    both = lexicon + Lexicon.from_words(["sit"], spell)
    assert both.pronunciations()["sit"] == [("s", "t"), ("t", "s")]
    assert both.entries[-1].where == "--words:1"


@pytest.mark.parametrize(("g2p", "message"), [(None, "'ah' has no pron"), (spell, "'ah' cannot be guessed")])
def test_a_word_without_sounds_is_an_error(g2p, message: str):
    entries = [Entry(word="see", phones=("s",)), Entry(word="ah", phones=(), source="words.txt", line=7)]
    with pytest.raises(LexiconError, match=f"words.txt:7: {message}"):
        complete(entries, g2p)


def test_the_base_lexicon_is_clean():
    lexicon = Lexicon.read([paths.base_lexicon()], PHONES)
    assert not lexicon.notes and len(lexicon.entries) > 100_000
    pronunciations = lexicon.pronunciations()
    assert pronunciations["speech"] == [("s", "p", "iː", "tʃ")]
    assert ("ɹ", "ɛ", "d") in pronunciations["read"] and ("ɹ", "iː", "d") in pronunciations["read"]
