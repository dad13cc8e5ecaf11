"""Pronunciations that sound like a given one: a search through a sorted list with a bounded edit distance.

The list is its own trie: neighbours in the order of their phones share a beginning, and with it the first
rows of the table of distances; where a row is beyond the bound, all that begin likewise are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from asr.phones import PhoneSet, distance

# How often the embedded model takes one phone for another, as negative natural logs: 205 development
# recordings of five corpora, 11,152 phones, what it heard without a lexicon against what the decoder settled
# on. Pairs that were confused at least eight times, in either direction; others follow their articulation.
_CONFUSED = """
ə ɪ 2.9, ɑː ɔː 3.2, b p 3.3, æ ɛ 3.4, b v 3.5, d t 3.5, d ɾ 3.5, s z 3.5, m n 3.7, ɑː ʌ 3.7, ɛ ɪ 3.7, i iː 3.8
ɪ ᵻ 3.9, n ŋ 4.0, ə ᵻ 4.0, ɛ ʌ 4.0, ɐ ə 4.1, eɪ ɪ 4.3, d ð 4.4, i ɪ 4.4, t ɾ 4.4, uː ɪ 4.4, ɪ ʊ 4.5, iː ɪ 4.6
ə ɚ 4.6, d n 4.7, ɚ ɪ 4.7
"""
_FIRST, _SLOPE, _MOST = 3.5, 0.27, 8.0
# Phones that are often missed, or heard where there are none; the others.
_MISSED = {"j": 2.7, "t": 3.1, "d": 3.2, "ɹ": 3.2, "h": 3.3, "v": 3.4, "ᵻ": 3.4, "i": 3.5, "l": 3.5, "ɾ": 3.5}
_GAP = 4.0


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Negative natural logs of how often it happens. `substitution` float32 (tokens, tokens): a phone is
    taken for another; `gap` float32 (tokens,): it is left out or put in."""

    substitution: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """Pronunciations in the order of their tokens: number i is tokens[offsets[i] : offsets[i + 1]]. `shared`
    int32: how many tokens it has in common with the one before."""

    tokens: np.ndarray
    offsets: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(cls, tokens: np.ndarray, offsets: np.ndarray) -> Sorted:
        tokens, offsets = np.asarray(tokens, np.int16), np.asarray(offsets, np.int32)
        return cls(tokens=tokens, offsets=offsets, shared=_shared(tokens, offsets))


def confusion_costs(phones: PhoneSet) -> Costs:
    """What the embedded model confuses, measured where there was enough to count, else by articulation."""
    size = len(phones)
    substitution = np.zeros((size, size), np.float32)
    for a, first in enumerate(phones.phones, 1):
        for b, second in enumerate(phones.phones, 1):
            if a != b:
                substitution[a, b] = min(_FIRST + _SLOPE * distance(first, second), _MOST)
    for item in _CONFUSED.strip().replace("\n", ",").split(","):
        first, second, cost = item.split()
        if first in phones.ids and second in phones.ids:
            a, b = phones.ids[first], phones.ids[second]
            substitution[a, b] = substitution[b, a] = float(cost)
    gap = [_MISSED.get(symbol, _GAP) for symbol in phones.symbols]
    return Costs(substitution=substitution, gap=np.array(gap, np.float32))


def find_neighbours(
    query: np.ndarray, among: Sorted, costs: Costs, bound: float
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and distances of the pronunciations within `bound` of `query` (int16 tokens), in order."""
    numbers = np.zeros(len(among.shared), np.int32)
    distances = np.zeros(len(among.shared), np.float32)
    count = _search(
        np.asarray(query, np.int16), among.tokens, among.offsets, among.shared, costs.substitution, costs.gap,
        np.float32(bound), numbers, distances,
    )  # fmt: skip
    return numbers[:count].copy(), distances[:count].copy()


@njit(cache=True)
def _shared(tokens, offsets):
    shared = np.zeros(offsets.shape[0] - 1, np.int32)
    for i in range(1, shared.shape[0]):
        a, b = offsets[i - 1], offsets[i]
        most = min(b - a, offsets[i + 1] - b)
        n = 0
        while n < most and tokens[a + n] == tokens[b + n]:
            n += 1
        shared[i] = n
    return shared


@njit(cache=True)
def _search(query, tokens, offsets, shared, substitution, gap, bound, numbers, distances):
    count = 0
    width = query.shape[0] + 1
    longest = 0
    for i in range(shared.shape[0]):
        longest = max(longest, offsets[i + 1] - offsets[i])
    rows = np.zeros((longest + 1, width), np.float32)
    for j in range(1, width):
        rows[0, j] = rows[0, j - 1] + gap[query[j - 1]]
    known = 0  # rows that hold for the pronunciation before
    stopped = -1  # where it went beyond the bound
    for i in range(shared.shape[0]):
        if 0 <= stopped <= shared[i]:
            continue
        stopped = -1
        start, length = offsets[i], offsets[i + 1] - offsets[i]
        depth = min(known, shared[i])
        known = length
        while depth < length:
            token = tokens[start + depth]
            above, row = rows[depth], rows[depth + 1]
            row[0] = above[0] + gap[token]
            least = row[0]
            for j in range(1, width):
                best = above[j - 1] + substitution[token, query[j - 1]]
                best = min(best, above[j] + gap[token])
                best = min(best, row[j - 1] + gap[query[j - 1]])
                row[j] = best
                least = min(least, best)
            depth += 1
            if least > bound:
                stopped = known = depth
                break
        if stopped < 0 and rows[length, width - 1] <= bound:
            numbers[count], distances[count] = i, rows[length, width - 1]
            count += 1
    return count
