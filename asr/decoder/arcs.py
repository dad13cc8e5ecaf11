"""How a token goes on: where it waits, which arcs it follows, and what happens where a word ends.

In every frame each token waits (a blank, or its phone again) and goes on along the arcs whose phone is heard.
A word ends in the frame in which its last phone begins, so that every CTC path is counted once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from asr.decoder.memory import count_bits, load_f32, load_i8, load_i16, load_i32, load_i64, lowest_bit
from asr.decoder.tokens import (
    GONE,
    LEVELS,
    LEVELS_PER_UNIT,
    MASKS,
    NEVER,
    NUM_LEVELS,
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
def _heard(state, v):
    return (load_i64(state, MASKS + v // 64) >> np.int64(v % 64)) & 1


@njit(cache=True, nogil=True)
def source_of(work, token, b, p):
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
def wait(work, limits, step, token, source, p, count, best):
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
def follow_chain(graph, work, limits, step, source, count, best):
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
def follow_arcs(graph, work, limits, step, source, count, best):
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
def enter_others(graph, work, limits, step, source, count, best):
    """From a root into the trees of added words that its history names, and from the empty one into unknown
    words."""
    if graph.num_groups:
        link = load_i32(graph.heads, source.code)
        while link >= 0:
            group, at = load_i32(graph.links, 4 * link), link
            link = load_i32(graph.links, 4 * link + 3)
            # A group that was made after this decode began is none yet.
            if group < graph.num_groups:
                entry = np.float32(load_f32(graph.links, 4 * at + 1) + load_f32(graph.groups, 4 * group + 2))
                # No phone makes up for it.
                if source.total + entry < best - np.float32(limits.beam):
                    continue
                count, best = follow_added(
                    graph, work, limits, step, source, np.int64(load_i32(graph.groups, 4 * group)), entry,
                    load_i32(graph.links, 4 * at + 2), count, best,
                )  # fmt: skip
    if graph.loop and source.code == 0:
        count, best = follow_unknown(graph, work, limits, step, source, np.int64(0), count, best)
    return count, best


@njit(cache=True, nogil=True)
def follow_added(graph, work, limits, step, source, node, entry, history, count, best):
    """From a node of added words' tree to its children. `entry`: what entering the tree scores; `history`:
    where those of its words lead that do not know it themselves."""
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
                taken = load_f32(graph.groups, 4 * load_i32(place, 6) + 1)
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
                        history if load_i32(place, 7) < 0 else load_i32(place, 7),
                        v,
                        count,
                        bar,
                    )
        if load_i32(at, 1) >= 0:
            best = max(best, score)
            count = _go(work, limits, step, source, ADDED + here, v, history, score, trace, count)
    return count, best


@njit(cache=True, nogil=True)
def follow_unknown(graph, work, limits, step, source, heard, count, best):
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
