"""Token passing over the graph, one utterance at a time (CTC: Graves et al. 2006; token passing: Young et al.
1989): frame by frame every token goes on (arcs.py), and those too far behind the best are given up.

Nothing is allocated here, and no memory is overrun: what does not fit is dropped and counted.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from asr.decoder.arcs import (
    ADDED,
    LOOP,
    Step,
    enter_others,
    follow_added,
    follow_arcs,
    follow_chain,
    follow_unknown,
    source_of,
    wait,
)
from asr.decoder.memory import load_f32, load_i32, load_i64, store_f32, store_i32, store_i64
from asr.decoder.tokens import (
    BEST,
    BINS,
    COUNT,
    EPOCH,
    FIRST_FRAME,
    FLIP,
    FRAME,
    GONE,
    LEADER,
    LEVELS,
    LEVELS_PER_UNIT,
    MASKS,
    MERGES,
    NEVER,
    NOW,
    NUM_LEVELS,
    OVERFLOW,
    RECORDS,
    TOKEN_BYTES,
    add,
    find_token,
    merge,
)


@njit(cache=True, nogil=True)
def begin(graph, work, start):
    """Tokens before the first frame: the root of the sentence begin and those that backoff leads to."""
    count, score, history = np.int64(0), np.float32(0.0), np.int64(start)
    epoch = load_i64(work.state, EPOCH) + 1
    while True:
        token, count = find_token(work, work.tokens_a, epoch, count, history << np.int64(32), np.int32(0))
        store_f32(token, 4, score)
        if history == 0:
            break
        score = np.float32(score + load_f32(graph.backoffs, 2 * history))
        history = np.int64(load_i32(graph.backoffs, 2 * history + 1))
    for k in (RECORDS, MERGES, FRAME, OVERFLOW, FLIP, FIRST_FRAME, LEADER):
        store_i64(work.state, k, 0)
    store_i64(work.state, COUNT, count)
    store_i64(work.state, EPOCH, epoch)
    store_f32(work.state, 2 * BEST, np.float32(0.0))
    store_f32(work.state, 2 * BEST + 1, NEVER)


@njit(cache=True, nogil=True)
def advance(graph, work, limits, log_probs, num_frames, num_tokens):
    """Search on through log_probs float32 (num_frames, num_tokens), from frame state[FRAME].

    Returns when all frames are done, or early where records or merges are nearly full: with more room it goes
    on.
    """
    state = work.state
    beam, blank_skip = np.float32(limits.beam), np.float32(limits.blank_skip)
    count, epoch, flip = load_i64(state, COUNT), load_i64(state, EPOCH), load_i64(state, FLIP)
    best, cut = load_f32(state, 2 * BEST), load_f32(state, 2 * BEST + 1)
    leader = load_i64(state, LEADER)
    frame, first_frame = load_i64(state, FRAME), load_i64(state, FIRST_FRAME)
    while frame < num_frames:
        tokens = work.tokens_b if flip else work.tokens_a
        run, frames = _sure_blanks(log_probs, frame, num_frames, num_tokens, blank_skip)
        if frames:
            _skip(work, tokens, count, cut, run)
            best, cut, frame = np.float32(best + run), np.float32(cut + run), frame + frames
            continue
        if load_i64(state, RECORDS) + work.capacity > work.record_capacity or (
            limits.keep_merges and load_i64(state, MERGES) + 2 * work.capacity > work.merge_capacity
        ):
            break
        store_i64(state, NOW, first_frame + frame)
        flip ^= 1
        epoch += 1
        new = work.tokens_b if flip else work.tokens_a
        row = log_probs + frame * num_tokens * 4
        # What one arc or word can still add fits behind `full`.
        step = Step(row, num_tokens, new, epoch, first_frame + frame, work.capacity - 64)
        new_count, new_best = np.int64(0), np.float32(best + load_f32(row, 0))
        _levels(graph, state, step)
        if graph.num_groups or graph.loop:
            _mask(graph, state, step, np.float32(new_best - beam - best - np.float32(graph.bonus)))
        for k in range(count):
            # The best token first: it tells soonest what is not worth keeping.
            token = tokens + (leader if k == 0 else k - 1 if k <= leader else k) * TOKEN_BYTES
            b, p = load_f32(token, 4), load_f32(token, 5)
            if max(b, p) < cut or max(b, p) <= GONE:
                continue
            if new_count >= step.full:
                store_i64(state, OVERFLOW, load_i64(state, OVERFLOW) + 1)
                continue
            source = source_of(work, token, b, p)
            new_count, new_best = wait(work, limits, step, token, source, p, new_count, new_best)
            if source.code < 0:
                new_count, new_best = follow_chain(graph, work, limits, step, source, new_count, new_best)
            elif source.code < LOOP:
                new_count, new_best = follow_arcs(graph, work, limits, step, source, new_count, new_best)
                if source.depth == 0:
                    new_count, new_best = enter_others(graph, work, limits, step, source, new_count, new_best)
            elif source.code < ADDED:
                new_count, new_best = follow_unknown(
                    graph, work, limits, step, source, source.code - LOOP, new_count, new_best
                )
            else:
                new_count, new_best = follow_added(
                    graph, work, limits, step, source, source.code - ADDED, np.float32(0.0), source.extra,
                    new_count, new_best,
                )  # fmt: skip
        count = new_count
        best, cut, leader = _survivors(work, new, count, beam, limits.beam_size)
        frame += 1
    store_i64(state, COUNT, count)
    store_i64(state, EPOCH, epoch)
    store_i64(state, FLIP, flip)
    store_i64(state, FRAME, frame)
    store_i64(state, LEADER, leader)
    store_f32(state, 2 * BEST, best)
    store_f32(state, 2 * BEST + 1, cut)


@njit(cache=True, nogil=True)
def _sure_blanks(log_probs, frame, num_frames, num_tokens, blank_skip):
    """The summed log-probability of the run of frames from here on that are blank for sure, and how many they
    are."""
    run, at = np.float32(0.0), frame
    while at < num_frames:
        blank = load_f32(log_probs + at * num_tokens * 4, 0)
        if not blank > blank_skip:
            break
        run = np.float32(run + blank)
        at += 1
    return run, at - frame


@njit(cache=True, nogil=True)
def _skip(work, tokens, count, cut, blank):
    """Every token waits in place."""
    for i in range(count):
        token = tokens + i * TOKEN_BYTES
        b, p = load_f32(token, 4), load_f32(token, 5)
        if max(b, p) < cut:
            store_f32(token, 4, NEVER)
            store_f32(token, 5, NEVER)
            continue
        if p > b:
            store_i32(token, 6, load_i32(token, 7))
        store_f32(token, 4, np.float32(add(b, p, work.add_table) + blank))
        store_f32(token, 5, NEVER)


@njit(cache=True, nogil=True)
def _mask(graph, state, step, keep):
    """Which of the emissions' tokens score at least `keep`: no other can be in a path that survives."""
    for w in range(graph.words):
        mask = np.int64(0)
        for v in range(64 * w, min(64 * w + 64, step.num_tokens)):
            if v > 0 and load_f32(step.row, v) >= keep:
                mask |= np.int64(1) << np.int64(v - 64 * w)
        store_i64(state, MASKS + w, mask)


