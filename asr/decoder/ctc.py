"""What the scores of one path over the emissions are, and where its tokens begin. These kernels take
arrays."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_NEVER = np.float32(-1e30)
# Of the likeliest number of tokens: ten times the natural logs that the search's beam is wide.
_BESIDE = 1e-60
# Probabilities are scaled before they are smaller: a frame's least share (1e-130) and _BESIDE of it still are
# numbers then.
_SMALL = 1e-60


@njit(cache=True, nogil=True)
def relative(log_probs):
    """The probabilities (frames, tokens) of each frame as shares of its likeliest token's, float64, and the
    sum of those tokens' logs. Shares below exp(-300) count as that: what is impossible can be told from what
    is impossible twice."""
    shares = np.empty(log_probs.shape)
    highest = 0.0
    for t in range(log_probs.shape[0]):
        best = log_probs[t].max()
        highest += best
        for k in range(log_probs.shape[1]):
            shares[t, k] = math.exp(max(log_probs[t, k] - best, -300.0))
    return shares, highest


@njit(cache=True, nogil=True)
def relative_score(shares, tokens):
    """Log of the summed probability of all alignments of `tokens` int16 (Graves et al. 2006, section 4.1), of
    what `relative` gave: less the sum that it gave beside. Without logarithms, and scaled before it is too
    small."""
    return _forward(shares, tokens, 0.0)


@njit(cache=True, nogil=True)
def relative_scores(shares, tokens, offsets, words, ends):
    """`relative_score`, float64 (paths,), of paths that a search found: path i has the words
    words[ends[i - 1] : ends[i]], and word w the tokens[offsets[w] : offsets[w + 1]], all integers.

    An alignment that is ten times as far behind at some frame as the search would have followed it does not
    count: of each frame only a few numbers of tokens remain.
    """
    scores = np.empty(ends.shape[0])
    first = np.int64(0)
    for i in range(ends.shape[0]):
        length = np.int64(0)
        for w in words[first : ends[i]]:
            length += offsets[w + 1] - offsets[w]
        path, length = np.empty(length, np.int16), np.int64(0)
        for w in words[first : ends[i]]:
            for k in range(offsets[w], offsets[w + 1]):
                path[length] = tokens[k]
                length += 1
        scores[i] = _forward(shares, path, _BESIDE)
        if scores[i] == -np.inf:
            scores[i] = _forward(shares, path, 0.0)
        first = np.int64(ends[i])
    return scores


@njit(cache=True, nogil=True)
def _forward(shares, tokens, beside):
    """As `relative_score`, without the fewest and the most tokens that could have been heard by a frame, as
    far as they have `beside` of the probability of the likeliest number at most."""
    n = tokens.shape[0]
    # After a frame: the paths that end in blank after k tokens, and in the k-th token; from `low` to `high`.
    blank, token = np.zeros(n + 1), np.zeros(n + 1)
    blank[0] = 1.0
    low, high = 0, 0
    total = 0.0
    for t in range(shares.shape[0]):
        row = shares[t]
        scale = 0.0
        high = min(n, high + 1)
        for k in range(high, max(low, 1) - 1, -1):
            arrive = token[k] + blank[k - 1]
            if k > 1 and tokens[k - 1] != tokens[k - 2]:
                arrive += token[k - 1]
            blank[k] = (blank[k] + token[k]) * row[0]
            token[k] = arrive * row[tokens[k - 1]]
            scale = max(scale, blank[k], token[k])
        if low == 0:
            blank[0] *= row[0]
            scale = max(scale, blank[0])
        if scale == 0.0:
            return -np.inf
        if scale < _SMALL:
            total += math.log(scale)
            for k in range(low, high + 1):
                blank[k] /= scale
                token[k] /= scale
            scale = 1.0
        least = beside * scale
        while blank[low] <= least and token[low] <= least and low < high:
            blank[low] = token[low] = 0.0
            low += 1
        while blank[high] <= least and token[high] <= least and low < high:
            blank[high] = token[high] = 0.0
            high -= 1
    ended = blank[n] + token[n]
    return total + math.log(ended) if ended > 0.0 else -np.inf


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
