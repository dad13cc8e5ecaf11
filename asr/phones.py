"""The phone inventory: phones.txt <-> token ids, ways of writing a phone, nearest phones.

Phones are IPA as espeak-ng writes English, without stress and tie bars. A line of phones.txt is a token,
its line number the token id; line 0 is the CTC blank.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

BLANK = "<blk>"

# Other ways to write the same phone, with the inventory's own symbols on the right.
_ALIASES = {
    "r": "ɹ", "g": "ɡ", "ʤ": "dʒ", "ʧ": "tʃ", "ɝ": "ɜː", "ɝː": "ɜː", "ɜ": "ɜː", "ɨ": "ᵻ", "ɫ": "l",
    "ʔ": "t", "n̩": "ə n", "l̩": "ə l", "m̩": "ə m", "ɹ̩": "ɚ", "ᵊ": "ə", "oː": "ɔː", "o": "oʊ", "e": "eɪ",
    "u": "uː", "ɑ": "ɑː", "ʍ": "w", "a": "æ", "əʊ": "oʊ", "ɒ": "ɑː",
}  # fmt: skip
# How English ears take the sounds of other languages where the articulators would say otherwise.
_ADAPTED = {
    "ʁ": "ɹ", "ʀ": "ɹ", "ɣ": "ɡ", "ɬ": "l", "ɲ": "n j", "y": "uː", "ʏ": "ʊ", "ø": "ɜː", "œ": "ɜː", "ɥ": "w",
}  # fmt: skip
# Stress, tie bars, syllable dots and joiners carry no token of their own.
_IGNORED = re.compile("[ˈˌ'͜͡‿.ˑ\u200d]")


class UnknownPhone(ValueError):
    """A symbol that the inventory does not hold. `nearest`: phones that sound like it, if it is IPA."""

    def __init__(self, symbol: str, nearest: tuple[str, ...]) -> None:
        self.symbol = symbol
        self.nearest = nearest
        help = (
            f"the nearest valid phones are {', '.join(nearest)}" if nearest else "phones are written in IPA"
        )
        super().__init__(f"unknown phone {symbol!r}; {help}")


@dataclass(frozen=True)
class PhoneSet:
    """The tokens of a model in the order of their ids. `symbols[0]` is blank."""

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.symbols or self.symbols[0] != BLANK:
            raise ValueError(f"the first token of a phone set must be {BLANK}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("a phone set must not name a phone twice")

    @classmethod
    def read(cls, path: str | Path) -> PhoneSet:
        """Read phones.txt. Raises ValueError when the file is no phone set."""
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        try:
            return cls(tuple(unicodedata.normalize("NFC", line.strip()) for line in lines if line.strip()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def phones(self) -> tuple[str, ...]:
        """All tokens but blank."""
        return self.symbols[1:]

    def __len__(self) -> int:
        return len(self.symbols)

    def parse(self, text: str) -> tuple[str, ...]:
        """Phones of a pronunciation as a person or espeak-ng writes it: 's ɪ ɹ ʃ ə' and 'sˈɪɹʃə' agree.

        Raises UnknownPhone with the first symbol that is none.
        """
        parts = text.split()
        try:
            return tuple([self._own[part] for part in parts])  # what a lexicon of 100,000 lines is made of
        except KeyError:
            return tuple(p for part in parts for p in self._split(part))

    @functools.cached_property
    def _own(self) -> dict[str, str]:
        """The phones themselves: one string for all pronunciations that hold it."""
        return {phone: phone for phone in self.phones}

    def encode(self, phones: tuple[str, ...]) -> list[int]:
        """Token ids of valid phones. Raises UnknownPhone."""
        ids = self.ids
        try:
            return [ids[phone] for phone in phones]
        except KeyError as error:
            raise UnknownPhone(error.args[0], self.nearest(error.args[0])) from None

    def nearest(self, symbol: str, count: int = 3) -> tuple[str, ...]:
        """The `count` phones most like `symbol` by articulatory features; none where it is no IPA."""
        target = _features(symbol)
        if not target:
            return ()
        by_distance = sorted(self.phones, key=lambda phone: (_distance(target, _features(phone)), phone))
        return tuple(by_distance[:count])

    def adapt(self, text: str) -> tuple[str, ...]:
        """Like `parse`, but a phone of another language becomes its nearest phone here.

        The idea is that of Xu, Baevski, Auli 2021, 2.3. What is no IPA at all is left out.
        """
        phones: list[str] = []
        for part in text.split():
            try:
                phones += self._split(part)
            except UnknownPhone:
                phones += [p for symbol in _segments(part) for p in self._split_or_nearest(symbol)]
        return tuple(phones)

    def _split_or_nearest(self, symbol: str) -> tuple[str, ...]:
        try:
            return self._split(_ADAPTED.get(symbol, symbol))
        except UnknownPhone:
            return self.nearest(symbol, 1)

    def _split(self, part: str) -> tuple[str, ...]:
        """Phones of a part: the longest symbol first."""
        if part in self.ids and part != BLANK:
            return (part,)
        part = unicodedata.normalize("NFC", _IGNORED.sub("", part))
        phones: list[str] = []
        at = 0
        while at < len(part):
            for length in (3, 2, 1):
                piece = part[at : at + length]
                if piece in self.ids:
                    phones.append(piece)
                elif piece in _ALIASES and all(p in self.ids for p in _ALIASES[piece].split()):
                    phones += _ALIASES[piece].split()
                else:
                    continue
                at += len(piece)
                break
            else:
                if part[at] == " ":
                    at += 1
                    continue
                symbol = next(iter(_segments(part[at:])), part[at:])
                raise UnknownPhone(symbol, self.nearest(symbol))
        return tuple(phones)


# Articulation of the IPA letters. Consonants: place from the lips (0) to the glottis (10), manner from
# nasal (0) over stop (2) to vowel-like (8), voicing. Vowels: height, backness, rounding. All scaled
# to comparable steps.
_PLACE = {
    "p": 0, "b": 0, "m": 0, "ɸ": 0, "β": 0, "ʙ": 0, "ɱ": 1, "f": 1, "v": 1, "ʋ": 1, "θ": 2, "ð": 2, "t": 3,
    "d": 3, "n": 3, "s": 3, "z": 3, "ɾ": 3, "r": 3, "ɬ": 3, "ɮ": 3, "l": 3, "ɹ": 3.5, "ʃ": 4, "ʒ": 4,
    "ʈ": 4, "ɖ": 4, "ɳ": 4, "ʂ": 4.5, "ʐ": 4.5, "ɻ": 4, "ɭ": 4, "ɽ": 4, "ɕ": 4.5, "ʑ": 4.5, "c": 5,
    "ɟ": 5, "ɲ": 5, "ç": 5, "ʝ": 5, "j": 5, "ʎ": 5, "k": 6, "ɡ": 6, "g": 6, "ŋ": 6, "x": 6, "ɣ": 6, "ɰ": 6,
    "w": 6, "ʍ": 6, "ɥ": 5, "q": 7, "ɢ": 7, "ɴ": 7, "χ": 7, "ʁ": 7, "ʀ": 7, "ħ": 8, "ʕ": 8, "h": 9, "ɦ": 9,
    "ʔ": 9,
}  # fmt: skip
_MANNERS = (
    "mɱnɳɲŋɴ", "", "pbtdʈɖcɟkɡgqɢʔ", "", "ɸβfvθðszɬɮʃʒʂʐɕʑçʝxɣχʁħʕhɦ", "", "ɾɽrʙʀ", "lɭʎɹɻʋɰ", "jwʍɥ",
)  # fmt: skip
_VOICELESS = set("pɸftθsɬʃʈʂɕcçkxqχħhʔʍ")
_VOWELS = {
    "i": (6, 0, 0), "y": (6, 0, 1), "ɨ": (6, 2, 0), "ᵻ": (5.4, 1.6, 0), "ʉ": (6, 2, 1), "ɯ": (6, 4, 0),
    "u": (6, 4, 1), "ɪ": (5, 0.7, 0), "ʏ": (5, 0.7, 1), "ʊ": (5, 3.4, 1), "e": (4, 0, 0), "ø": (4, 0, 1),
    "ɘ": (4, 2, 0), "ɵ": (4, 2, 1), "ɤ": (4, 4, 0), "o": (4, 4, 1), "ə": (3, 2, 0), "ɚ": (3, 2.2, 0.4),
    "ɛ": (2, 0, 0), "œ": (2, 0, 1), "ɜ": (2, 2, 0), "ɝ": (2.5, 2.2, 0.4), "ɞ": (2, 2, 1), "ʌ": (2, 3.4, 0),
    "ɔ": (2, 4, 1), "æ": (1, 0, 0), "ɐ": (1, 2, 0), "a": (0, 1, 0), "ɶ": (0, 0, 1), "ɑ": (0, 4, 0),
    "ɒ": (0, 4, 1),
}  # fmt: skip

_Features = tuple[float, ...]


def _segments(text: str) -> list[str]:
    """Cut IPA into letters, each with the marks that belong to it."""
    segments: list[str] = []
    for c in unicodedata.normalize("NFD", _IGNORED.sub("", text)):
        if segments and (unicodedata.combining(c) or c in "ːʰʲʷˤˠ"):
            segments[-1] += c
        else:
            segments.append(c)
    return [unicodedata.normalize("NFC", s) for s in segments]


@functools.lru_cache(maxsize=1000)
def _features(symbol: str) -> _Features:
    """(is a vowel, three of the first letter, three of the last, long); empty for what is no IPA."""
    letters = [c for c in unicodedata.normalize("NFC", symbol) if c in _VOWELS or c in _PLACE]
    if not letters:
        letters = [c for c in unicodedata.normalize("NFD", symbol) if c in _VOWELS or c in _PLACE]
    if not letters:
        return ()
    vowel = letters[0] in _VOWELS
    first, last = (_letter_features(letters[i]) for i in (0, -1))
    return (6.0 if vowel else 0.0, *first, *last, 1.0 if "ː" in symbol else 0.0)


def _letter_features(letter: str) -> _Features:
    if letter in _VOWELS:
        height, back, rounded = _VOWELS[letter]
        return (height, back, rounded)
    manner = next(i for i, letters in enumerate(_MANNERS) if letter in letters)
    return (_PLACE[letter], manner, 0.0 if letter in _VOICELESS else 1.5)


def _distance(a: _Features, b: _Features) -> float:
    if not a or not b:
        return 100.0
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def distance(a: str, b: str) -> float:
    """How far apart two phones are articulated: 0 for the same, 3 for t and d, 100 where one is no IPA."""
    return _distance(_features(a), _features(b))
