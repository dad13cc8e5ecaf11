"""Paths, spans and cuts by trying them all: for a handful of frames, tokens and letters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

Tokens = tuple[int, ...]


def collapsed(path: Sequence[int]) -> Tokens:
    """What a CTC path says: repetitions and blanks removed."""
    return tuple(t for t, before in zip(path, (-1, *path), strict=False) if t not in (before, 0))


def all_strings(log_probs: np.ndarray) -> dict[Tokens, float]:
    """Every token string with the natural log of its probability, over all paths."""
    found: dict[Tokens, float] = {}
    frames, tokens = log_probs.shape
    for path in itertools.product(range(tokens), repeat=frames):
        score = float(sum(log_probs[t, token] for t, token in enumerate(path)))
        said = collapsed(path)
        found[said] = float(np.logaddexp(found.get(said, -math.inf), score))
    return found


def best_span(log_probs: np.ndarray, tokens: Tokens, free: bool) -> float:
    """Score of the best way to say `tokens` somewhere, blank or, with `free`, anything around them."""
    frames = len(log_probs)
    outside = log_probs.max(1) if free else log_probs[:, 0]
    best = -math.inf
    for first, last in itertools.combinations(range(frames + 1), 2):
        around = float(outside[:first].sum() + outside[last:].sum())
        for path in itertools.product(range(log_probs.shape[1]), repeat=last - first):
            if collapsed(path) == tokens and path[0] and path[-1]:
                inside = float(sum(log_probs[first + t, token] for t, token in enumerate(path)))
                best = max(best, around + inside)
    return best


def cuts(
    phones: Tokens, letters: str, shapes: Sequence[tuple[int, int]]
) -> Iterator[list[tuple[Tokens, str]]]:
    """Every way to cut a word into pairs of the shapes (phones, letters)."""
    if not phones:
        if not letters:
            yield []
        return
    for a, b in shapes:
        if a <= len(phones) and b <= len(letters):
            for rest in cuts(phones[a:], letters[b:], shapes):
                yield [(phones[:a], letters[:b]), *rest]
