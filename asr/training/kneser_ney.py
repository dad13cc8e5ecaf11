"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998) in the formulation of lmplz.

Heafield, Pouzyrevsky, Clark and Koehn 2013, "Scalable modified Kneser-Ney language model estimation", section
3: adjusted counts, discounts for adjusted counts of 1, 2 and 3 or more, interpolation down to the uniform
distribution over the vocabulary. Only the n-grams of the highest order are counted in the text; the lower
orders follow from them. One difference: <unk> is never an event and never a context, so that an unknown word
costs its share of the uniform distribution, as in a text without unknown words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.training.lm_counts import Counts, count_ngrams, sum_equal
from asr.training.lm_tables import (
    BOS,
    SPECIAL_WORDS,
    UNK,
    NgramModel,
    Table,
    find_rows,
    word_bits,
)

_FALLBACK = (0.5, 1.0, 1.5)  # lmplz --discount_fallback


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    """The n-grams of one order, sorted. `raw` counts occurrences, `adjusted` different words to the left.

    N-grams of the highest order, and those that begin with <s>, have nothing to their left: adjusted = raw.
    """

    ngrams: np.ndarray
    raw: np.ndarray
    adjusted: np.ndarray


def estimate(
    sentences: Iterable[str],
    vocabulary: Sequence[str],
    order: int = 3,
    block_size: int = 1 << 22,
    min_count: int = 1,
) -> NgramModel:
    """A model of `order` from normalised sentences; all words of `vocabulary` are in it, and the n-grams of
    the highest order that occur `min_count` times.

    Raises ValueError if there is no sentence, or a special word is in the vocabulary.
    """
    words = model_words(vocabulary)
    ids = {word: i for i, word in enumerate(words)}
    counts = count_ngrams(sentences, ids, order, block_size)
    if not len(counts):
        raise ValueError("no sentence to estimate a language model from")
    return from_counts(counts, words, min_count)


def model_words(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """The words of a model by id. Raises ValueError for a special word or a repetition in `vocabulary`."""
    words = (*SPECIAL_WORDS, *vocabulary)
    if len(set(words)) < len(words):
        raise ValueError(f"the vocabulary repeats a word or holds one of {', '.join(SPECIAL_WORDS)}")
    return words


def from_counts(counts: Counts, words: tuple[str, ...], min_count: int = 1) -> NgramModel:
    """A model from the padded n-grams of its highest order, of which it keeps those that occur `min_count`
    times. What the others had is for the n-grams below them, as in lmplz's `--prune`."""
    bits = word_bits(len(words))
    levels = _levels(counts, bits)
    tables = [_unigrams(levels[0], len(words))]
    total = max(1, levels[0].raw.sum())
    for n in range(2, len(levels) + 1):
        level = levels[n - 1]
        contexts = level.ngrams[:, 0].astype(np.int64)
        suffixes = level.ngrams[:, 1].astype(np.int64)
        for k in range(2, n):
            contexts = find_rows(tables[k - 1].keys, contexts << bits | level.ngrams[:, k - 1])
            suffixes = find_rows(tables[k - 1].keys, suffixes << bits | level.ngrams[:, k])
        assert contexts.min(initial=0) >= 0 and suffixes.min(initial=0) >= 0, "an n-gram without its parts"
        least = min_count if n == len(levels) else 1
        tables[-1], table = _interpolated(level, contexts, suffixes, tables[-1], bits, least)
        tables[-1].history[:] = np.bincount(contexts, weights=level.raw, minlength=len(tables[-1])) / total
        tables.append(table)
    return NgramModel(words=words, tables=tuple(tables))


def _levels(counts: Counts, bits: int) -> list[_Level]:
    """All orders, lowest first, without the rows that the model leaves out: <s> as padding, and <unk>."""
    levels: list[_Level] = []
    ngrams, raw, adjusted = counts.ngrams, counts.counts, counts.counts
    while True:
        keep = ~(ngrams == UNK).any(axis=1)
        if ngrams.shape[1] > 1:
            keep &= ngrams[:, 1] != BOS
        levels.insert(0, _Level(ngrams=ngrams[keep], raw=raw[keep], adjusted=adjusted[keep]))
        if ngrams.shape[1] == 1:
            return levels
        shorter, left_words = sum_equal(ngrams[:, 1:], raw, bits)
        ngrams, raw = shorter.ngrams, shorter.counts
        adjusted = np.where(ngrams[:, 0] == BOS, raw, left_words)


def discounts(adjusted: np.ndarray) -> np.ndarray:
    """float64 (4): the discount of an adjusted count of 0, 1, 2, and 3 or more (equation 2 of the paper).

    Where a text is too small for the estimate, those that lmplz falls back to.
    """
    t1, t2, t3, t4 = (int((adjusted == k).sum()) for k in (1, 2, 3, 4))
    if min(t1, t2, t3) == 0:
        return np.array([0.0, *_FALLBACK])
    y = t1 / (t1 + 2 * t2)
    found = [k - (k + 1) * y * after / at for k, at, after in ((1, t1, t2), (2, t2, t3), (3, t3, t4))]
    if not all(0 <= discount <= k for k, discount in enumerate(found, 1)):
        return np.array([0.0, *_FALLBACK])
    return np.array([0.0, *found])


def _unigrams(level: _Level, num_words: int) -> Table:
    """Every word of the vocabulary; the uniform distribution below them leaves out <s>."""
    adjusted = np.zeros(num_words, np.int64)
    adjusted[level.ngrams[:, 0]] = level.adjusted
    discount = discounts(level.adjusted)[np.minimum(adjusted, 3)]
    total = adjusted.sum()
    left_over = discount.sum() / total if total else 1.0
    prob = (adjusted - discount) / max(1, total) + left_over / (num_words - 1)
    prob[BOS] = 0.0
    return Table(
        keys=np.arange(num_words),
        suffix=np.zeros(num_words, np.int32),
        prob=prob,
        backoff=np.ones(num_words),
        history=np.zeros(num_words),
    )


def _interpolated(
    level: _Level, contexts: np.ndarray, suffixes: np.ndarray, below: Table, bits: int, min_count: int
) -> tuple[Table, Table]:
    """The table of an order, and the one below it with the backoffs that belong to it."""
    kept = level.adjusted >= min_count
    discount = discounts(level.adjusted)[np.minimum(level.adjusted, 3)]
    discount = np.where(kept, discount, level.adjusted)
    total = np.bincount(contexts, weights=level.adjusted, minlength=len(below))
    freed = np.bincount(contexts, weights=discount, minlength=len(below))
    backoff = np.where(total > 0, freed / np.maximum(total, 1), 1.0)
    share = (level.adjusted - discount)[kept] / total[contexts[kept]]
    contexts, suffixes = contexts[kept], suffixes[kept]
    prob = share + backoff[contexts] * below.prob[suffixes]
    table = Table(
        keys=contexts << bits | level.ngrams[kept, -1],
        suffix=suffixes.astype(np.int32),
        prob=prob,
        backoff=np.ones(len(prob)),
        history=np.zeros(len(prob)),
    )
    return replace(below, backoff=backoff), table
