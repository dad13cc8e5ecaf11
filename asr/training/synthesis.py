"""Natural synthetic speech with Kokoro-82M: sentences to its symbols, voices mixed to new speakers.

Kokoro (82 M parameters, https://huggingface.co/hexgrad/Kokoro-82M, Apache-2.0) reads IPA with stress marks.
Every word is spoken in a pronunciation of our own lexicon where it has one, so the phones of the recording
are known; the stress comes from espeak-ng's reading of the whole sentence.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asr.g2p import phonemize
from asr.phones import PhoneSet
from asr.text import normalize

Phones = tuple[str, ...]

# Kokoro's symbols for our phones where they differ: one letter for a diphthong or affricate, no length marks,
# rhotic vowels as vowel + ɹ, T for the flap.
_SYMBOLS = {
    "aɪ": "I", "aʊ": "W", "eɪ": "A", "oʊ": "O", "ɔɪ": "Y", "dʒ": "ʤ", "tʃ": "ʧ", "ɾ": "T", "ɜː": "ɜɹ",
    "ɚ": "əɹ", "ɑː": "ɑ", "iː": "i", "uː": "u", "ɔː": "ɔ", "ɐ": "ə",
}  # fmt: skip
_VOWELS = frozenset("aeiouæɐɑɔəɚɛɜɪʊʌᵻ")
_STRESS = "ˈˌ"
_CLAUSE_END = re.compile(r"(?<!\bDr)(?<!\bMr)(?<!\bMrs)([,.;:!?])(?=\s|$)")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a sentence is spoken: its normalised words, the phones of each, and the symbols for Kokoro."""

    words: tuple[str, ...]
    phones: tuple[Phones, ...]
    symbols: str


@dataclass(frozen=True)
class Reader:
    """Turns sentences into readings.

    A word is spoken as espeak-ng reads it in its sentence where that is one of its `pronunciations` (or it
    has none), else in the first of them; with probability `variants` in any one of them, at random.
    `stress=False` leaves the stress marks out.
    """

    pronunciations: Mapping[str, Sequence[Phones]]
    phones: PhoneSet
    variants: float = 0.0
    stress: bool = True

    def read(self, sentences: Sequence[str], rng: random.Random) -> list[Reading]:
        """A reading for each sentence; punctuation makes pauses. Without any words the reading is empty."""
        clauses = [split_clauses(sentence) for sentence in sentences]
        flat = [words for sentence in clauses for words, _ in sentence]
        spoken = iter(phonemize([" ".join(words) for words in flat], stress=True))
        return [
            self._join([(words, mark, next(spoken)) for words, mark in sentence], rng) for sentence in clauses
        ]

    def _join(self, clauses: Iterable[tuple[tuple[str, ...], str, str]], rng: random.Random) -> Reading:
        words: list[str] = []
        phones: list[Phones] = []
        symbols: list[str] = []
        for clause, mark, spoken in clauses:
            letters: list[str] = []
            for word, part in zip(clause, self._parts(clause, spoken), strict=True):
                chosen = self._choose(word, part, rng)
                words.append(word)
                phones.append(chosen)
                letters.append(to_symbols(chosen, stress_marks(part, self.phones) if self.stress else ()))
            symbols.append(" ".join(letters) + mark)
        return Reading(words=tuple(words), phones=tuple(phones), symbols=" ".join(symbols))

    def _choose(self, word: str, part: str, rng: random.Random) -> Phones:
        options = self.pronunciations.get(word, ())
        heard = self.phones.adapt(part)
        if not options:
            return heard
        if rng.random() < self.variants:
            return rng.choice(options)
        return heard if heard in options else options[0]

    def _parts(self, words: Sequence[str], spoken: str) -> list[str]:
        """espeak's reading of each word; empty where it joins words of the lexicon ("of the")."""
        parts = [part.strip() for part in spoken.split("|") if part.strip()]
        if len(parts) == len(words):
            return parts
        aligned = align_joined([self._likely(word) for word in words], [self.phones.adapt(p) for p in parts])
        found = ["" if i is None else parts[i] for i in aligned]
        unknown = [i for i, part in enumerate(found) if not part and words[i] not in self.pronunciations]
        for i, part in zip(unknown, phonemize([words[i] for i in unknown], stress=True), strict=True):
            found[i] = part.replace("|", " ")
        return found

    def _likely(self, word: str) -> Phones:
        options = self.pronunciations.get(word)
        return options[0] if options else self.phones.adapt(phonemize([word])[0].replace("|", " "))


