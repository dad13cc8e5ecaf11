"""Lexicon files: read, check and merge them.

A file is UTF-8 text, one pronunciation a line, `#` begins a comment:

    saoirse<TAB>s ɜː ʃ ə
    saoirse<TAB>s ɪɹ ʃ ə        weight=0.5
    xochitl                     # no pronunciation: G2P fills it in
    covfefe<TAB>                like=coffee  boost=2.0

`weight` is the pronunciation's probability (0 to 1], `like` the word whose place in the language model the
new word takes, `boost` is added to the log score of each occurrence.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.phones import PhoneSet, UnknownPhone
from asr.text import normalize

G2p = Callable[[Sequence[str]], list[list[tuple[str, ...]]]]
"""Words -> for each word its pronunciations, the likeliest first."""

_SHOWN_ERRORS = 10


class LexiconError(ValueError):
    """One or more bad lines; the message has a line for each: file:line: what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A word and one of its pronunciations. `phones` is empty where G2P has yet to fill it in."""

    word: str
    phones: tuple[str, ...]
    weight: float = 1.0
    like: str = ""
    boost: float = 0.0
    source: str = ""
    line: int = 0

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Lexicon:
    """Entries of all stacked files in order. `notes` are remarks for the user, a line each."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, paths: Iterable[str | Path], phones: PhoneSet, g2p: G2p | None = None) -> Lexicon:
        """Stack lexicon files; a word in a later file gains its pronunciations beside the earlier ones.

        Raises LexiconError (bad lines, or an empty pronunciation without `g2p`) and OSError.
        """
        entries: list[Entry] = []
        notes: list[str] = []
        for path in paths:
            read, remarks = read_entries(path, phones)
            entries += read
            notes += remarks
        return cls(tuple(complete(entries, g2p)), tuple(notes))

    @classmethod
    def from_words(cls, words: Iterable[str], g2p: G2p, source: str = "--words") -> Lexicon:
        """A lexicon of words whose pronunciations G2P gives."""
        entries = [Entry(word=word, phones=(), source=source, line=i) for i, word in enumerate(words, 1)]
        return cls(tuple(complete(entries, g2p)))

    def __add__(self, other: Lexicon) -> Lexicon:
        return Lexicon(self.entries + other.entries, self.notes + other.notes)

    def words(self) -> set[str]:
        return {entry.word for entry in self.entries}

    def pronunciations(self) -> dict[str, list[tuple[str, ...]]]:
        """Normalised word -> its pronunciations without repetition, in file order."""
        found: dict[str, dict[tuple[str, ...], None]] = {}
        for entry in self.entries:
            found.setdefault(normalize(entry.word) or entry.word, {})[entry.phones] = None
        return {word: list(phones) for word, phones in found.items()}


def read_entries(path: str | Path, phones: PhoneSet) -> tuple[list[Entry], list[str]]:
    """Entries of one file (those without a pronunciation have empty phones) and remarks on it.

    Raises LexiconError naming file, line, symbol and the nearest phones for each bad line.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise UnicodeError
    except UnicodeError:
        raise LexiconError(f"{path}: not a lexicon file: it is not UTF-8 text") from None
    entries: list[Entry] = []
    notes: list[str] = []
    errors: list[str] = []
    seen: dict[tuple[str, tuple[str, ...]], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = parse_line(line, phones, str(path), number)
        except ValueError as error:
            errors.append(f"{path}:{number}: {error}")
            continue
        if entry is None:
            continue
        first = seen.setdefault((entry.word, entry.phones), number)
        if first == number:
            entries.append(entry)
        else:
            notes.append(f"{path}:{number}: {entry.word!r} stands on line {first} already; line ignored")
    if errors:
        if len(errors) > _SHOWN_ERRORS:
            errors[_SHOWN_ERRORS:] = [f"{path}: and {len(errors) - _SHOWN_ERRORS} more bad lines"]
        raise LexiconError("\n".join(errors))
    return entries, notes


_COMMENT = re.compile(r"(^|\s)#.*$")
_ATTRIBUTE = re.compile(r"^[a-z]+=")
_GAP = re.compile(r"\s{2,}|\s(?=[a-z]+=)")


def parse_line(line: str, phones: PhoneSet, source: str = "", number: int = 0) -> Entry | None:
    """The entry of a line; None for an empty line or a comment. Raises ValueError saying what is wrong."""
    # The searches for # and = spare the patterns on most lines of a large lexicon.
    line = unicodedata.normalize("NFC", line)
    line = (_COMMENT.sub("", line) if "#" in line else line).rstrip(" \r\n")
    if not line or line.isspace():
        return None
    word, tab, rest = line.partition("\t")
    if not tab:
        # Editors turn tabs into spaces: two or more of them part just as well, or one before attributes.
        word, _, rest = _GAP.sub("\t", line.strip(), count=1).partition("\t")
        if " " in word and (not rest or _ATTRIBUTE.match(rest)):
            raise ValueError(f"write a TAB between the word and its pronunciation: {word!r}")
    word = " ".join(word.split())
    if not (word.isalnum() or any(c.isalnum() for c in word)):
        raise ValueError(f"no word before the TAB, or one without letters: {word!r}")
    attributes: list[str] = []
    if "=" in rest:
        parts = rest.split()
        attributes = [part for part in parts if _ATTRIBUTE.match(part)]
        rest = " ".join(part for part in parts if not _ATTRIBUTE.match(part))
    try:
        sounds = phones.parse(rest)
    except UnknownPhone as error:
        raise ValueError(str(error)) from None
    entry = Entry(word=word, phones=sounds, source=source, line=number)
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        entry = _with_attribute(entry, name, value)
    return entry


def _with_attribute(entry: Entry, name: str, value: str) -> Entry:
    if name == "like" and value:
        return replace(entry, like=normalize(value))
    if name in ("weight", "boost"):
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{name}= wants a number, not {value!r}") from None
        if name == "weight" and not 0 < number <= 1:
            raise ValueError(f"weight= must be above 0 and at most 1, not {value}")
        if not math.isfinite(number):
            raise ValueError(f"{name}= must be finite, not {value}")
        return replace(entry, weight=number) if name == "weight" else replace(entry, boost=number)
    raise ValueError(f"unknown attribute {name}={value}; known are weight=, like= and boost=")


def complete(entries: Sequence[Entry], g2p: G2p | None) -> list[Entry]:
    """Entries with every empty pronunciation filled in by `g2p` (a word may become several entries).

    Raises LexiconError for a word that G2P has no sounds for.
    """
    missing = list(dict.fromkeys(entry.word for entry in entries if not entry.phones))
    if not missing:
        return list(entries)
    if g2p is None:
        first = next(entry for entry in entries if not entry.phones)
        raise LexiconError(f"{first.where}: {first.word!r} has no pronunciation")
    found = dict(zip(missing, g2p(missing), strict=True))
    completed: list[Entry] = []
    for entry in entries:
        if entry.phones:
            completed.append(entry)
            continue
        if not found[entry.word]:
            raise LexiconError(f"{entry.where}: {entry.word!r} cannot be guessed: write its pronunciation")
        completed += [replace(entry, phones=phones) for phones in found[entry.word]]
    return completed
