"""Emissions to phones, without any lexicon: the best path, or the best one under a phone n-gram.

A model that was trained with CTC-CRF leaves to the n-gram what the phones before tell of the next one: only
together with it are its scores probabilities (Xiang & Ou 2019, CRF-based single-stage acoustic modeling with
CTC topology, section 3). So its most likely phones need the n-gram that it was trained with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from asr.phones import PhoneSet

# The model's own weight is 1. The text of its training is small, its scores are too sure: less is better.
PHONE_LM_WEIGHT = 0.5
_BEAM = np.float32(8.0)  # already 5 finds the same paths
_NEVER = np.float32(-1e30)


def decode_phones(
    log_probs: Any,
    lengths: Any,
    phones: PhoneSet,
    phone_lm: np.ndarray | None = None,
    weight: float = PHONE_LM_WEIGHT,
) -> list[tuple[str, ...]]:
    """The phones of each utterance.

    `log_probs`: (batch, frames, tokens), natural log, numpy or torch; `lengths`: (batch,) frames of each.
    `phone_lm`: (tokens, tokens, tokens) float32, natural log, of phone c after the phones a, b; as a history
    token 0 is the beginning, as c it is the end. Without it the likeliest token of each frame is taken.
    Repetitions and blanks are removed.
    """
    rows = np.asarray(log_probs.detach().cpu() if hasattr(log_probs, "detach") else log_probs)
    steps = None if phone_lm is None else np.asarray(weight * phone_lm, np.float32)
    results = []
    for utterance, length in zip(rows, lengths, strict=True):
        found = best_tokens(utterance[: int(length)], steps)
        results.append(tuple(phones.symbols[t] for t in found))
    return results


def best_tokens(log_probs: np.ndarray, steps: np.ndarray | None = None) -> np.ndarray:
    """(frames, tokens), natural log, and the weighted n-gram (tokens, tokens, tokens) float32 -> the tokens
    of the path where both have the highest sum, int64: Viterbi over the last two phones and whether the last
    frame was blank. Without an n-gram the likeliest token of each frame, repetitions and blanks removed."""
    if steps is None:
        best = log_probs.argmax(1)
        changes = best[np.flatnonzero(np.diff(best, prepend=-1) != 0)]
        return changes[changes != 0]
    rows = np.ascontiguousarray(log_probs, np.float32)
    return _search(rows, steps) if len(rows) else np.zeros(0, np.int64)


@njit(cache=True, nogil=True)
def _search(rows, steps):
    frames, tokens = rows.shape
    # A state is (a * tokens + b) * 2 + whether the last frame sounded, a and b the last two phones.
    states = 2 * tokens * tokens
    score = np.full((2, states), _NEVER, np.float32)
    back = np.empty((frames, states), np.int32)  # only what the search touches is ever written
    active = np.empty((2, states), np.int32)
    score[0, 0] = 0.0
    active[0, 0] = 0
    count, top = 1, np.float32(0.0)
    for t in range(frames):
        old, new = score[t % 2], score[(t + 1) % 2]
        among, reached = active[t % 2], active[(t + 1) % 2]
        row = rows[t]
        following, best = 0, _NEVER
        for i in range(count):
            state = among[i]
            value = old[state]
            old[state] = _NEVER
            if value < top - _BEAM:
                continue
            b, sounds = (state // 2) % tokens, state % 2
            first = b * tokens
            history = steps[state // 2 // tokens, b]
            for c in range(tokens):
                if c == 0:
                    target = state - sounds
                    total = value + row[0]
                elif sounds and c == b:
                    target = state
                    total = value + row[c]
                else:
                    target = (first + c) * 2 + 1
                    total = value + row[c] + history[c]
                if total > new[target] and total > best - _BEAM:
                    if new[target] == _NEVER:
                        reached[following] = target
                        following += 1
                    new[target] = total
                    back[t, target] = state
                    best = max(best, total)
        count, top = following, best
    return _trace(score[frames % 2], active[frames % 2, :count], back, steps)


@njit(cache=True, nogil=True)
def _trace(score, active, back, steps):
    """The phones of the best path that ends here, with what the n-gram gives to the end."""
    frames, tokens = back.shape[0], steps.shape[0]
    state, best = 0, np.float32(-np.inf)
    for last in active:
        total = score[last] + steps[last // 2 // tokens, (last // 2) % tokens, 0]
        if total > best:
            state, best = last, total
    found = np.empty(frames, np.int64)
    at = frames
    for t in range(frames - 1, -1, -1):
        before = back[t, state]
        # A phone begins where the sounding state is another one than before.
        if state % 2 and before != state:
            at -= 1
            found[at] = (state // 2) % tokens
        state = before
    return found[at:]