def split_clauses(text: str) -> list[tuple[tuple[str, ...], str]]:
    """Normalised words between punctuation marks, with the mark that ends them; the last is one of .?!

    >>> split_clauses("Yes, we can")
    [(('yes',), ','), (('we', 'can'), '.')]
    """
    pieces = _CLAUSE_END.split(text)
    clauses: list[tuple[tuple[str, ...], str]] = []
    for piece, mark in zip(pieces[::2], [*pieces[1::2], "."], strict=True):
        if words := tuple(normalize(piece).split()):
            clauses.append((words, mark))
    if clauses and clauses[-1][1] in ",;:":
        clauses[-1] = (clauses[-1][0], ".")
    return clauses


def align_joined(words: Sequence[Phones], parts: Sequence[Phones]) -> list[int | None]:
    """Which part is each word's own: None for words that share one, and for all if there are too many parts.

    A part takes one or more words in a row so that the sum of the edit distances is least.
    """
    infinity = float("inf")
    best = [[(infinity, 0)] * (len(parts) + 1) for _ in range(len(words) + 1)]
    best[0][0] = (0.0, 0)
    for j, part in enumerate(parts, 1):
        for end in range(j, len(words) + 1):
            joined: Phones = ()
            for start in range(end - 1, max(j - 2, end - 5), -1):
                joined = words[start] + joined
                cost = best[start][j - 1][0] + _distance(joined, part)
                if cost < best[end][j][0]:
                    best[end][j] = (cost, start)
    aligned: list[int | None] = [None] * len(words)
    if best[-1][-1][0] == infinity:
        return aligned
    end = len(words)
    for j in range(len(parts), 0, -1):
        start = best[end][j][1]
        if end - start == 1:
            aligned[start] = j - 1
        end = start
    return aligned


def _distance(a: Sequence[str], b: Sequence[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def stress_marks(spoken: str, phones: PhoneSet) -> tuple[str, ...]:
    """The mark (ˈ, ˌ or none) before each vowel of espeak's reading of a word."""
    marks: list[str] = []
    for part in spoken.split():
        vowels = sum(is_vowel(phone) for phone in phones.adapt(part))
        mark = part[0] if part[0] in _STRESS else ""
        marks += [mark if i == 0 else "" for i in range(vowels)]
    return tuple(marks)


def is_vowel(phone: str) -> bool:
    return phone[0] in _VOWELS


def to_symbols(phones: Phones, marks: Sequence[str] = ()) -> str:
    """Kokoro's symbols for a word; `marks` go before its vowels in order.

    Where the word has another number of vowels than marks, only the main stress is kept, as near as possible.
    """
    vowels = [i for i, phone in enumerate(phones) if is_vowel(phone)]
    if len(vowels) != len(marks):
        main = min(marks.index("ˈ"), len(vowels) - 1) if "ˈ" in marks else -1
        marks = ["ˈ" if i == main else "" for i in range(len(vowels))]
    stress = dict(zip(vowels, marks, strict=True))
    symbols = [stress.get(i, "") + _SYMBOLS.get(phone, phone) for i, phone in enumerate(phones)]
    # "little", "button": the last syllable is its consonant.
    if len(phones) > 2 and symbols[-2] == "ə" and phones[-1] in ("l", "n") and not is_vowel(phones[-3]):
        symbols[-2] = "ᵊ"
    # A linking ɹ after a rhotic vowel ("river in") is the one that its symbols have already.
    return "".join(symbols).replace("ɹɹ", "ɹ")


@dataclass(frozen=True)
class Voice:
    """A speaker, the weighted sum of voices: 'af_heart' or, in percent, 'af_heart:60+bm_lewis:40'."""

    parts: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> Voice:
        """Raises ValueError where the weights do not make 100."""
        parts = []
        for part in text.split("+"):
            name, _, percent = part.partition(":")
            parts.append((name, int(percent) if percent.isdecimal() else 100))
        if sum(percent for _, percent in parts) != 100:
            raise ValueError(
                f"the weights of a voice must add up to 100, like af_heart:60+bm_lewis:40, not {text!r}"
            )
        return cls(tuple(parts))

    def __str__(self) -> str:
        if len(self.parts) == 1:
            return self.parts[0][0]
        return "+".join(f"{name}:{percent}" for name, percent in self.parts)


def choose_voice(rng: random.Random, names: Sequence[str], mixed: float, accented: float) -> Voice:
    """A random speaker of English from voice `names` (those in a and b are American and British).

    With probability `mixed` two English voices, with probability `accented` one with 20 to 50 % of a foreign
    voice, else one as it is.
    """
    english = sorted(name for name in names if name[0] in "ab")
    foreign = sorted(name for name in names if name[0] not in "ab")
    kind = rng.random()
    if kind < mixed:
        first, second = rng.sample(english, 2)
        share = rng.randint(20, 50)
    elif kind < mixed + accented and foreign:
        first, second = rng.choice(english), rng.choice(foreign)
        share = rng.randint(20, 50)
    else:
        return Voice(((rng.choice(english), 100),))
    return Voice(((first, 100 - share), (second, share)))
