"""Where the tokens of a path begin, on a GPU: ctc.place_tokens, one thread a word."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asr.decoder.gpu_block import device, kernel
from asr.decoder.tokens import NEVER


class Words(NamedTuple):
    """The words of a batch. Word w is tokens[offsets[w] : offsets[w + 1]] of utterance[w]; its first token
    begins in frame first[w] at the earliest, its last one in frame last[w]."""

    utterance: Any
    tokens: Any
    offsets: Any
    first: Any
    last: Any


class Scratch(NamedTuple):
    """`frames` int32 (tokens,), all 0 before, is the result; `back` int8 and `scores` float32 are memory to
    work in, of word w from back_at[w] and 4 * offsets[w] on."""

    frames: Any
    back: Any
    back_at: Any
    scores: Any


@device
def place(block, words, scratch, log_probs):
    w = block.number * block.threads + block.thread
    if w < words.utterance.shape[0]:
        _forward(words, scratch, log_probs, w)
        _backward(words, scratch, w)


@device
def _score(words, w, t, k):
    """Where the score of column k in frame t of a word is kept: two frames are."""
    n = words.offsets[w + 1] - words.offsets[w]
    return 4 * words.offsets[w] + (t % 2) * 2 * n + k


@device
def _forward(words, scratch, log_probs, w):
    """The best way to each column in each frame: 2k, token k sounds; 2k + 1, the blank after it."""
    at, u = words.offsets[w], words.utterance[w]
    n, span = words.offsets[w + 1] - at, words.last[w] - words.first[w] + 1
    wait = np.float32(0.0)
    for t in range(span):
        frame = words.first[w] + t
        blank = log_probs[u, frame, 0]
        for k in range(n):
            if k == 0:
                best, step = wait, 1
            elif t == 0:
                best, step = NEVER, 1
            else:
                best, step = scratch.scores[_score(words, w, t - 1, 2 * k - 1)], 1
                direct = scratch.scores[_score(words, w, t - 1, 2 * k - 2)]
                if words.tokens[at + k] != words.tokens[at + k - 1] and direct > best:
                    best, step = direct, 2
            after, after_step = NEVER, 0
            if t > 0:
                sounds, blanks = _score(words, w, t - 1, 2 * k), _score(words, w, t - 1, 2 * k + 1)
                if scratch.scores[sounds] > best:
                    best, step = scratch.scores[sounds], 0
                after = scratch.scores[blanks]
                if scratch.scores[sounds] > after:
                    after, after_step = scratch.scores[sounds], 1
                after = np.float32(after + blank)
            back = scratch.back_at[w] + t * 2 * n + 2 * k
            sounds_now = np.float32(best + log_probs[u, frame, words.tokens[at + k]])
            scratch.scores[_score(words, w, t, 2 * k)], scratch.back[back] = sounds_now, step
            scratch.scores[_score(words, w, t, 2 * k + 1)], scratch.back[back + 1] = after, after_step
        wait = np.float32(wait + blank)


@device
def _backward(words, scratch, w):
    at, last = words.offsets[w], words.last[w]
    n, span = words.offsets[w + 1] - at, last - words.first[w] + 1
    # The last token begins in the last frame, whatever else would be likelier.
    scratch.frames[at + n - 1] = last
    t, k = span - 2, n - 1
    if n == 1 or t < 0:
        return
    blank_before, direct = scratch.scores[_score(words, w, t, 2 * k - 1)], NEVER
    if words.tokens[at + n - 1] != words.tokens[at + n - 2]:
        direct = scratch.scores[_score(words, w, t, 2 * k - 2)]
    column = 2 * k - 1 if blank_before > direct else 2 * k - 2
    while t >= 0 and column >= 0:
        step = scratch.back[scratch.back_at[w] + t * 2 * n + column]
        if column % 2:
            column -= step
        elif step:
            scratch.frames[at + column // 2] = words.first[w] + t
            column -= step
        t -= 1


place_words = kernel(place)
