"""Pronunciation dictionaries of other systems: read into lexicon entries, written from them.

    plain     a word a line, or lines of our own lexicon format
    cmudict   WORD  W ER1 D          further pronunciations as WORD(2), comments after # or ;;;
    mfa       word TAB phones, or word TAB probability TAB ... TAB phones (Montreal Forced Aligner)
    kaldi     word phones (lexicon.txt), or word probability phones (lexiconp.txt)
    csv       columns word, pronunciation, weight, like, boost, named in the first line or in this order

The phones may be ARPAbet or IPA; which of them is seen from the file as a whole.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr import arpabet
from asr.lexicon import Entry, LexiconError, parse_line
from asr.phones import PhoneSet, UnknownPhone

FORMATS = ("plain", "cmudict", "mfa", "kaldi", "csv")
_COLUMNS = ("word", "pronunciation", "weight", "like", "boost")
_OTHER_NAMES = {
    "phones": "pronunciation", "sounds": "pronunciation", "ipa": "pronunciation", "arpabet": "pronunciation",
    "probability": "weight",
}  # fmt: skip

# Silence and noise, which are no words.
_NOISES = {"SIL", "SPN", "NSN", "LAU", "OOV", "SP", "<EPS>"}
_VARIANT = re.compile(r"(.+)\(\d+\)")
_POSITION = re.compile(r"_[BIES]$")
# The aligner's own IPA: what it writes unlike anybody else. ɐ is its vowel of "cut".
_MFA_MARKS = frozenset(("aj", "aw", "ej", "ow", "ɔj"))
_MFA = {
    "aj": "aɪ", "aw": "aʊ", "ej": "eɪ", "ow": "oʊ", "ɔj": "ɔɪ", "ɐ": "ʌ", "ʉ": "uː", "ʉː": "uː", "ɒː": "ɔː",
    "ɝ": "ɜː", "d̪": "ð", "t̪": "θ", "ç": "h", "c": "k", "ɟ": "ɡ", "ʎ": "l", "ɫ̩": "ə l", "ɱ": "m", "ɲ": "n",
}  # fmt: skip
_RELEASES = re.compile("[ʰʲʷ]")


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """What a file holds. `problems`: a line for each line that could not be read: file:line: why."""

    format: str
    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line before its phones are understood."""

    line: int
    word: str
    symbols: tuple[str, ...] = ()
    weight: str = ""
    like: str = ""
    boost: str = ""


def read_dictionary(path: str | Path, phones: PhoneSet, format: str = "") -> Dictionary:
    """Entries of a file in one of FORMATS, guessed when none is given.

    Words all in capitals become small where the whole file is in capitals. Raises ValueError for an unknown
    format and a file that is not UTF-8 text, and OSError.
    """
    if format and format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: take {', '.join(FORMATS)}")
    try:
        text = unicodedata.normalize("NFC", Path(path).read_bytes().decode("utf-8-sig"))
        if "\0" in text:
            raise UnicodeError
    except UnicodeError:
        raise LexiconError(f"{path}: not a dictionary: it is not UTF-8 text") from None
    format = format or guess_format(text, phones, str(path))
    if format == "plain":
        return _read_plain(text, phones, str(path))
    rows = _csv_rows(text) if format == "csv" else _rows(text, cmudict=format == "cmudict")
    if format != "csv" and rows and all(row.word == row.word.upper() for row in rows):
        rows = [replace(row, word=row.word.lower()) for row in rows]
    entries, problems = _understand(rows, phones, str(path))
    return Dictionary(format=format, entries=tuple(entries), problems=tuple(problems))


