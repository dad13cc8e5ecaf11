from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import paths
from asr.phones import BLANK, PhoneSet, UnknownPhone

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")
sequences = st.lists(st.sampled_from(PHONES.phones)).map(tuple)


def test_line_numbers_are_token_ids(phones: PhoneSet):
    lines = (paths.PRETRAINED / "phones.txt").read_text(encoding="utf-8").splitlines()
    assert list(phones.symbols) == lines and lines[0] == BLANK and len(phones) == len(lines)
    assert phones.encode(phones.phones) == list(range(1, len(phones)))


@given(sequences)
def test_phones_between_spaces_are_themselves(sequence: tuple[str, ...]):
    text = " ".join(sequence)
    assert PHONES.parse(text) == PHONES.adapt(text) == sequence
    assert [PHONES.symbols[i] for i in PHONES.encode(sequence)] == list(sequence)


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("sˈɜːʃə", "s ɜː ʃ ə"),  # stress, no spaces
        ("tʃiːz", "tʃ iː z"),  # the longest symbol first
        ("t͡ʃ ˌiː z", "tʃ iː z"),
        ("ʧ e ʤ", "tʃ eɪ dʒ"),
        ("r e g", "ɹ eɪ ɡ"),
        ("b ʌ t n̩", "b ʌ t ə n"),
        ("", ""),
    ],
)
def test_other_ways_to_write_the_same(phones: PhoneSet, written: str, same: str):
    assert phones.parse(written) == tuple(same.split())


@pytest.mark.parametrize(
    ("symbol", "nearest"),
    [("ʁ", "ɡ"), ("x", "k"), ("y", "i"), ("ɸ", "f"), ("ç", "ʃ"), ("β", "b"), ("ʈ", "t")],
)
def test_an_unknown_phone_comes_with_those_that_sound_alike(phones: PhoneSet, symbol: str, nearest: str):
    with pytest.raises(
        UnknownPhone, match=f"unknown phone '{symbol}'; the nearest .* {nearest}\\b"
    ) as caught:
        phones.parse(f"s ə{symbol} ʃ")
    assert caught.value.symbol == symbol
    assert nearest in caught.value.nearest and set(caught.value.nearest) <= set(phones.phones)
    with pytest.raises(UnknownPhone):
        phones.encode(("s", symbol))


@pytest.mark.parametrize("text", ["K AH0", "<blk>", "s 5"])
def test_what_is_no_ipa_is_told_so(phones: PhoneSet, text: str):
    with pytest.raises(UnknownPhone, match="written in IPA"):
        phones.parse(text)


@pytest.mark.parametrize(
    ("foreign", "adapted"),
    [("x oː x", "k ɔː k"), ("ʁ y", "ɹ uː"), ("ts ã", "t s æ"), ("ɲ", "n j"), ("ʂ", "ʃ"), ("t 5 K", "t")],
)
def test_foreign_sounds_become_near_ones(phones: PhoneSet, foreign: str, adapted: str):
    assert phones.adapt(foreign) == tuple(adapted.split())


def test_an_alias_needs_its_phones_in_the_set():
    small = PhoneSet((BLANK, "a", "s"))
    assert small.parse("a s") == ("a", "s")
    with pytest.raises(UnknownPhone, match="'r'"):  # not silently nothing
        small.parse("a r s")


@pytest.mark.parametrize(
    ("lines", "message"),
    [("a\nb\n", "first token .* must be <blk>"), ("<blk>\na\na\n", "a phone twice"), ("", "first token")],
)
def test_a_bad_inventory_names_its_file(tmp_path: Path, lines: str, message: str):
    (tmp_path / "phones.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"phones\.txt: .*{message}"):
        PhoneSet.read(tmp_path / "phones.txt")
