"""Lexicon and language model for pyctcdecode, which knows words by their letters and has no pronunciations.

Each phone becomes a letter and each word what its first pronunciation spells: words that sound the same are
one word to it, which is read as the most frequent of them, and other pronunciations are lost. The language
model is estimated anew from the texts in this spelling. Where a word ends is not in the posteriors; so every
phone stands in them twice, as a letter that begins a word and as one that goes on, equally likely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import train_lm

from asr.lexicon import Entry, Lexicon
from asr.phones import PhoneSet
from asr.training.lm_text import Exclusion, training_sentences

BEGINS = "▁"  # as in SentencePiece, a piece that begins a word
_LETTERS = [
    chr(c) for c in (*range(0x430, 0x450), *range(0x3B1, 0x3CA)) if c != 0x3C2
]  # lower case, no Latin


def letters(phones: PhoneSet) -> dict[str, str]:
    """A letter for each phone. Raises ValueError for more phones than letters."""
    if len(phones.phones) > len(_LETTERS):
        raise ValueError(f"only {len(_LETTERS)} phones can be spelled, not {len(phones.phones)}")
    return dict(zip(phones.phones, _LETTERS, strict=False))


def spell(entries: Iterable[Entry], phones: PhoneSet) -> dict[str, str]:
    """Word -> its first pronunciation, spelled; words in the order of the entries."""
    letter = letters(phones)
    spelled: dict[str, str] = {}
    for entry in entries:
        spelled.setdefault(entry.word, "".join(letter[phone] for phone in entry.phones))
    return spelled


def labels(phones: PhoneSet) -> list[str]:
    """pyctcdecode's alphabet in the order of `doubled`: the blank, then each letter as it begins a word, then
    as it goes on."""
    spelled = list(letters(phones).values())
    return ["", *(BEGINS + letter for letter in spelled), *spelled]


def doubled(log_probs: np.ndarray) -> np.ndarray:
    """(..., tokens) -> (..., 2 * tokens - 1): every phone twice. Not normalised: pyctcdecode does that, and a
    constant of a frame changes nothing."""
    return np.concatenate([log_probs, log_probs[..., 1:]], axis=-1)


def write_language_model(
    lexicon: Path, lm: train_lm.Config, phones: PhoneSet, folder: Path
) -> dict[str, str]:
    """Write `folder`/lm.arpa, estimated as `lm` is, but over spelled words, and return their spelling."""
    folder.mkdir(parents=True, exist_ok=True)
    spelled = spell(Lexicon.read([lexicon], phones).entries, phones)
    words = folder / "words.txt"
    words.write_text("\n".join(dict.fromkeys(spelled.values())) + "\n", encoding="utf-8")
    out = folder / "lm.arpa"
    if not out.is_file():
        exclusion, unwanted = Exclusion.read(lm.exclude), train_lm.unwanted_words(lm)
        texts = [folder / f"{text.name.split('.')[0]}.txt" for text in lm.texts]
        for source, target in zip(lm.texts, texts, strict=True):
            with target.open("w", encoding="utf-8") as file:
                sentences = training_sentences(source, lm.held_out_every, exclusion, unwanted)
                file.writelines(rewritten(sentences, spelled))
        train_lm.main(train_lm.Config(texts=tuple(texts), out=out, lexicon=words))
        for text in texts:
            text.unlink()
    return spelled


def rewritten(sentences: Iterable[str], spelled: dict[str, str]) -> Iterator[str]:
    for sentence in sentences:
        yield " ".join(spelled.get(word, "x") for word in sentence.split()) + "\n"


def read_back(spelled: dict[str, str], heard: Sequence[str]) -> list[str]:
    """Spelled words -> the first word of each spelling; what is no word's stays as it is."""
    words: dict[str, str] = {}
    for word, letters_of_it in spelled.items():
        words.setdefault(letters_of_it, word)
    return [words.get(word, word) for word in heard]
