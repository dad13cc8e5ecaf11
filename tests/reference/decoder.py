"""The decoder as its definition reads: every word sequence, every pronunciation, every alignment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Lm = Callable[[Sequence[str]], float]
"""Words -> natural log-probability of them and the sentence end."""


def log_add(values: Sequence[float]) -> float:
    high = max(values, default=-math.inf)
    return high if high == -math.inf else high + math.log(sum(math.exp(v - high) for v in values))


def ctc_score(log_probs: np.ndarray, tokens: Sequence[int]) -> float:
    """Log of the summed probability of all frame labellings that collapse to `tokens` (Graves et al. 2006,
    eq. 3), by trying every labelling with blank and the tokens that occur."""
    scores = []
    for labels in itertools.product(sorted({0, *tokens}), repeat=len(log_probs)):
        collapsed = [k for k, _ in itertools.groupby(labels)]
        if [k for k in collapsed if k] == list(tokens):
            scores.append(sum(float(log_probs[t, k]) for t, k in enumerate(labels)))
    return log_add(scores)


def decode(
    log_probs: np.ndarray,
    pronunciations: Sequence[tuple[str, Sequence[int], float]],
    lm: Lm,
    lm_weight: float,
    most_words: int,
) -> list[tuple[tuple[str, ...], float]]:
    """(word, tokens, score beside the language model) -> all word sequences with their scores, best first."""
    scores: dict[tuple[str, ...], list[float]] = {}
    for count in range(most_words + 1):
        for path in itertools.product(pronunciations, repeat=count):
            tokens = [t for _, sounds, _ in path for t in sounds]
            acoustic = ctc_score(log_probs, tokens) if len(tokens) <= len(log_probs) else -math.inf
            if acoustic > -math.inf:
                words = tuple(word for word, _, _ in path)
                score = acoustic + sum(bonus for _, _, bonus in path) + lm_weight * lm(words)
                scores.setdefault(words, []).append(score)
    summed = [(words, log_add(values)) for words, values in scores.items()]
    return sorted(summed, key=lambda item: -item[1])
