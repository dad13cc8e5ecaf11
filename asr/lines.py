"""Lines of a lexicon file as an edit sees them: written from entries, read one by one, bad ones endured."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from asr import arpabet, paths
from asr.lexicon import Entry, parse_line
from asr.phones import PhoneSet

Sounds = tuple[str, ...]

_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")


def valid_word(word: str) -> str:
    """As it stands in a lexicon: NFC, single spaces. Raises ValueError for what is no word."""
    found = unicodedata.normalize("NFC", " ".join(word.split()))
    if not any(c.isalnum() for c in found):
        raise ValueError(f"{word!r}: a word needs a letter or a digit")
    if found.startswith("#") or " #" in found:
        raise ValueError(f"{found!r}: a # at the beginning of a word would make it a comment: leave it out")
    return found


def parse_sounds(text: str, phones: PhoneSet) -> Sounds:
    """A pronunciation that a person typed, IPA or ARPAbet in capitals. Raises ValueError."""
    symbols = text.split()
    if symbols and all(s.isupper() and arpabet.is_arpabet(s) for s in symbols):
        symbols = list(arpabet.to_ipa(symbols))
    sounds = phones.parse(" ".join(symbols))
    if not sounds:
        raise ValueError(
            f"the pronunciation {text!r} is empty: write its sounds, or leave it out to have it guessed"
        )
    return sounds


def format_entry(entry: Entry, phones: PhoneSet, comment: str = "") -> str:
    """The line of an entry. Raises ValueError for one that would not be read back as it is."""
    attributes = [f"weight={entry.weight:g}"] if entry.weight != 1.0 else []
    attributes += [f"like={entry.like}"] if entry.like else []
    attributes += [f"boost={entry.boost:g}"] if entry.boost else []
    fields = [entry.word, " ".join(entry.phones), *attributes, *([f"# {comment}"] if comment else [])]
    line = "\t".join(fields) if attributes or comment or entry.phones else f"{entry.word}\t"
    back = parse_line(line, phones, entry.source, entry.line)
    if back is None or (back.word, back.phones, back.like) != (entry.word, entry.phones, entry.like):
        raise ValueError(f"{entry.word!r} cannot be written as a line of a lexicon: leave out its signs")
    return line


def comment_of(line: str) -> str:
    found = _COMMENT.search(line)
    return found[1].strip() if found else ""


def parsed(lines: Sequence[str], phones: PhoneSet, path: Path) -> list[Entry]:
    """The entries of the lines that can be read."""
    found: list[Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_line(line, phones, str(path), number)
        except ValueError:
            continue
        if entry is not None:
            found.append(entry)
    return found


def lenient(line: str, phones: PhoneSet, path: Path, number: int) -> Entry | None:
    """The entry of a line; of a line with bad sounds or attributes, its word alone."""
    try:
        return parse_line(line, phones, str(path), number)
    except ValueError:
        plain = _COMMENT.sub("", line)
        word = re.split(r"\t|\s{2,}|\s\S+=", plain.strip())[0]
        return Entry(word=" ".join(word.split()), phones=(), source=str(path), line=number)


def find_base(
    words: Collection[str] = (),
    sounds: Collection[Sounds] = (),
    *,
    phones: PhoneSet,
    path: Path | None = None,
) -> list[Entry]:
    """The entries of the base lexicon that have one of the words or one of the pronunciations.

    Only these lines are parsed: a look takes some 50 ms where reading all takes seconds.
    """
    path = path or paths.base_lexicon()
    texts = {" ".join(said) for said in sounds}
    found: list[Entry] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, _, rest = line.partition("\t")
        if word in words or rest.partition("\t")[0] in texts:
            entry = parse_line(line, phones, str(path), number)
            if entry is not None:
                found.append(entry)
    return found


def guess_sounds(words: Sequence[str], phones: PhoneSet) -> list[list[Sounds]]:
    """Pronunciations by the rules of English; none for a word in another script, whose letters would be
    named."""
    from asr.g2p import pronounce

    latin = [word for word in words if all(_is_latin(c) for c in word if c.isalpha())]
    found = dict(zip(latin, pronounce(latin, phones), strict=True)) if latin else {}
    return [found.get(word, []) for word in words]


def _is_latin(letter: str) -> bool:
    # A modifier letter, as the apostrophe of some keyboards, is of no script.
    return unicodedata.name(letter, "").startswith("LATIN") or unicodedata.category(letter) == "Lm"


def fill_sounds(entries: Sequence[Entry], phones: PhoneSet) -> tuple[list[Entry], list[Entry]]:
    """Entries with guesses where they have no sounds, and those that cannot be guessed."""
    missing = list(dict.fromkeys(entry.word for entry in entries if not entry.phones))
    guesses = dict(zip(missing, guess_sounds(missing, phones), strict=True))
    filled = [
        replace(entry, phones=said)
        for entry in entries
        for said in ([entry.phones] if entry.phones else guesses[entry.word])
    ]
    return filled, [entry for entry in entries if not entry.phones and not guesses[entry.word]]


def at_line(entry: Entry, path: Path, number: int) -> Entry:
    return replace(entry, source=str(path), line=number)
