"""The phones of emissions under a phone n-gram by trying every path."""

from __future__ import annotations

import itertools

import numpy as np
from reference.ctc_crf import collapse, string_probability


def best_path(log_probs: np.ndarray, ngram: np.ndarray, weight: float) -> tuple[int, ...]:
    """(frames, tokens), probabilities (tokens, tokens, tokens) -> the string of the path whose log-probs and
    weighted log of the string's probability have the highest sum."""

    def total(path: tuple[int, ...]) -> float:
        score = sum(float(log_probs[t, token]) for t, token in enumerate(path))
        return score + weight * float(np.log(string_probability(collapse(path), ngram)))

    paths = itertools.product(range(log_probs.shape[1]), repeat=len(log_probs))
    return collapse(max(paths, key=total))
