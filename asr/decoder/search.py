"""Token passing over the graph, one utterance at a time (CTC: Graves et al. 2006; token passing: Young et al.
1989).

In every frame each token waits (a blank, or its phone again) and goes on along the arcs whose phone is heard.
A word ends in the frame in which its last phone begins, so that every CTC path is counted once. Nothing is
allocated here, and no memory is overrun: what does not fit is dropped and counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from asr.decoder.memory import (
    count_bits,
    load_f32,
    load_i8,
    load_i16,
    load_i32,
    load_i64,
    lowest_bit,
    store_f32,
    store_i32,
    store_i64,
)
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
    fingerprint,
    merge,
    record,
)

# Codes from here on are phones of unknown words, and nodes of added words' trees.
LOOP, ADDED = 1 << 29, 1 << 30
# What stands for a pronunciation in the records of an unknown word: its end, and from -2 down its phones.
UNKNOWN_END, UNKNOWN_PHONE = -1, -2
SHORTEST_UNKNOWN = 3  # phones; with fewer it would be cheaper than any word


class GraphView(NamedTuple):
    """Addresses of the graph's arrays, and its numbers."""

    nodes: int
    words: int
    arcs: int
    ends: int
    chains: int
    backoffs: int
    tokens: int
    offsets: int
    word_of: int
    removed: int
    heads: int
    links: int
    groups: int
    num_groups: int
    added_nodes: int
    added_ends: int
    version: int
    loop: int
    bonus: float
    root_best: int


class Limits(NamedTuple):
    """Pruning; all scores natural logs."""

    beam_size: int
    beam: float
    blank_skip: float
    keep_merges: bool


class Step(NamedTuple):
    """A frame: the address of its scores and their number, the tokens that it makes, when those are too
    many."""

    row: int
    num_tokens: int
    new: int
    epoch: int
    frame: int
    full: int


