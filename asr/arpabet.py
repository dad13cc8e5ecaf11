"""ARPAbet, the phones of the CMU Pronouncing Dictionary, to the phones of this project and back.

English lexicons here write what is heard where ARPAbet leaves it to the reader: the weak a of "about", the
quick t of "water", the i of "happy", the r that joins "hearing". The rules below come from lining up CMU's
entries of the 20,000 most frequent words with those of lexicon/en.txt: 95 % of the phones agree, three words
in four entirely; most of the rest are weak vowels that speakers vary too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_VOWELS = {
    "AA": "ɑː", "AE": "æ", "AH": "ʌ", "AO": "ɔː", "AW": "aʊ", "AY": "aɪ", "EH": "ɛ", "ER": "ɜː", "EY": "eɪ",
    "IH": "ɪ", "IY": "iː", "OW": "oʊ", "OY": "ɔɪ", "UH": "ʊ", "UW": "uː",
    "AX": "ə", "AXR": "ɚ", "IX": "ɪ", "UX": "uː",  # TIMIT's weak vowels
}  # fmt: skip
_CONSONANTS = {
    "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "F": "f", "G": "ɡ", "HH": "h", "JH": "dʒ", "K": "k", "L": "l",
    "M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "V": "v",
    "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
    "DX": "ɾ", "EL": "ə l", "EM": "ə m", "EN": "ə n", "HV": "h", "NX": "n", "WH": "w",
}  # fmt: skip
_WEAK = {"AH": "ə", "ER": "ɚ", "IY": "i"}  # without stress
_SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_SYMBOL = re.compile(r"([A-Z]+)([012]?)")
_TABLE = {**_VOWELS, **_CONSONANTS}

# Back: phones that ARPAbet writes with another one's symbol, and those that carry no stress.
_BACK = {
    **{ipa: symbol for symbol, ipa in reversed(_TABLE.items()) if " " not in ipa},
    "ɐ": "AH", "ə": "AH", "ɚ": "ER", "i": "IY", "ᵻ": "IH", "ɔ": "AO", "ɾ": "T",
}  # fmt: skip
_UNSTRESSED = frozenset("ɐəɚiᵻ")


def is_arpabet(symbol: str) -> bool:
    """'AH0' and 'ah0' are, 'ə' is not."""
    found = _SYMBOL.fullmatch(symbol.upper())
    return bool(found) and found[1] in _TABLE and (not found[2] or found[1] in _VOWELS)  # type: ignore[index]


def to_ipa(symbols: Sequence[str]) -> tuple[str, ...]:
    """'W AO1 T ER0' -> 'w ɔː ɾ ɚ'. Without stress digits a single vowel is taken as stressed, several as
    weak.

    Raises ValueError for a symbol that is none.
    """
    parts: list[tuple[str, str]] = []
    for symbol in symbols:
        found = _SYMBOL.fullmatch(symbol.upper())
        if not found or not is_arpabet(symbol):
            raise ValueError(f"unknown ARPAbet phone {symbol!r}")
        parts.append((found[1], found[2]))
    if not any(stress for _, stress in parts):
        default = "1" if sum(name in _VOWELS for name, _ in parts) == 1 else "0"
        parts = [(name, default if name in _VOWELS else "") for name, _ in parts]
    return tuple(phone for i in range(len(parts)) for phone in _sound(parts, i).split())


def _sound(parts: Sequence[tuple[str, str]], at: int) -> str:
    """The phone or phones of a symbol among its neighbours."""
    name, stress = parts[at]
    before = parts[at - 1][0] if at else ""
    after, after_stress = parts[at + 1] if at + 1 < len(parts) else ("", "")
    joined = " ɹ" if after in _VOWELS else ""
    if name in ("AH", "IH") and stress == "0" and _is_ending(before, after, len(parts) - at):
        return "ᵻ"
    if name == "AH" and stress == "0" and at == 0:
        return "ɐ"
    if name == "IY" and (after == "R" or (stress == "2" and not after)):
        return "ɪ" if after == "R" else "i"
    if name == "R" and before in ("AY", "AW"):
        return "ɚ" + joined
    if name in ("ER", "AXR"):
        return (_WEAK["ER"] if stress == "0" else _TABLE[name]) + joined
    if name == "T" and (before in _VOWELS or before == "R") and after in _VOWELS and after_stress == "0":
        # "water" and "party", but not "button".
        return "t" if after == "AH" and at + 2 < len(parts) and parts[at + 2][0] == "N" else "ɾ"
    return _WEAK.get(name, _TABLE[name]) if stress == "0" else _TABLE[name]


def _is_ending(before: str, after: str, left: int) -> bool:
    """The vowel of "wanted" and "boxes"."""
    return left == 2 and ((after == "D" and before in ("T", "D")) or (after == "Z" and before in _SIBILANTS))


def from_ipa(phones: Sequence[str]) -> tuple[str, ...]:
    """'w ɔː ɾ ɚ' -> 'W AO1 T ER0'. Stress is a guess: the first full vowel has the main one, the others less.

    What ARPAbet does not tell apart becomes one symbol (ɾ and t, ɐ and ə, ᵻ and ɪ, ɔ and ɔː); `to_ipa` gives
    back the phone that is usual in the place. Raises ValueError for a phone without a symbol.
    """
    symbols: list[str] = []
    main = True
    for i, phone in enumerate(phones):
        symbol = _BACK.get(phone)
        if symbol is None:
            raise ValueError(f"phone {phone!r} has no symbol in ARPAbet")
        if phone == "ɹ" and i and symbols[-1][:2] == "ER":
            continue  # ER and a vowel imply it
        if symbol in _VOWELS:
            weak = phone in _UNSTRESSED or (i > 0 and phones[i - 1] == "ɾ" and phone != "ʌ")
            symbols.append(symbol + ("0" if weak else "1" if main else "2"))
            main = main and weak
        else:
            symbols.append(symbol)
    return tuple(symbols)
