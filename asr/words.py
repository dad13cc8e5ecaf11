"""What a person does with words: add, remove, look up, import, export. `asr words` is the same on the command
line.

A lexicon file keeps its comments and the order of its lines; see asr.edit for what an edit promises.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from asr import paths
from asr.dictionaries import read_dictionary, write_dictionary
from asr.edit import edit_lines
from asr.lexicon import Entry, complete, read_entries
from asr.lines import (
    Sounds,
    at_line,
    comment_of,
    fill_sounds,
    find_base,
    format_entry,
    guess_sounds,
    lenient,
    parse_sounds,
    parsed,
    valid_word,
)
from asr.phones import PhoneSet, UnknownPhone
from asr.text import normalize


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is known of a word. `guessed` are those of `entries` whose sounds are guessed at each start.

    `lm_word` is what stands for it in the language model, empty where that does not know it; then `lm_score`
    is the unknown word's. `lm_score`: natural log, without context; `lm_rank` counts from 1. `lm_floor`: what
    the word scores at least as one of the user's own, -inf where it is none, or has a place by `like=`.
    """

    entries: tuple[Entry, ...]
    guessed: frozenset[Entry]
    homophones: dict[Sounds, tuple[str, ...]]
    lm_word: str
    lm_score: float
    lm_rank: int
    lm_size: int
    lm_floor: float


@dataclass(frozen=True, kw_only=True)
class Imported:
    """`already`: how many pronunciations were there before. `problems`: a line for each line left out."""

    format: str
    added: tuple[Entry, ...]
    already: int
    problems: tuple[str, ...]


def embedded_phones() -> PhoneSet:
    return PhoneSet.read(paths.PRETRAINED / "phones.txt")


def add(
    word: str,
    pronunciations: Sequence[str] = (),
    *,
    file: str | Path | None = None,
    like: str | None = None,
    boost: float | None = None,
    weight: float | None = None,
    language: str = "",
    sounds_like: str = "",
    phones: PhoneSet | None = None,
    lm: str | Path | None = None,
) -> list[Entry]:
    """Write a word into a lexicon file (the user's own by default); the entries as they stand there now.

    Pronunciations are IPA or ARPAbet. Without any, those of the word where it is there already, else a guess
    from the spelling: by the rules of `language` (any espeak-ng voice) if given, or of `sounds_like`, a
    respelling. A pronunciation that is there already takes the attributes that are given.

    Raises ValueError for what cannot be written or changes nothing, in a line that says what to do; OSError.
    """
    phones, path = phones or embedded_phones(), _file(file)
    word = valid_word(word)
    if like is not None:
        like = check_like(like, lm)
    given = {"like": like, "boost": boost, "weight": weight}
    attributes = {name: value for name, value in given.items() if value is not None}
    sounds = _asked_sounds(word, pronunciations, language, sounds_like, phones)
    written: list[Entry] = []

    def change(lines: list[str]) -> list[str]:
        there = parsed(lines, phones, path)
        wanted = sounds or _own_sounds(word, there, bool(attributes), phones)
        for said, remark in wanted.items():
            old = next((e for e in there if (e.word, e.phones) == (word, said)), None)
            entry = replace(old or Entry(word=word, phones=said), source=str(path), **attributes)  # type: ignore[arg-type]
            if old is not None:
                if entry == old:
                    continue
                lines[old.line - 1] = format_entry(entry, phones, comment_of(lines[old.line - 1]))
            else:
                at = max((e.line for e in there if e.word == word), default=len(lines))
                lines.insert(at, format_entry(entry, phones, remark))
                entry = at_line(entry, path, at + 1)
            there = parsed(lines, phones, path)
            written.append(entry)
        if not written:
            first = next(e for e in there if e.word == word and e.phones in wanted)
            raise ValueError(f"{first.where}: {word!r} is there already with these sounds; nothing to add")
        return lines

    edit_lines(path, change)
    return written


def remove(
    word: str,
    pronunciations: Sequence[str] = (),
    *,
    file: str | Path | None = None,
    phones: PhoneSet | None = None,
) -> list[Entry]:
    """Take a word, or some of its pronunciations, out of a lexicon file; the entries that were there.

    Lines of the word that cannot be read go too. Raises ValueError for what is not there, and OSError.
    """
    phones, path = phones or embedded_phones(), _file(file, must_exist=file is not None)
    word = valid_word(word)
    chosen = {parse_sounds(text, phones) for text in pronunciations}
    removed: list[Entry] = []

    def change(lines: list[str]) -> list[str]:
        for number, line in enumerate(lines, 1):
            entry = lenient(line, phones, path, number)
            if entry is not None and entry.word == word and (not chosen or entry.phones in chosen):
                removed.append(entry)
        missing = chosen - {entry.phones for entry in removed}
        if not removed or missing:
            words = [e.word for i, line in enumerate(lines, 1) if (e := lenient(line, phones, path, i))]
            raise ValueError(_not_there(word, words, missing, path))
        gone = {entry.line for entry in removed}
        return [line for number, line in enumerate(lines, 1) if number not in gone]

    edit_lines(path, change)
    return removed


