from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.text import normalize


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello,  WORLD!", "hello world"),
        ("twenty-one e-mails — sent…", "twenty one e mails sent"),
        ("‘Don’t’ said O’Neil", "don't said o'neil"),
        ("Dr. Smith and Mr. OK", "doctor smith and mister okay"),
        ("paid $20 for 5%", "paid twenty dollars for five percent"),
        ("$1,234.5m", "one thousand two hundred and thirty four point five dollars m"),
        ("in 1999, 2024 & 1066", "in nineteen ninety nine twenty twenty four and one thousand and sixty six"),
        ("rooms 1,2,3 of 10,000", "rooms one two three of ten thousand"),
        ("the 1st, 22nd and 3rd", "the first twenty second and third"),
        ("agent 007", "agent zero zero seven"),
        ("mp3 at 3.5x", "mp three at three point five x"),
        ("Cafe\u0301 Zürich", "café zürich"),
        ("日本 #1 <br/>", "日本 one br"),
        (" '' - ' ", ""),
        ("", ""),
    ],
)
def test_normal_form(text: str, normal: str):
    assert normalize(text) == normal


@pytest.mark.parametrize("number", ["9" * 400, "9" * 400 + ".5", "9" * 400 + "th"])
def test_numbers_too_long_to_name_are_read_digit_by_digit(number: str):
    assert normalize(number).split()[:400] == ["nine"] * 400


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("aIr$€5,.0 th'-"))))
def test_normal_form_is_normal(text: str):
    normal = normalize(text)
    assert normalize(normal) == normal
    assert normal == normal.strip() and "  " not in normal
    assert not re.search(r"[0-9A-Z.,$!?\n\t]", normal)
    assert all(word.strip("'") == word for word in normal.split())
