"""Text normalisation, in one place for training, language model, lexicon and scoring.

The normal form is lower-case words of letters and apostrophes between single spaces. Numbers are
spelled out, hyphens and dashes part words, everything else that is not a letter is dropped.
"""

from __future__ import annotations

import re
import unicodedata

_SYMBOLS = {"%": " percent ", "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees "}
_CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}
_CURRENCY = re.compile(r"([$£€])\s?(\d[\d,]*(?:\.\d+)?)")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th)?\b|\d+")
_YEAR = re.compile(r"1[1-9]\d\d|20[1-9]\d")
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor"}


def normalize(text: str) -> str:
    """The normal form of `text`: what is trained on, looked up and scored.

    >>> normalize("Dr. O’Neil paid $20 for twenty-one e-mails — in 1999!")
    "doctor o'neil paid twenty dollars for twenty one e mails in nineteen ninety nine"
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'").replace("ʼ", "'").lower()
    if any(c.isdigit() for c in text):
        text = _CURRENCY.sub(lambda m: f"{m[2]} {_CURRENCIES[m[1]]}", text)
        text = _NUMBER.sub(lambda m: f" {_spell_number(m[0])} ", text)
    for symbol, spoken in _SYMBOLS.items():
        text = text.replace(symbol, spoken)
    letters = "".join(c if c.isalpha() or c == "'" or unicodedata.category(c) == "Mn" else " " for c in text)
    words = (word.strip("'") for word in letters.split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word)


def _spell_number(number: str) -> str:
    from num2words import num2words

    digits = number.replace(",", "")
    if digits[-1].isalpha():
        return num2words(int(digits[:-2]), to="ordinal") if digits[:-2].isdigit() else digits
    if "." in digits:
        return num2words(float(digits))
    if len(digits) > 1 and digits[0] == "0" or len(digits) > 15:
        return " ".join(num2words(int(d)) for d in digits)
    if _YEAR.fullmatch(number):
        return num2words(int(digits), to="year")
    return num2words(int(digits))
