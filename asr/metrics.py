"""Word and phone error rates, their intervals, and recall of chosen words.

Items are words or phones, all in normal form already (`asr.text.normalize`); rates are fractions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Pair = tuple[str, str]
"""(reference item, heard item); '' stands for nothing on either side."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """`errors` = substitutions + deletions + insertions against `total` reference items."""

    errors: int = 0
    total: int = 0

    @property
    def rate(self) -> float:
        return self.errors / max(self.total, 1)

    def __add__(self, other: Errors) -> Errors:
        return Errors(errors=self.errors + other.errors, total=self.total + other.total)


def align(reference: Sequence[str], heard: Sequence[str]) -> list[Pair]:
    """An alignment with the fewest errors; of several, one that pairs unequal items as late as possible.

    Memory grows with the product of both lengths, four bytes each.
    """
    costs = _costs(*_numbered(reference, heard))
    pairs: list[Pair] = []
    i, j = len(reference), len(heard)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (reference[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], heard[j]))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((reference[i], ""))
        else:
            j -= 1
            pairs.append(("", heard[j]))
    return pairs[::-1]


def _costs(reference: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Edit distances of all prefixes, int32 (reference + 1, heard + 1), a row at a time."""
    offsets = np.arange(len(heard) + 1, dtype=np.int32)
    costs = np.empty((len(reference) + 1, len(heard) + 1), np.int32)
    costs[0] = offsets
    for i, item in enumerate(reference, 1):
        row = costs[i]
        row[:] = costs[i - 1] + 1
        np.minimum(row[1:], costs[i - 1, :-1] + (heard != item), out=row[1:])
        # Insertions run along the row: cost[j] = min over k <= j of cost[k] + (j - k).
        row[:] = np.minimum.accumulate(row - offsets) + offsets
    return costs


def _numbered(*sequences: Sequence[Hashable]) -> list[np.ndarray]:
    ids: dict[Hashable, int] = {}
    return [np.array([ids.setdefault(s, len(ids)) for s in items], np.int64) for items in sequences]


def count_errors(pairs: Iterable[Pair]) -> Errors:
    """The errors of an alignment."""
    pairs = list(pairs)
    return Errors(errors=sum(a != b for a, b in pairs), total=sum(a != "" for a, _ in pairs))


def phone_errors(variants: Sequence[Sequence[Sequence[Hashable]]], heard: Sequence[Hashable]) -> Errors:
    """Errors against the nearest way to pronounce an utterance.

    `variants`: for each word its pronunciations, at least one, in symbols or numbers of phones.
    All ways are searched at once, word by word; of equally near ones the shortest gives `total`.
    """
    flat = [phone for pronunciations in variants for phones in pronunciations for phone in phones]
    numbers, heard_ids = _numbered(flat, heard)
    # An error and a reference phone in one integer: the error count decides, then the number of phones.
    error, mask = np.int64(1 << 32), (1 << 32) - 1
    offsets = np.arange(len(heard) + 1, dtype=np.int64) * error
    best = offsets.copy()
    at = 0
    for pronunciations in variants:
        ways = []
        for phones in pronunciations:
            row = best
            for item in numbers[at : at + len(phones)]:
                following = row + error
                np.minimum(following[1:], row[:-1] + error * (heard_ids != item), out=following[1:])
                row = np.minimum.accumulate(following - offsets) + offsets + 1
            at += len(phones)
            ways.append(row)
        best = np.minimum.reduce(ways)
    return Errors(errors=int(best[-1] >> 32), total=int(best[-1] & mask))


def bootstrap_interval(
    counts: Sequence[Errors], samples: int = 2000, seed: int = 0, coverage: float = 0.95
) -> tuple[float, float]:
    """Interval of the error rate when the utterances are drawn anew (Bisani & Ney 2004, 2)."""
    if not counts:
        return 0.0, 0.0
    errors = np.array([c.errors for c in counts], np.float64)
    totals = np.array([c.total for c in counts], np.float64)
    random = np.random.default_rng(seed)
    rates = np.empty(samples)
    for i in range(samples):
        drawn = random.integers(len(counts), size=len(counts))
        rates[i] = errors[drawn].sum() / max(totals[drawn].sum(), 1.0)
    low, high = np.quantile(rates, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How often chosen words were `said`, `found` where said, and heard where they were not (`false`).

    `by_word`: word -> the same three numbers, for the words that were said or heard.
    """

    said: int
    found: int
    false: int
    by_word: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.found / max(self.said, 1)


def recall(texts: Iterable[tuple[str, str]], words: Iterable[str]) -> Recall:
    """Recall of `words` (several words make a phrase) over (reference, heard) texts.

    Counted within each utterance, wherever in it: a word said twice and heard three times was found twice and
    is one false alarm.
    """
    phrases = [tuple(word.split()) for word in dict.fromkeys(words) if word.split()]
    lengths = {len(phrase) for phrase in phrases}
    wanted = set(phrases)
    counts: dict[tuple[str, ...], list[int]] = {}
    for reference, heard in texts:
        said, found = (_occurrences(text.split(), wanted, lengths) for text in (reference, heard))
        for phrase in said | found:
            row = counts.setdefault(phrase, [0, 0, 0])
            row[0] += said[phrase]
            row[1] += min(said[phrase], found[phrase])
            row[2] += max(0, found[phrase] - said[phrase])
    by_word = {" ".join(p): (a, b, c) for p, (a, b, c) in counts.items()}
    said_in_all, found_in_all, false_in_all = (sum(row[i] for row in counts.values()) for i in range(3))
    return Recall(said=said_in_all, found=found_in_all, false=false_in_all, by_word=by_word)


def _occurrences(
    words: Sequence[str], wanted: set[tuple[str, ...]], lengths: set[int]
) -> Counter[tuple[str, ...]]:
    windows = (tuple(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1))
    return Counter(window for window in windows if window in wanted)
