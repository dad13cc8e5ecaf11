"""The best alignment by trying all: every pronunciation, every silence, every length of every state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np


def sequences(pronunciations: Sequence[Sequence[Sequence[int]]]) -> Iterator[list[int]]:
    """All sequences of classes of a transcript: 3 states a phone, silence (phone 0) between words or not."""
    for chosen in itertools.product(*pronunciations):
        for silences in itertools.product((False, True), repeat=len(chosen) + 1):
            phones = [0] if silences[0] else []
            for sounds, silence in zip(chosen, silences[1:], strict=True):
                phones += [*sounds, *([0] if silence else [])]
            yield [3 * phone + k for phone in phones for k in range(3)]


def best_score(pronunciations: Sequence[Sequence[Sequence[int]]], scores: np.ndarray) -> float:
    """The highest sum of scores (frames, classes) over all alignments; -inf for too few frames."""
    best = -math.inf
    frames = len(scores)
    for classes in sequences(pronunciations):
        if not 0 < len(classes) <= frames:
            continue
        for cuts in itertools.combinations(range(1, frames), len(classes) - 1):
            bounds = [0, *cuts, frames]
            total = sum(
                float(scores[a:b, c].sum()) for c, a, b in zip(classes, bounds, bounds[1:], strict=False)
            )
            best = max(best, total)
    return best