def guess_format(text: str, phones: PhoneSet, path: str = "") -> str:
    """The likeliest of FORMATS for a file of this content and name."""
    lines = [line for line in text.splitlines() if line.strip()]
    content = [line for line in lines if not line.startswith((";;;", "#"))][:500]
    if not content:
        return "plain"
    if path.lower().endswith((".csv", ".tsv")) or _header(content[0]) is not None:
        return "csv"
    rows = [row for row in _rows("\n".join(content), cmudict=False) if not _is_noise(row)]
    said = [row for row in rows if row.symbols]
    if any(";;;" in line[:3] for line in lines) or any(_VARIANT.fullmatch(row.word) for row in said):
        return "cmudict"
    tabs = sum("\t" in line for line in content) > len(content) / 2
    if sum(bool(row.weight) for row in said) > len(rows) / 2:
        return "mfa" if tabs else "kaldi"
    if sum(all(map(arpabet.is_arpabet, row.symbols)) for row in said) > 0.8 * len(rows):
        stressed = any(symbol[-1].isdigit() for row in said for symbol in row.symbols)
        return "mfa" if tabs else "cmudict" if stressed else "kaldi"
    if tabs:
        marked = _MFA_MARKS & {symbol for row in said for symbol in row.symbols}
        return "mfa" if marked else "plain"
    known = set(phones.phones)
    return "kaldi" if sum(known.issuperset(row.symbols) for row in said) > 0.8 * len(rows) else "plain"


def _read_plain(text: str, phones: PhoneSet, path: str) -> Dictionary:
    entries: list[Entry] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" not in line and not re.search(r"\S(\s{2,}|\s[a-z]+=)", line):
            # Nothing but a word, maybe of several parts.
            line = re.sub(r"(\s#.*)?$", "\t", line, count=1) if not line.lstrip().startswith("#") else ""
        try:
            entry = parse_line(line, phones, path, number) if line.strip() else None
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if entry is not None:
            entries.append(entry)
    return Dictionary(format="plain", entries=tuple(entries), problems=tuple(problems))