def entries(file: str | Path | None = None, phones: PhoneSet | None = None) -> list[Entry]:
    """The entries of a lexicon file, the user's own by default, in order. Where G2P is to guess the sounds,
    `phones` is empty.

    Raises LexiconError and OSError.
    """
    path = _file(file, must_exist=file is not None)
    return read_entries(path, phones or embedded_phones())[0] if path.is_file() else []


def show(
    word: str,
    *,
    files: Sequence[str | Path] | None = None,
    phones: PhoneSet | None = None,
    lm: str | Path | None = None,
) -> Shown:
    """All that the lexicons (base and user's own, or base and `files`) and the language model know of a word.

    Raises ValueError for a word that is nowhere, LexiconError and OSError.
    """
    phones, word = phones or embedded_phones(), valid_word(word)
    own = [entry for file in ([None] if files is None else files) for entry in entries(file, phones)]
    plain = {(entry.where, entry.word) for entry in own if not entry.phones}
    own = complete(own, partial(guess_sounds, phones=phones))
    base = find_base({word}, phones=phones)
    found = [entry for entry in (*base, *own) if entry.word == word]
    if not found:
        raise ValueError(f"{word!r} is in no lexicon: add it with: asr words add {word}")
    same = find_base(sounds={entry.phones for entry in found}, phones=phones) + own
    homophones = {
        said: tuple(dict.fromkeys(e.word for e in same if e.phones == said and e.word != word))
        for said in dict.fromkeys(entry.phones for entry in found)
    }
    name = next((entry.like for entry in reversed(found) if entry.like), word)
    known, score, rank, size = _lm_place(name, lm)
    plainly = any(entry.word == word and not entry.like for entry in own)
    return Shown(
        entries=tuple(found),
        guessed=frozenset(entry for entry in found if (entry.where, entry.word) in plain),
        homophones=homophones,
        lm_word=known,
        lm_score=score,
        lm_rank=rank,
        lm_size=size,
        lm_floor=_unknown_word_score() if plainly else -math.inf,
    )


def import_file(
    source: str | Path,
    *,
    format: str = "",
    file: str | Path | None = None,
    like: str | None = None,
    boost: float | None = None,
    weight: float | None = None,
    phones: PhoneSet | None = None,
    lm: str | Path | None = None,
) -> Imported:
    """Add the words of a dictionary (see asr.dictionaries) to a lexicon file, in one edit.

    `like`, `boost` and `weight` hold for all words that bring none of their own: any of 5,000 names may stand
    where one name stands. What is there already is left out, and so is a word with its sounds, but without
    attributes, that the base lexicon has too: a list tells which words are expected, a dictionary does not.
    Raises ValueError and OSError.
    """
    phones, path = phones or embedded_phones(), _file(file)
    if like is not None:
        like = check_like(like, lm)
    dictionary = read_dictionary(source, phones, format)
    new, silent = fill_sounds(dictionary.entries, phones)
    new = [
        replace(
            entry,
            like=entry.like or like or "",
            boost=entry.boost or boost or 0.0,
            weight=entry.weight if entry.weight != 1.0 or weight is None else weight,
        )
        for entry in new
    ]
    added: list[Entry] = []
    told = {e.word for e in dictionary.entries if e.phones and _is_bare(e)}
    base = {(e.word, e.phones) for e in find_base(told, phones=phones)}

    def change(lines: list[str]) -> list[str]:
        there = {(entry.word, entry.phones) for entry in parsed(lines, phones, path)}
        for entry in new:
            key = (entry.word, entry.phones)
            if key in there or (key in base and _is_bare(entry)):
                continue
            there.add(key)
            lines.append(format_entry(entry, phones))
            added.append(at_line(entry, path, len(lines)))
        return lines

    edit_lines(path, change)
    return Imported(
        format=dictionary.format,
        added=tuple(added),
        already=len(new) - len(added),
        problems=(
            *dictionary.problems,
            *(f"{entry.where}: {entry.word!r} cannot be guessed from its spelling" for entry in silent),
        ),
    )


def export_text(format: str, *, file: str | Path | None = None, phones: PhoneSet | None = None) -> str:
    """A lexicon file, the user's own by default, in a format of asr.dictionaries.

    Raises ValueError and OSError.
    """
    phones = phones or embedded_phones()
    found = entries(file, phones)
    if format not in ("plain", "csv"):
        found = complete(found, partial(guess_sounds, phones=phones))
    return write_dictionary(found, format)


