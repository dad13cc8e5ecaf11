"""CTC-CRF by the definition: every path, every phone string."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def collapse(path: Sequence[int]) -> tuple[int, ...]:
    """The phones of a CTC path: repetitions joined, then blanks (0) out."""
    return tuple(token for token, _ in itertools.groupby(path) if token)


def string_probability(phones: Sequence[int], ngram: np.ndarray) -> float:
    """Product of ngram[a, b, c] over the string and its end (c = 0), from the beginning (0, 0)."""
    a = b = 0
    probability = 1.0
    for c in (*phones, 0):
        probability *= float(ngram[a, b, c])
        a, b = b, c
    return probability


def weights_of_strings(scores: np.ndarray, ngram: np.ndarray) -> dict[tuple[int, ...], float]:
    """scores (frames, tokens) -> for each string that fits its paths' summed exp(scores) times its
    probability."""
    weights: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        score = sum(float(scores[t, token]) for t, token in enumerate(path))
        phones = collapse(path)
        weights[phones] += float(np.exp(score)) * string_probability(phones, ngram)
    return weights


def loss(scores: np.ndarray, target: Sequence[int], ngram: np.ndarray) -> float:
    weights = weights_of_strings(scores, ngram)
    return float(np.log(sum(weights.values())) - np.log(weights[tuple(target)]))


def shares_of_tokens(scores: np.ndarray, ngram: np.ndarray) -> np.ndarray:
    """(frames, tokens): the share of all paths' weight that goes through each token."""
    shares = np.zeros_like(scores)
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        score = sum(float(scores[t, token]) for t, token in enumerate(path))
        weight = np.exp(score) * string_probability(collapse(path), ngram)
        for t, token in enumerate(path):
            shares[t, token] += weight
    return shares / shares.sum(1, keepdims=True)
