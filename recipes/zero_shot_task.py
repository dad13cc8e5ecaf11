"""The task of zero_shot.py: which words are held out, which are added beside them, and what is counted.

A word that the acoustic model never heard labelled is taken away from the lexicon and from the language
model's texts, and comes back as a line of a lexicon file. Every word is held out in one of two folds and
known in the other, so that held-out words and the known ones they are compared with are the same words.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from asr.lexicon import Entry
from asr.metrics import Errors, align, count_errors, recall

FOLDS = 2
SHORTEST = 4  # phones: what is shorter is no name, and seldom a word that somebody misses


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one decoding of all utterances makes of the words that were added.

    `said`, `found`: occurrences of held-out words. `known_said`, `known_found`: of the other fold's words.
    `false`: held-out words and distractors heard where they were not said. `others`: errors at all words but
    the held-out ones, insertions included. `untouched`: the errors in utterances without a held-out word,
    where an added word can do nothing but harm.
    """

    said: int = 0
    found: int = 0
    known_said: int = 0
    known_found: int = 0
    false: int = 0
    others: Errors = field(default_factory=Errors)
    untouched: Errors = field(default_factory=Errors)

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})

    @property
    def recall(self) -> float:
        return self.found / max(self.said, 1)

    @property
    def known_recall(self) -> float:
        return self.known_found / max(self.known_said, 1)

    @property
    def precision(self) -> float:
        return self.found / max(self.found + self.false, 1)


def count(
    references: Sequence[Sequence[str]],
    heard: Sequence[Sequence[str]],
    held_out: frozenset[str],
    known: frozenset[str],
    distractors: Collection[str],
) -> Counts:
    """All words in normal form; `references` and `heard` are those of the same utterances."""
    texts = [(" ".join(a), " ".join(b)) for a, b in zip(references, heard, strict=True)]
    wanted, other_fold = recall(texts, held_out), recall(texts, known)
    others, untouched = Errors(), Errors()
    for reference, words in zip(references, heard, strict=True):
        pairs = align(reference, words)
        others += count_errors(pair for pair in pairs if pair[0] not in held_out)
        if held_out.isdisjoint(reference):
            untouched += count_errors(pairs)
    return Counts(
        said=wanted.said,
        found=wanted.found,
        known_said=other_fold.said,
        known_found=other_fold.found,
        false=wanted.false + recall(texts, distractors).false,
        others=others,
        untouched=untouched,
    )


def choose(
    said: Sequence[Sequence[str]], trained: Sequence[Sequence[str]], entries: Sequence[Entry], seed: int
) -> list[list[str]]:
    """The words of each fold: said, in the lexicon, never said in training, of SHORTEST phones or more.

    Pairs of words alike in length and then in frequency (the order of the lexicon) are parted by lot.
    """
    heard = {word for words in trained for word in words}
    lengths: dict[str, int] = {}
    for entry in entries:
        lengths[entry.word] = min(len(entry.phones), lengths.get(entry.word, len(entry.phones)))
    rank = {word: i for i, word in enumerate(lengths)}
    chosen = {w for words in said for w in words if lengths.get(w, 0) >= SHORTEST and w not in heard}
    ordered = sorted(chosen, key=lambda word: (lengths[word], rank[word]))
    lots = random.Random(seed)
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for i in range(0, len(ordered), FOLDS):
        for fold, word in zip(lots.sample(range(FOLDS), FOLDS), ordered[i : i + FOLDS], strict=False):
            folds[fold].append(word)
    return folds