def _rows(text: str, cmudict: bool) -> list[_Row]:
    """Lines of a word, maybe numbers, and phones."""
    rows: list[_Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(";;;") or not line.strip():
            continue
        if cmudict or line.startswith("# "):
            line = re.sub(r"(^|\s)#.*$", "", line)
        head, tab, rest = line.partition("\t")
        if not tab:
            head, _, rest = line.strip().partition(" ")
        fields = rest.split()
        numbers = 0
        while numbers < len(fields) and _is_number(fields[numbers]):
            numbers += 1
        if cmudict and (variant := _VARIANT.fullmatch(head)):
            head = variant[1]
        symbols = [_POSITION.sub("", symbol) for symbol in fields[numbers:] if symbol[0] != "#"]
        if head.strip():
            rows.append(
                _Row(
                    line=number,
                    word=" ".join(head.replace("_", " ").split()),
                    symbols=tuple(symbols),
                    weight=fields[0] if numbers else "",
                )
            )
    return rows


def _csv_rows(text: str) -> list[_Row]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    columns = _header(first)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    rows: list[_Row] = []
    for fields in reader:
        if not any(field.strip() for field in fields) or (
            columns and not rows and _header(delimiter.join(fields))
        ):
            continue
        found = dict(zip(columns or _COLUMNS, (field.strip() for field in fields), strict=False))
        rows.append(
            _Row(
                line=reader.line_num,
                word=found.get("word", ""),
                symbols=tuple(found.get("pronunciation", "").split()),
                weight=found.get("weight", ""),
                like=found.get("like", ""),
                boost=found.get("boost", ""),
            )
        )
    return rows


def _header(line: str) -> list[str] | None:
    """The names of the columns if the line names them; one of them must be the word's."""
    names = [name.strip().strip('"').lower() for name in re.split("[,;\t]", line)]
    names = [_OTHER_NAMES.get(name, name) for name in names]
    return names if "word" in names and (len(names) > 1) and set(names[1:]) & set(_COLUMNS) else None


def _understand(rows: Sequence[_Row], phones: PhoneSet, path: str) -> tuple[list[Entry], list[str]]:
    """Entries of rows, and a line for each row that makes none."""
    symbols = {symbol for row in rows if not _is_noise(row) for symbol in row.symbols}
    # Consonants alone may be either, and mean the same in both.
    arpa = bool(symbols) and all(map(arpabet.is_arpabet, symbols))
    mostly = sum(map(arpabet.is_arpabet, symbols)) > 0.8 * len(symbols) and any(
        s[-1].isdigit() for s in symbols
    )
    mfa = bool(_MFA_MARKS & symbols)
    entries: list[Entry] = []
    problems: list[str] = []
    for row in rows:
        if _is_noise(row):
            continue
        try:
            sounds = _sounds(row.symbols, phones, arpa or mostly, mfa)
            attributes = {"weight": row.weight, "like": row.like, "boost": row.boost}
            text = " ".join(f"{name}={value}" for name, value in attributes.items() if value)
            # The lexicon's own reader judges word and attributes.
            entry = parse_line(f"{row.word}\t{text}", phones, path, row.line)
        except ValueError as error:
            problems.append(f"{path}:{row.line}: {error}")
            continue
        if entry is not None:
            entries.append(replace(entry, phones=sounds))
    return entries, problems


def _sounds(symbols: Sequence[str], phones: PhoneSet, arpa: bool, mfa: bool) -> tuple[str, ...]:
    if arpa:
        return phones.parse(" ".join(arpabet.to_ipa(symbols)))
    sounds: list[str] = []
    for symbol in symbols:
        plain = _RELEASES.sub("", symbol)
        plain = _MFA.get(plain, plain) if mfa else plain
        try:
            sounds += phones.parse(plain)
        except UnknownPhone as error:
            if not error.nearest or (strange := _not_ipa(plain, phones)):
                raise UnknownPhone(strange if error.nearest else error.symbol, ()) from None
            sounds += phones.adapt(plain)  # a sound of another language
    return tuple(sounds)


def _not_ipa(symbol: str, phones: PhoneSet) -> str:
    """The first character that is neither a letter of IPA nor a mark on one."""
    marks = ("Lm", "Mn", "Sk")
    return next((c for c in symbol if not phones.nearest(c) and unicodedata.category(c) not in marks), "")


def _is_noise(row: _Row) -> bool:
    return row.word.startswith(("<", "[", "!")) or any(s.upper() in _NOISES for s in row.symbols)


def _is_number(field: str) -> bool:
    return re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?", field) is not None


def write_dictionary(entries: Iterable[Entry], format: str) -> str:
    """A file in one of FORMATS. All but plain and csv want every pronunciation filled in.

    What a format has no place for is lost: like and boost in all but csv, weights in plain and cmudict.
    Spaces inside a word become _ in cmudict, mfa and kaldi. Raises ValueError for an unknown format, and for
    a phone that ARPAbet cannot write.
    """
    rows = list(entries)
    if format == "csv":
        return _csv_text(rows)
    if format == "plain":
        return "".join(f"{word}\n" for word in dict.fromkeys(entry.word for entry in rows))
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: take {', '.join(FORMATS)}")
    assert all(entry.phones for entry in rows)
    weighted = any(entry.weight != 1.0 for entry in rows)
    lines: dict[str, None] = {}  # in order, each once
    for entry in rows:
        word = entry.word.replace(" ", "_")
        gap = "\t" if format == "mfa" else " "
        weight = f"{entry.weight:g}{gap}" if weighted and format != "cmudict" else ""
        symbols = arpabet.from_ipa(entry.phones) if format == "cmudict" else entry.phones
        lines[f"{word}{gap}{weight}{' '.join(symbols)}"] = None
    return _numbered(lines) if format == "cmudict" else "".join(f"{line}\n" for line in lines)


def _numbered(lines: Iterable[str]) -> str:
    """CMU's way to tell the pronunciations of a word apart: word, word(2), ..."""
    count: dict[str, int] = {}
    text: list[str] = []
    for line in lines:
        word, _, symbols = line.partition(" ")
        count[word] = count.get(word, 0) + 1
        text.append(f"{word}({count[word]}) {symbols}\n" if count[word] > 1 else line + "\n")
    return "".join(text)


def _csv_text(entries: Sequence[Entry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entry in entries:
        weight = "" if entry.weight == 1.0 else f"{entry.weight:g}"
        boost = f"{entry.boost:g}" if entry.boost else ""
        writer.writerow([entry.word, " ".join(entry.phones), weight, entry.like, boost])
    return text.getvalue()
