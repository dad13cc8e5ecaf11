"""What the scores of one path over the emissions are, and where its tokens begin. These kernels take
arrays."""

from __future__ import annotations

import numpy as np
from numba import njit

_NEVER = np.float32(-1e30)


@njit(cache=True, nogil=True)
def ctc_score(log_probs, tokens):
    """Log of the summed probability of all alignments of `tokens` (Graves et al. 2006, section 4.1); arrays,
    not addresses."""
    states = 2 * tokens.shape[0] + 1
    score = np.full(states, -np.inf)
    score[0] = 0.0
    for t in range(log_probs.shape[0]):
        for s in range(states - 1, -1, -1):
            token = tokens[s // 2] if s % 2 else 0
            value = score[s] if t > 0 or s == 0 else -np.inf
            if s > 0:
                value = np.logaddexp(value, score[s - 1])
            if s % 2 and s > 2 and token != tokens[s // 2 - 1]:
                value = np.logaddexp(value, score[s - 2])
            score[s] = value + log_probs[t, token]
        if t == 0:
            score[2:] = -np.inf
    return score[0] if states == 1 else np.logaddexp(score[states - 1], score[states - 2])


@njit(cache=True, nogil=True)
def place_tokens(log_probs, tokens, word_ends, last_frames, frames):
    """The frame in which each token of a path begins, int32 into `frames`.

    A word's last token begins in its frame of `last_frames`; those before it lie between the word before and
    there as the emissions have it best.
    """
    first, at = 0, 0
    for w in range(word_ends.shape[0]):
        last, end = last_frames[w], word_ends[w]
        n, span = end - at, last - first + 1
        # best[t, k]: tokens 0..k of the word have begun by frame first + t, the k-th is the last heard or its
        # blank after it.
        score = np.full((span, 2 * n), _NEVER, np.float32)
        back = np.zeros((span, 2 * n), np.int8)
        wait = np.float32(0.0)
        for t in range(span):
            row = log_probs[first + t]
            for k in range(n):
                phone = row[tokens[at + k]]
                # Column 2k: the phone sounds; column 2k + 1: blank after it.
                if k == 0:
                    best, step = wait, 1
                elif t == 0:
                    best, step = _NEVER, 1
                else:
                    best, step = score[t - 1, 2 * k - 1], 1
                    if tokens[at + k] != tokens[at + k - 1] and score[t - 1, 2 * k - 2] > best:
                        best, step = score[t - 1, 2 * k - 2], 2
                if t > 0 and score[t - 1, 2 * k] > best:
                    best, step = score[t - 1, 2 * k], 0
                score[t, 2 * k], back[t, 2 * k] = best + phone, step
                if t > 0:
                    best, step = score[t - 1, 2 * k + 1], 0
                    if score[t - 1, 2 * k] > best:
                        best, step = score[t - 1, 2 * k], 1
                    score[t, 2 * k + 1], back[t, 2 * k + 1] = best + row[0], step
            wait += row[0]
        # The last token begins in the last frame, whatever else would be likelier.
        t, k = span - 1, n - 1
        frames[end - 1] = last
        if n > 1:
            t -= 1
            blank_before = score[t, 2 * k - 1] if t >= 0 else _NEVER
            direct = score[t, 2 * k - 2] if t >= 0 and tokens[end - 1] != tokens[end - 2] else _NEVER
            column = 2 * k - 1 if blank_before > direct else 2 * k - 2
            while t >= 0 and column >= 0:
                step = back[t, column]
                if column % 2:
                    column -= step
                elif step:
                    frames[at + column // 2] = first + t
                    column -= step
                t -= 1
        first, at = last + 1, end
