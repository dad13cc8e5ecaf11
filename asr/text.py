"""Text normalisation, in one place for training, language model, lexicon and scoring.

The normal form is lower-case words of letters and apostrophes between single spaces. Numbers are
spelled out, hyphens and dashes part words, everything else that is not a letter is dropped.
"""

from __future__ import annotations

import re
import unicodedata

_SYMBOLS = {"%": " percent ", "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees "}
_CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"  # commas part thousands only: "rooms 1,2"
_CURRENCY = re.compile(rf"([$£€])\s?({_DIGITS})")
_NUMBER = re.compile(rf"{_DIGITS}(?:(?:st|nd|rd|th)\b)?")
_YEAR = re.compile(r"1[1-9]\d\d|20[1-9]\d")
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor"}


def normalize(text: str) -> str:
    """The normal form of `text`: what is trained on, looked up and scored.

    >>> normalize("Dr. O’Neil paid $20 for twenty-one e-mails — in 1999!")
    "doctor o'neil paid twenty dollars for twenty one e mails in nineteen ninety nine"
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'").replace("ʼ", "'").lower()
    if any(c.isdigit() for c in text):
        text = _CURRENCY.sub(lambda m: f"{m[2]} {_CURRENCIES[m[1]]} ", text)
        text = _NUMBER.sub(lambda m: f" {_spell_number(m[0])} ", text)
    for symbol, spoken in _SYMBOLS.items():
        text = text.replace(symbol, spoken)
    letters = "".join(c if c.isalpha() or c == "'" or unicodedata.category(c) == "Mn" else " " for c in text)
    words = (word.strip("'") for word in letters.split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word)


def _spell_number(number: str) -> str:
    from num2words import num2words

    digits = number.replace(",", "")
    ordinal = digits[-1].isalpha()
    digits = digits[:-2] if ordinal else digits
    if len(digits) > 15 or (digits.isdigit() and digits[0] == "0" and len(digits) > 1 and not ordinal):
        return " ".join("point" if d == "." else num2words(int(d)) for d in digits)
    if "." in digits:
        return num2words(float(digits))
    if ordinal:
        return num2words(int(digits), to="ordinal")
    return num2words(int(digits), to="year" if _YEAR.fullmatch(number) else "cardinal")
