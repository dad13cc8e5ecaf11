"""How the words of transcripts are said: as the lexicons have them, and by guess where none of them does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from asr import paths
from asr.g2p import pronounce
from asr.lexicon import Lexicon
from asr.lines import guess_sounds
from asr.phones import PhoneSet
from asr.text import normalize
from asr.training.prepared import Prepared

Pronunciations = dict[str, list[tuple[str, ...]]]
"""Word in normal form -> the ways to say it."""


def words_of(prepared: Prepared) -> list[list[str]]:
    """The words of each utterance in normal form."""
    return [normalize(utterance.text).split() for utterance in prepared.utterances]


def lexicon_files(more: Iterable[Path] = (), user: bool = True) -> list[Path]:
    """The base lexicon, the user's if there is one and `user`, and `more`; a file named twice is read once.

    Raises ValueError for a file of `more` that is not there.
    """
    files = [paths.base_lexicon()]
    if user and paths.user_lexicon().is_file():
        files.append(paths.user_lexicon())
    found = {file.resolve(): file for file in files}
    for file in more:
        if not file.is_file():
            raise ValueError(f"{file}: no such lexicon file")
        found.setdefault(file.resolve(), file)
    return list(found.values())


def read_pronunciations(files: Sequence[Path], phones: PhoneSet) -> Pronunciations:
    """All pronunciations of all files, those of earlier files first. Raises LexiconError and OSError."""
    return Lexicon.read(files, phones, partial(guess_sounds, phones=phones)).pronunciations()


def guess_missing(known: Pronunciations, texts: Iterable[Sequence[str]], phones: PhoneSet) -> int:
    """Add the words that `known` lacks, as far as they can be pronounced. Returns how many it lacked."""
    missing = sorted({word for words in texts for word in words} - known.keys())
    guessed = pronounce(missing, phones)
    known |= {word: found for word, found in zip(missing, guessed, strict=True) if found}
    return len(missing)
