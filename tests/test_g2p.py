from __future__ import annotations

import pytest

from asr.g2p import phonemize, pronounce
from asr.phones import PhoneSet


def said(word: str, phones: PhoneSet, language: str = "en-us") -> str:
    return " ".join(pronounce([word], phones, language)[0][0])


@pytest.mark.parametrize(
    ("word", "sounds"),
    [
        ("speech", "s p iː tʃ"),
        ("O’Neil", "oʊ n iː l"),
        ("OʼNeil", "oʊ n iː l"),
        ("JSON", "dʒ eɪ s ɑː n"),
        ("e-mail", "iː m eɪ l"),
    ],
)
def test_english_words(phones: PhoneSet, word: str, sounds: str):
    assert said(word, phones) == sounds


def test_capitals_without_a_vowel_are_spelt(phones: PhoneSet):
    assert said("BBC", phones) == "b iː b iː s iː"


def test_other_languages_use_the_phones_of_the_model(phones: PhoneSet):
    german = said("Brücke", phones, "de")
    assert german == "b ɹ ʊ k ə"  # ɾ and ʏ have no place in the inventory
    assert said("perro", phones, "es") == "p eɪ ɹ oʊ"


def test_words_keep_their_places(phones: PhoneSet):
    found = pronounce(["see", "'", "", "tea"], phones)
    assert found[0] == [("s", "iː")] and found[3] == [("t", "iː")]
    assert found[1] == found[2] == []


def test_a_name_of_one_word_is_one_pronunciation_however_long_the_list(phones: PhoneSet):
    words = ["zolvaniq", "new york", "kestrovan"] * 50
    assert pronounce(words, phones)[:3] == [pronounce([word], phones)[0] for word in words[:3]]


def test_unknown_language(phones: PhoneSet):
    with pytest.raises(ValueError, match="no language 'nobody'; try en-us"):
        pronounce(["word"], phones, "nobody")


def test_stress_marks():
    assert phonemize(["banana"], stress=True) == ["b ɐ n ˈæ n ə"]


def test_a_doubled_r_is_one_sound(phones: PhoneSet):
    assert pronounce(["clara"], phones) == [[("k", "l", "ɑː", "ɹ", "ə")]]
    assert pronounce(["marquis"], phones) == [[("m", "ɑː", "ɹ", "k", "iː")]]