@njit(cache=True, nogil=True)
def _levels(graph, state, step):
    """For each level the emissions' tokens that cost at most so much: what a token may go on by is found at
    once."""
    words = graph.words
    for k in range(NUM_LEVELS * words):
        store_i64(state, LEVELS + k, np.int64(0))
    for v in range(1, step.num_tokens):
        cost = np.float32(-load_f32(step.row, v)) * np.float32(LEVELS_PER_UNIT)
        level = np.int64(min(max(cost, np.float32(0.0)), np.float32(NUM_LEVELS - 1)))
        at = LEVELS + level * words + v // 64
        store_i64(state, at, load_i64(state, at) | (np.int64(1) << np.int64(v % 64)))
    for k in range(words, NUM_LEVELS * words):
        store_i64(state, LEVELS + k, load_i64(state, LEVELS + k) | load_i64(state, LEVELS + k - words))


@njit(cache=True, nogil=True)
def _survivors(work, tokens, count, beam, beam_size):
    """The best score of a frame, the score below which its tokens are given up, and which is the best."""
    best, leader = NEVER, np.int64(0)
    for i in range(count):
        token = tokens + i * TOKEN_BYTES
        score = max(load_f32(token, 4), load_f32(token, 5))
        if score > best:
            best, leader = score, np.int64(i)
    cut = np.float32(best - beam)
    if count > beam_size:
        cut = _threshold(tokens, count, best, beam, beam_size, work.state + 8 * BINS)
    return best, cut, leader


@njit(cache=True, nogil=True)
def _threshold(tokens, count, best, beam, beam_size, bins):
    """The score that all but about the best `beam_size` tokens fall short of."""
    for k in range(256):
        store_i32(bins, k, 0)
    scale = np.float32(255.0 / beam)
    for i in range(count):
        token = tokens + i * TOKEN_BYTES
        gap = best - max(load_f32(token, 4), load_f32(token, 5))
        if gap < beam:
            k = np.int64(max(gap, np.float32(0.0)) * scale)
            store_i32(bins, k, load_i32(bins, k) + 1)
    total = 0
    for k in range(256):
        total += load_i32(bins, k)
        if total > beam_size:
            return np.float32(best - np.float32(k) / scale)
    return np.float32(best - beam)


@njit(cache=True, nogil=True)
def finish(graph, work, keep_merges, end_scores, finals):
    """Where an utterance may end: into `finals` (float32 score, int32 record) one for each history. Returns
    how many.

    `end_scores`: float32 (histories,), what the sentence end scores after each. The search can go on
    afterwards.
    """
    state = work.state
    tokens, new = work.tokens_a, work.tokens_b
    if load_i64(state, FLIP):
        tokens, new = new, tokens
    epoch = load_i64(state, EPOCH) + 1
    store_i64(state, EPOCH, epoch)
    cut = load_f32(state, 2 * BEST + 1)
    found = np.int64(0)
    for i in range(load_i64(state, COUNT)):
        token = tokens + i * TOKEN_BYTES
        place = load_i64(token, 0)
        b, p = load_f32(token, 4), load_f32(token, 5)
        if (place >> np.int64(16)) & np.int64(0xFFFF) or max(b, p) < cut:
            continue
        for column in range(2):
            score = load_f32(token, 4 + column)
            if score > GONE:
                to, found = find_token(work, new, epoch, found, place & ~np.int64(0xFFFF), np.int32(0))
                merge(work, keep_merges, to, 0, score, load_i32(token, 6 + column), False)
    for i in range(found):
        token = new + i * TOKEN_BYTES
        history = load_i64(token, 0) >> np.int64(32)
        store_f32(finals, 2 * i, np.float32(load_f32(token, 4) + load_f32(end_scores, history)))
        store_i32(finals, 2 * i + 1, load_i32(token, 6))
    return found
