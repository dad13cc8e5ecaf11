"""Which letters write which phones: words cut into pairs, one or two phones with up to four letters.

A pair is a number, `phones * _FOUR + letters`: its phones are one or two tokens, its letters the digits of a
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
MOST_TOKENS = 64  # a second phone counts so many times its token
_DIGITS = len(ALPHABET) + 1  # 0 is no letter
_FOUR = _DIGITS**4
# Phones and letters of a pair, and how likely it is before anything is known: that long pairs explain a word
# with few of them must not count for them.
_SHAPES = np.array([(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1)], np.int64)
_FIRST = np.array([1e-2, 1.0, 1e-1, 1e-2, 1e-3, 1e-2])
_BAND = 4  # letters by which a pair may be off the diagonal of its word
_RARE = 1e-6  # pairs that make up less of all are dropped
_SAMPLE = 20_000  # words
_ROUNDS = 8


@dataclass(frozen=True)
class Words:
    """Spellings and pronunciations, flat: word i is letters[letter_at[i] : letter_at[i + 1]] (int64, 1 is
    a) and phones[phone_at[i] : phone_at[i + 1]] (int64 tokens)."""

    letters: np.ndarray
    letter_at: np.ndarray
    phones: np.ndarray
    phone_at: np.ndarray

    @classmethod
    def of(cls, words: Sequence[tuple[str, Sequence[int]]]) -> Words:
        return cls(
            letters=np.array([ALPHABET.index(c) + 1 for word, _ in words for c in word], np.int64),
            letter_at=np.cumsum([0, *(len(word) for word, _ in words)]),
            phones=np.array([t for _, tokens in words for t in tokens], np.int64),
            phone_at=np.cumsum([0, *(len(tokens) for _, tokens in words)]),
        )

    def __len__(self) -> int:
        return len(self.letter_at) - 1


def phones_of(pairs: np.ndarray) -> np.ndarray:
    """One token, or the first and MOST_TOKENS times the second."""
    return pairs // _FOUR


def letters_of(pair: int) -> str:
    rest, found = int(pair) % _FOUR, ""
    while rest:
        found = ALPHABET[rest % _DIGITS - 1] + found
        rest //= _DIGITS
    return found


def learn_pairs(words: Sequence[tuple[str, Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs in ascending order and their probabilities, by expectation maximisation over a sample of the
    words, (spelling, tokens)."""
    sample = Words.of(words[:: max(1, len(words) // _SAMPLE)])
    found, shapes = _possible(sample.letters, sample.letter_at, sample.phones, sample.phone_at)
    pairs, first, counts = np.unique(found, return_index=True, return_counts=True)
    probability = counts * _FIRST[shapes[first]]
    for _ in range(_ROUNDS):
        probability /= probability.sum()
        kept = probability > _RARE
        pairs, probability = pairs[kept], probability[kept] / probability[kept].sum()
        probability = _expected(
            sample.letters, sample.letter_at, sample.phones, sample.phone_at, pairs, probability
        )
    return pairs, probability / probability.sum()


def cut_words(
    words: Sequence[tuple[str, Sequence[int]]], pairs: np.ndarray, probability: np.ndarray
) -> list[np.ndarray]:
    """For each word the likeliest pairs that make it up, as places in `pairs`; empty where none do."""
    flat = Words.of(words)
    places, ends = _best(
        flat.letters, flat.letter_at, flat.phones, flat.phone_at, pairs, np.log(probability + 1e-30)
    )
    return np.split(places, ends[:-1])


@njit(cache=True)
def _pair(letters, at, num_letters, phones, to, num_phones):
    """The pair of num_phones phones from place `to` and num_letters letters from place `at`."""
    spelt = 0
    for k in range(num_letters):
        spelt = spelt * _DIGITS + letters[at + k]
    said = phones[to]
    if num_phones == 2:
        said += MOST_TOKENS * phones[to + 1]
    return said * _FOUR + spelt


@njit(cache=True)
def _fits(i, j, shape, num_phones, num_letters):
    """Whether a pair of this shape may begin at phone i and letter j."""
    a, b = i + _SHAPES[shape, 0], j + _SHAPES[shape, 1]
    return (
        a <= num_phones and b <= num_letters and abs(b * num_phones - a * num_letters) <= _BAND * num_phones
    )


@njit(cache=True)
def _possible(letters, letter_at, phones, phone_at):
    """Every pair that a word may hold, as often as there are places for it, and its shape."""
    found, shapes = [np.int64(0) for _ in range(0)], [np.int8(0) for _ in range(0)]
    for w in range(letter_at.shape[0] - 1):
        num_letters, num_phones = letter_at[w + 1] - letter_at[w], phone_at[w + 1] - phone_at[w]
        for i in range(num_phones):
            for j in range(num_letters + 1):
                for s in range(_SHAPES.shape[0]):
                    if _fits(i, j, s, num_phones, num_letters):
                        pair = _pair(
                            letters, letter_at[w] + j, _SHAPES[s, 1], phones, phone_at[w] + i, _SHAPES[s, 0]
                        )
                        found.append(pair)
                        shapes.append(np.int8(s))
    return np.array(found), np.array(shapes)


@njit(cache=True)
def _place(pairs, pair):
    """Where in the sorted pairs, -1 for nowhere."""
    place = np.searchsorted(pairs, pair)
    return place if place < pairs.shape[0] and pairs[place] == pair else -1


@njit(cache=True)
def _expected(letters, letter_at, phones, phone_at, pairs, probability):
    """How often each pair is expected in the words: forward and backward sums over all ways to cut them."""
    expected = np.zeros(pairs.shape[0])
    for w in range(letter_at.shape[0] - 1):
        m, n = phone_at[w + 1] - phone_at[w], letter_at[w + 1] - letter_at[w]
        before, after = np.zeros((m + 1, n + 1)), np.zeros((m + 1, n + 1))
        places = np.full((m, n + 1, _SHAPES.shape[0]), -1, np.int64)
        before[0, 0] = after[m, n] = 1.0
        for i in range(m):
            for j in range(n + 1):
                if before[i, j] == 0.0:
                    continue
                for s in range(_SHAPES.shape[0]):
                    if _fits(i, j, s, m, n):
                        a, b = _SHAPES[s]
                        pair = _pair(letters, letter_at[w] + j, b, phones, phone_at[w] + i, a)
                        place = _place(pairs, pair)
                        places[i, j, s] = place
                        if place >= 0:
                            before[i + a, j + b] += before[i, j] * probability[place]
        if before[m, n] == 0.0:
            continue
        for i in range(m - 1, -1, -1):
            for j in range(n, -1, -1):
                for s in range(_SHAPES.shape[0]):
                    place = places[i, j, s]
                    if place >= 0:
                        a, b = _SHAPES[s]
                        through = probability[place] * after[i + a, j + b]
                        after[i, j] += through
                        expected[place] += before[i, j] * through / before[m, n]
    return expected


@njit(cache=True)
def _best(letters, letter_at, phones, phone_at, pairs, log_prob):
    """Places in `pairs` of the best cut of each word, one after the other, and where each word's end."""
    places = np.zeros(phones.shape[0], np.int64)
    ends = np.zeros(letter_at.shape[0] - 1, np.int64)
    count = 0
    for w in range(letter_at.shape[0] - 1):
        m, n = phone_at[w + 1] - phone_at[w], letter_at[w + 1] - letter_at[w]
        score = np.full((m + 1, n + 1), -np.inf)
        shape = np.zeros((m + 1, n + 1), np.int64)
        taken = np.zeros((m + 1, n + 1), np.int64)
        score[0, 0] = 0.0
        for i in range(m):
            for j in range(n + 1):
                if score[i, j] == -np.inf:
                    continue
                for s in range(_SHAPES.shape[0]):
                    if _fits(i, j, s, m, n):
                        a, b = _SHAPES[s]
                        pair = _pair(letters, letter_at[w] + j, b, phones, phone_at[w] + i, a)
                        place = _place(pairs, pair)
                        if place >= 0 and score[i, j] + log_prob[place] > score[i + a, j + b]:
                            score[i + a, j + b] = score[i, j] + log_prob[place]
                            shape[i + a, j + b], taken[i + a, j + b] = s, place
        if score[m, n] > -np.inf:
            first, i, j = count, m, n
            while i:
                places[count] = taken[i, j]
                count += 1
                s = shape[i, j]
                i, j = i - _SHAPES[s, 0], j - _SHAPES[s, 1]
            places[first:count] = places[first:count][::-1].copy()
        ends[w] = count
    return places[:count], ends
