"""Weighted edit distance by the definition: every way to turn one sequence into the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np


def distance(a: Sequence[int], b: Sequence[int], substitution: np.ndarray, gap: np.ndarray) -> float:
    """The cheapest: `substitution` (tokens, tokens) to replace, `gap` (tokens,) to leave out or put in."""

    @functools.cache
    def rest(i: int, j: int) -> float:
        if i == len(a) and j == len(b):
            return 0.0
        ways = []
        if i < len(a):
            ways.append(gap[a[i]] + rest(i + 1, j))
        if j < len(b):
            ways.append(gap[b[j]] + rest(i, j + 1))
        if i < len(a) and j < len(b):
            ways.append(substitution[a[i], b[j]] + rest(i + 1, j + 1))
        return float(min(ways))

    return rest(0, 0)