def write_export(target: str | Path, text: str, file: str | Path | None = None) -> None:
    """Write an export of `file`, at once or not at all. Raises ValueError for `file` itself, and OSError."""
    if Path(target).resolve() == _file(file).resolve():
        raise ValueError(f"{target}: this is the lexicon itself; give the export another name")
    edit_lines(target, lambda lines: text.splitlines())


def check_like(word: str, lm: str | Path | None = None) -> str:
    """`word` as the language model has it. Raises ValueError where it does not have it."""
    known = _lm_place(word, lm)[0]
    if not known:
        raise ValueError(
            f"like={word}: the language model does not know it; take a common word of the same kind"
        )
    return known


def _lm_place(word: str, lm: str | Path | None) -> tuple[str, float, int, int]:
    """A word's name in the language model ("" if it has none), its score alone, its rank, of how many."""
    from asr.decoder.ngram import NgramModel

    if lm is not None and not Path(lm).is_file():
        raise ValueError(f"{lm}: no such language model file")
    model = NgramModel.read(lm or paths.language_model())
    unigrams = model.log_prob[: len(model.words)]
    for name in (word, normalize(word)):
        if name in model.words[1:]:
            score = float(unigrams[model.words.index(name)])
            return name, score, int((unigrams > score).sum()) + 1, len(model.words)
    return "", _unknown_word_score(), 0, len(model.words)


def _unknown_word_score() -> float:
    from asr.decoder.options import for_embedded_model

    return for_embedded_model().unknown_word_score


def _file(file: str | Path | None, must_exist: bool = False) -> Path:
    path = paths.user_lexicon() if file is None else Path(file)
    if must_exist and not path.exists():
        raise ValueError(f"{path}: no such lexicon file")
    return path


def _asked_sounds(
    word: str, pronunciations: Sequence[str], language: str, sounds_like: str, phones: PhoneSet
) -> dict[Sounds, str]:
    """The pronunciations that were asked for, each with a remark on where it comes from."""
    from asr.g2p import pronounce

    try:
        found = {parse_sounds(text, phones): "" for text in pronunciations}
    except UnknownPhone as error:
        whole = " ".join([word, *pronunciations])
        several = all(text.isascii() and text.isalpha() for text in pronunciations)
        raise ValueError(
            f'{error}; if the word is "{whole}", put quotes around it' if several else error
        ) from None
    if len(found) > 1 and all(len(said) == 1 for said in found):
        together = " ".join(pronunciations)
        raise ValueError(f'put quotes around the sounds of a pronunciation: "{together}"')
    for text, voice, remark in (
        (sounds_like, "en-us", f'sounds like "{sounds_like}"'),
        (word if language else "", language, f"by the rules of {language}"),
    ):
        if text:
            found = dict.fromkeys(pronounce([text], phones, voice)[0], remark) | found
    if (sounds_like or language) and not found:
        raise ValueError(f"{sounds_like or word!r} cannot be guessed: write the sounds of {word!r}")
    return found


def _own_sounds(word: str, there: Sequence[Entry], attributes: bool, phones: PhoneSet) -> dict[Sounds, str]:
    """Where no sounds are asked for: those that the word has, or a guess. Raises ValueError."""
    own = [e for e in there if e.word == word]
    if own and not attributes:
        said = f"as {' '.join(own[0].phones)}" if own[0].phones else "guessed from the spelling"
        raise ValueError(
            f"{own[0].where}: {word!r} is there already, {said}; give other sounds, or --like or --boost"
        )
    known = own or find_base({word}, phones=phones)
    if known:
        return {entry.phones: "" for entry in known}
    [guesses] = guess_sounds([word], phones)
    if not guesses:
        raise ValueError(
            f"{word!r} cannot be guessed from its spelling: write its sounds, or use --sounds-like"
        )
    return dict.fromkeys(guesses, "guessed")


def _is_bare(entry: Entry) -> bool:
    return not entry.like and not entry.boost and entry.weight == 1.0


def _not_there(word: str, words: Collection[str], missing: Collection[Sounds], path: Path) -> str:
    if word in words:
        said = " ".join(next(iter(missing)))
        return f"{path}: {word!r} has no pronunciation {said!r}; asr words show lists those it has"
    near = [other for other in words if normalize(other) == normalize(word)]
    near = near or difflib.get_close_matches(word, sorted(set(words)), n=1)
    if near:
        return f"{path}: {word!r} is not there; did you mean {near[0]!r}?"
    return f"{path}: {word!r} is not there; only words of your own files can be removed"