class Source(NamedTuple):
    """The token that goes on: its scores ending in blank and in all, the records of both, where it is."""

    blank: float
    total: float
    blank_trace: int
    trace: int
    code: int
    depth: int
    last: int
    extra: int


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
            source = _source(work, token, b, p)
            new_count, new_best = _wait(work, limits, step, token, source, p, new_count, new_best)
            if source.code < 0:
                new_count, new_best = _follow_chain(graph, work, limits, step, source, new_count, new_best)
            elif source.code < LOOP:
                new_count, new_best = _follow_arcs(graph, work, limits, step, source, new_count, new_best)
                if source.depth == 0:
                    new_count, new_best = _enter_others(
                        graph, work, limits, step, source, new_count, new_best
                    )
            elif source.code < ADDED:
                new_count, new_best = _follow_unknown(
                    graph, work, limits, step, source, source.code - LOOP, new_count, new_best
                )
            else:
                new_count, new_best = _follow_added(
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
def _heard(state, v):
    return (load_i64(state, MASKS + v // 64) >> np.int64(v % 64)) & 1


@njit(cache=True, nogil=True)
def _source(work, token, b, p):
    place = load_i64(token, 0)
    blank_trace, phone_trace = load_i32(token, 6), load_i32(token, 7)
    total = add(b, p, work.add_table)
    if (
        blank_trace != phone_trace
        and min(b, p) > GONE
        and fingerprint(work.records, blank_trace) != fingerprint(work.records, phone_trace)
    ):
        total = max(b, p)
    return Source(
        b, total, blank_trace, blank_trace if b >= p else phone_trace, place >> np.int64(32),
        (place >> np.int64(16)) & np.int64(0xFFFF), place & np.int64(0xFFFF), load_i32(token, 2),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _wait(work, limits, step, token, source, p, count, best):
    """A blank, or the same phone again."""
    place = load_i64(token, 0)
    bar = np.float32(best - np.float32(limits.beam))
    waits = np.float32(source.total + load_f32(step.row, 0))
    repeats = np.float32(p + load_f32(step.row, source.last)) if p > GONE and source.last else NEVER
    if waits >= bar:
        # At a root a blank forgets the phone.
        to_place = place if source.depth else place & ~np.int64(0xFFFF)
        to, count = find_token(work, step.new, step.epoch, count, to_place, source.extra)
        merge(work, limits.keep_merges, to, 0, waits, source.trace, False)
        if repeats >= bar and source.depth:
            merge(work, limits.keep_merges, to, 1, repeats, load_i32(token, 7), False)
    if repeats >= bar and (source.depth == 0 or waits < bar):
        to, count = find_token(work, step.new, step.epoch, count, place, source.extra)
        merge(work, limits.keep_merges, to, 1, repeats, load_i32(token, 7), False)
    return count, max(best, waits, repeats)


@njit(cache=True, nogil=True)
def _hear(step, source, v):
    """The score of the token when it goes on by phone v, and the record that it comes from: a phone follows
    itself only after a blank."""
    if v == source.last:
        return np.float32(source.blank + load_f32(step.row, v)), source.blank_trace
    return np.float32(source.total + load_f32(step.row, v)), source.trace


@njit(cache=True, nogil=True)
def _go(work, limits, step, source, code, v, extra, score, trace, count):
    """A path arrives at a place inside a word."""
    place = (np.int64(code) << np.int64(32)) | ((source.depth + 1) << np.int64(16)) | v
    to, count = find_token(work, step.new, step.epoch, count, place, extra)
    merge(work, limits.keep_merges, to, 1, score, trace, True)
    return count


@njit(cache=True, nogil=True)
def _end_word(graph, work, limits, step, trace, score, pronunciation, word, history, v, count, bar):
    """A word ends: its record, and tokens at the root of its history and of those that backoff leads to."""
    noted = record(work, trace, pronunciation, word, step.frame)
    if noted < 0:
        return count
    while True:
        place = (np.int64(history) << np.int64(32)) | v
        token, count = find_token(work, step.new, step.epoch, count, place, np.int32(0))
        merge(work, limits.keep_merges, token, 1, score, noted, True)
        if history == 0:
            return count
        score = np.float32(score + load_f32(graph.backoffs, 2 * history))
        history = load_i32(graph.backoffs, 2 * history + 1)
        if score < bar:
            return count


@njit(cache=True, nogil=True)
def _follow_chain(graph, work, limits, step, source, count, best):
    """Where a single word is left one phone can follow."""
    chain = ~source.code
    pronunciation = load_i32(graph.chains, 2 * chain)
    start = load_i32(graph.offsets, pronunciation)
    v = np.int64(load_i16(graph.tokens, start + source.depth))
    score, trace = _hear(step, source, v)
    bar = np.float32(best - np.float32(limits.beam))
    if score < bar:
        return count, best
    if source.depth + 1 < load_i32(graph.offsets, pronunciation + 1) - start:
        count = _go(work, limits, step, source, source.code, v, np.int32(0), score, trace, count)
    elif load_i8(graph.removed, pronunciation):
        return count, best
    else:
        count = _end_word(
            graph, work, limits, step, trace, score, pronunciation, load_i32(graph.word_of, pronunciation),
            load_i32(graph.chains, 2 * chain + 1), v, count, bar,
        )  # fmt: skip
    return count, max(best, score)


@njit(cache=True, nogil=True)
def _follow_arcs(graph, work, limits, step, source, count, best):
    """From a node to its children by the phones that are heard."""
    stride, node = graph.words + 1, source.code
    arc = load_i64(graph.nodes, node * stride + graph.words) & np.int64(0xFFFFFFFF)
    # What a phone may cost at most: arcs score above 0 only at a root.
    spare = np.float32(source.total - best + np.float32(limits.beam))
    if source.depth == 0:
        spare = np.float32(spare + load_f32(graph.root_best, node))
    if spare < 0:
        return count, best
    level = np.int64(min(spare * np.float32(LEVELS_PER_UNIT), np.float32(NUM_LEVELS - 1)))
    levels = work.state + (LEVELS + level * graph.words) * 8
    for w in range(graph.words):
        mask = load_i64(graph.nodes, node * stride + w)
        heard = mask & load_i64(levels, w)
        while heard:
            bit = lowest_bit(heard)
            heard &= heard - 1
            v = 64 * w + bit
            score, trace = _hear(step, source, v)
            bar = np.float32(best - np.float32(limits.beam))
            # Scores of arcs are never above 0 but at the root.
            if (source.depth and score < bar) or count >= step.full:
                continue
            k = arc + count_bits(mask & ((np.int64(1) << bit) - 1))
            score = np.float32(score + load_f32(graph.arcs, 2 * k))
            if score >= bar:
                count, best = _arrive(
                    graph,
                    work,
                    limits,
                    step,
                    source,
                    np.int64(load_i32(graph.arcs, 2 * k + 1)),
                    v,
                    score,
                    trace,
                    count,
                    best,
                    bar,
                )
        arc += count_bits(mask)
    return count, best


@njit(cache=True, nogil=True)
def _arrive(graph, work, limits, step, source, to, v, score, trace, count, best, bar):
    """At the end of an arc: words end there, and others go on."""
    if to < 0:
        pronunciation = load_i32(graph.chains, 2 * ~to)
        length = load_i32(graph.offsets, pronunciation + 1) - load_i32(graph.offsets, pronunciation)
        if length == source.depth + 1:
            if load_i8(graph.removed, pronunciation):
                return count, best
            count = _end_word(
                graph,
                work,
                limits,
                step,
                trace,
                score,
                pronunciation,
                load_i32(graph.word_of, pronunciation),
                load_i32(graph.chains, 2 * ~to + 1),
                v,
                count,
                bar,
            )
            return count, max(best, score)
    else:
        stride = graph.words + 1
        first_end = load_i64(graph.nodes, to * stride + graph.words) >> np.int64(32)
        last_end = load_i64(graph.nodes, (to + 1) * stride + graph.words) >> np.int64(32)
        for e in range(first_end, last_end):
            at_end = np.float32(score + load_f32(graph.ends, 3 * e + 1))
            pronunciation = load_i32(graph.ends, 3 * e)
            if at_end < bar or load_i8(graph.removed, pronunciation) or count >= step.full:
                continue
            best = max(best, at_end)
            count = _end_word(
                graph,
                work,
                limits,
                step,
                trace,
                at_end,
                pronunciation,
                load_i32(graph.word_of, pronunciation),
                load_i32(graph.ends, 3 * e + 2),
                v,
                count,
                bar,
            )
        children = np.int64(0)
        for w in range(graph.words):
            children |= load_i64(graph.nodes, to * stride + w)
        if children == 0:
            return count, best
    count = _go(work, limits, step, source, to, v, np.int32(0), score, trace, count)
    return count, max(best, score)


@njit(cache=True, nogil=True)
def _enter_others(graph, work, limits, step, source, count, best):
    """From a root into the trees of added words that its history names, and from the empty one into unknown
    words."""
    if graph.num_groups:
        link = load_i32(graph.heads, source.code)
        while link >= 0:
            group = load_i32(graph.links, 4 * link)
            # A group that was made after this decode began is none yet.
            if group < graph.num_groups:
                entry = load_f32(graph.links, 4 * link + 1) + load_f32(graph.groups, 2 * group + 1)
                count, best = _follow_added(
                    graph, work, limits, step, source, np.int64(load_i32(graph.groups, 2 * group)),
                    np.float32(entry), load_i32(graph.links, 4 * link + 2), count, best,
                )  # fmt: skip
            link = load_i32(graph.links, 4 * link + 3)
    if graph.loop and source.code == 0:
        count, best = _follow_unknown(graph, work, limits, step, source, np.int64(0), count, best)
    return count, best


@njit(cache=True, nogil=True)
def _follow_added(graph, work, limits, step, source, node, entry, history, count, best):
    """From a node of added words' tree to its children. `entry`: what entering the tree scores; `history`:
    where its words lead."""
    child = np.int64(load_i32(graph.added_nodes, 4 * node + 1))
    while child >= 0:
        here, at = child, graph.added_nodes + child * 16
        child = np.int64(load_i32(at, 2))
        v = np.int64(load_i32(at, 0))
        if not _heard(work.state, v) or count >= step.full:
            continue
        score, trace = _hear(step, source, v)
        score = np.float32(score + entry)
        bar = np.float32(best - np.float32(limits.beam))
        if score < bar:
            continue
        end = load_i32(at, 3)
        while end >= 0:
            place = graph.added_ends + end * 32
            end = load_i32(place, 3)
            if load_i32(place, 4) <= graph.version < load_i32(place, 5):
                # The group's bonus, taken on entering it, gives way to the word's own score.
                taken = load_f32(graph.groups, 2 * load_i32(place, 6) + 1)
                at_end = np.float32(score + load_f32(place, 2) - taken)
                if at_end >= bar and count < step.full:
                    best = max(best, at_end)
                    count = _end_word(
                        graph,
                        work,
                        limits,
                        step,
                        trace,
                        at_end,
                        load_i32(place, 0),
                        load_i32(place, 1),
                        history,
                        v,
                        count,
                        bar,
                    )
        if load_i32(at, 1) >= 0:
            best = max(best, score)
            count = _go(work, limits, step, source, ADDED + here, v, history, score, trace, count)
    return count, best


@njit(cache=True, nogil=True)
def _follow_unknown(graph, work, limits, step, source, heard, count, best):
    """An unknown word goes on by any phone, or begins (`heard` 0). graph.loop: float32 scores [phone, next
    phone], where phone 0 is the begin and next phone 0 the end."""
    for v in range(1, step.num_tokens):
        if not _heard(work.state, v) or count >= step.full:
            continue
        score, trace = _hear(step, source, v)
        score = np.float32(score + load_f32(graph.loop, heard * step.num_tokens + v))
        bar = np.float32(best - np.float32(limits.beam))
        if score < bar:
            continue
        noted = record(work, trace, np.int32(UNKNOWN_PHONE - v), np.int64(UNKNOWN_PHONE - v), step.frame)
        if noted < 0:
            break
        best = max(best, score)
        # Beyond the shortest length the depth does not matter.
        depth = min(source.depth + 1, np.int64(SHORTEST_UNKNOWN))
        place = ((LOOP + np.int64(v)) << np.int64(32)) | (depth << np.int64(16)) | v
        to, count = find_token(work, step.new, step.epoch, count, place, np.int32(0))
        merge(work, limits.keep_merges, to, 1, score, noted, True)
        at_end = np.float32(score + load_f32(graph.loop, v * step.num_tokens))
        if depth == SHORTEST_UNKNOWN and at_end >= bar:
            best = max(best, at_end)
            count = _end_word(
                graph,
                work,
                limits,
                step,
                noted,
                at_end,
                np.int32(UNKNOWN_END),
                np.int64(UNKNOWN_END),
                np.int32(0),
                np.int64(v),
                count,
                bar,
            )
    return count, best


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
