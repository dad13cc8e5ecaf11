"""Token passing over the graph, one utterance at a time (CTC: Graves et al. 2006; token passing: Young et al.
1989).

A token is a place in the graph with two scores, of the paths that end in blank and of those that end in the
phone of the place. At a root the phone that was last heard is part of the place: a repetition across words
would be lost otherwise. A word ends in the frame in which its last phone begins, so that every CTC path is
counted once. Where two paths meet, they are added if they say the same words, so that a word sequence scores
the sum of its alignments and pronunciations; of different words the better path goes on.

All memory is addressed directly (see memory.py). A token is 32 bytes: int64 place, int32 destination (of
added words), float32 score of the last arrival by an arc, float32 scores ending in blank and in the phone,
int32 back-pointers of both. A place is int32 code, 16 bits of depth, 16 bits of the last phone. A record,
made at each word end, is int32 record before, pronunciation, frame, unused, int64 fingerprint of the words.
"""

from __future__ import annotations

import math
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
)  # fmt: skip

NEVER = np.float32(-1e30)
_GONE = np.float32(-1e29)
TOKEN_BYTES, RECORD_BYTES, MERGE_BYTES = 32, 24, 16
# Codes from here on are phones of unknown words, and nodes of added words' trees.
LOOP, ADDED = 1 << 29, 1 << 30
# What stands for a pronunciation in the records of an unknown word: its end, and from -2 down its phones.
UNKNOWN_END, UNKNOWN_PHONE = -1, -2
SHORTEST_UNKNOWN = 3  # phones; with fewer it would be cheaper than any word
_ADD_STEPS, _ADD_RANGE = 64, 12  # per unit; beyond the range adding changes nothing
_steps = np.arange(_ADD_STEPS * _ADD_RANGE + 2) / _ADD_STEPS
ADD_TABLE = np.log1p(np.exp(-_steps)).astype(np.float32)
_PRIME = 6364136223846793005


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


class Work(NamedTuple):
    """Addresses of what one search writes. `state` int64: see the constants below."""

    tokens_a: int
    tokens_b: int
    table: int
    table_mask: int
    records: int
    merges: int
    add_table: int
    state: int
    capacity: int
    record_capacity: int
    merge_capacity: int


class Limits(NamedTuple):
    """Pruning; all scores natural logs."""

    beam_size: int
    beam: float
    blank_skip: float
    keep_merges: bool


# Places in Work.state; behind them lie the masks of a frame and the bins of its histogram.
COUNT, RECORDS, MERGES, EPOCH, FRAME, OVERFLOW, FLIP, BEST, FIRST_FRAME, NOW, LEADER = range(11)
_MASKS, _BINS = 16, 16 + 64
STATE_SIZE = _BINS + 128
MOST_TOKENS = 64 * 64  # of the emissions


@njit(cache=True, nogil=True, inline="always")
def _add(a, b, table):
    """log(exp(a) + exp(b)), to 1e-5."""
    high, gap = (a, a - b) if a > b else (b, b - a)
    if gap >= _ADD_RANGE:
        return high
    place = gap * np.float32(_ADD_STEPS)
    k = np.int64(place)
    below = load_f32(table, k)
    return np.float32(high + below + (place - np.float32(k)) * (load_f32(table, k + 1) - below))


@njit(cache=True, nogil=True)
def _words_of(records, trace):
    """The fingerprint of the words up to a record."""
    return load_i64(records + trace * RECORD_BYTES, 2) if trace >= 0 else np.int64(0)


@njit(cache=True, nogil=True)
def _find(work, tokens, epoch, count, place, extra):
    """Address of the token of that place in the new frame: a new one where `count` says there is none yet."""
    h = (place ^ (np.int64(extra) << np.int64(17))) * np.int64(-7046029254386353131)
    slot = (h >> np.int64(20) ^ h >> np.int64(43)) & work.table_mask
    while True:
        entry = load_i64(work.table, slot)
        if entry >> np.int64(32) != epoch:
            break
        token = tokens + (entry & np.int64(0xFFFFFFFF)) * TOKEN_BYTES
        if load_i64(token, 0) == place and load_i32(token, 2) == extra:
            return token, count
        slot = (slot + 1) & work.table_mask
    token = tokens + count * TOKEN_BYTES
    store_i64(work.table, slot, (epoch << np.int64(32)) | count)
    store_i64(token, 0, place)
    store_i32(token, 2, extra)
    store_f32(token, 4, NEVER)
    store_f32(token, 5, NEVER)
    store_i32(token, 6, -1)
    store_i32(token, 7, -1)
    return token, count + 1


@njit(cache=True, nogil=True)
def _merge(work, keep_merges, token, column, score, trace, entry):
    """Let a path with that score and back-pointer arrive in a column (0 blank, 1 phone) of a token.

    `entry`: it arrives by an arc. Then it may be a path that has arrived already, by the word's own n-gram,
    and now comes by backoff: the better of both counts, not their sum.
    """
    old = load_f32(token, 4 + column)
    if old <= _GONE:
        store_f32(token, 4 + column, score)
        store_i32(token, 6 + column, trace)
        if column == 1:
            store_f32(token, 3, score if entry else NEVER)
        return
    old_trace = load_i32(token, 6 + column)
    if entry and trace == old_trace:
        before = load_f32(token, 3)
        if before > _GONE:
            if score > before:
                store_f32(token, 3, score)
                gain = math.exp(score - old) - math.exp(before - old)
                store_f32(token, 5, np.float32(old + math.log1p(gain)))
            return
        store_f32(token, 3, score)
    same = old_trace == trace or _words_of(work.records, old_trace) == _words_of(work.records, trace)
    if keep_merges and not same:
        n = load_i64(work.state, MERGES)
        if n < work.merge_capacity:
            at = work.merges + n * MERGE_BYTES
            store_i32(at, 0, old_trace if old >= score else trace)
            store_i32(at, 1, trace if old >= score else old_trace)
            store_f32(at, 2, abs(old - score))
            store_i32(at, 3, np.int32(load_i64(work.state, NOW)))
            store_i64(work.state, MERGES, n + 1)
    if score > old:
        store_i32(token, 6 + column, trace)
        if entry:
            store_f32(token, 3, score)
    if same and not _twice(work.records, old_trace, trace):
        store_f32(token, 4 + column, _add(old, score, work.add_table))
    elif score > old:
        store_f32(token, 4 + column, score)


@njit(cache=True, nogil=True)
def _twice(records, a, b):
    """Whether two records are one path that went by the word's own n-gram and by backoff."""
    if a < 0 or b < 0 or a == b:
        return False
    a, b = records + a * RECORD_BYTES, records + b * RECORD_BYTES
    return load_i64(a, 0) == load_i64(b, 0) and load_i32(a, 2) == load_i32(b, 2)


@njit(cache=True, nogil=True)
def _record(work, source, pronunciation, word, frame):
    """Note a word end, or a phone of an unknown word: the number of the record, -1 where memory is full."""
    records = load_i64(work.state, RECORDS)
    if records == work.record_capacity:
        store_i64(work.state, OVERFLOW, load_i64(work.state, OVERFLOW) + 1)
        return np.int32(-1)
    record = work.records + records * RECORD_BYTES
    store_i32(record, 0, source)
    store_i32(record, 1, pronunciation)
    store_i32(record, 2, frame)
    store_i64(
        record, 2, _words_of(work.records, source) * _PRIME + np.int64(word) + np.int64(1442695040888963407)
    )
    store_i64(work.state, RECORDS, records + 1)
    return np.int32(records)


@njit(cache=True, nogil=True)
def _end_word(
    graph,
    work,
    keep_merges,
    tokens,
    epoch,
    count,
    cut,
    frame,
    source,
    score,
    pronunciation,
    word,
    history,
    last,
):
    """A word ends: its record, and tokens at the root of its history and of those that backoff leads to."""
    record = _record(work, source, pronunciation, word, frame)
    if record < 0:
        return count
    while True:
        place = (np.int64(history) << np.int64(32)) | last
        token, count = _find(work, tokens, epoch, count, place, np.int32(0))
        _merge(work, keep_merges, token, 1, score, record, True)
        if history == 0:
            return count
        score = np.float32(score + load_f32(graph.backoffs, 2 * history))
        history = load_i32(graph.backoffs, 2 * history + 1)
        if score < cut:
            return count


@njit(cache=True, nogil=True)
def begin(graph, work, start):
    """Tokens before the first frame: the root of the sentence begin and those that backoff leads to."""
    count, score, history = np.int64(0), np.float32(0.0), np.int64(start)
    epoch = load_i64(work.state, EPOCH) + 1
    while True:
        token, count = _find(work, work.tokens_a, epoch, count, history << np.int64(32), np.int32(0))
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
def _skip(work, tokens, count, cut, blank):
    """A run of frames that are blank for sure, `blank` their summed log-probability: every token waits in
    place."""
    for i in range(count):
        token = tokens + i * TOKEN_BYTES
        b, p = load_f32(token, 4), load_f32(token, 5)
        if max(b, p) < cut:
            store_f32(token, 4, NEVER)
            store_f32(token, 5, NEVER)
            continue
        if p > b:
            store_i32(token, 6, load_i32(token, 7))
        store_f32(token, 4, np.float32(_add(b, p, work.add_table) + blank))
        store_f32(token, 5, NEVER)


@njit(cache=True, nogil=True)
def _advance_added(
    graph, work, limits, row, new, epoch, new_count, new_best, frame, full, node, entry, history, depth, last, b, total,
    trace_b, trace,
):  # fmt: skip
    """From a node of added words' tree to its children. `entry`: what entering the tree scores; `history`:
    where its words lead."""
    child = np.int64(load_i32(graph.added_nodes, 4 * node + 1))
    while child >= 0:
        at = graph.added_nodes + child * 16
        child = np.int64(load_i32(at, 2))
        v = np.int64(load_i32(at, 0))
        if not (load_i64(work.state, _MASKS + v // 64) >> (v % 64)) & 1 or new_count >= full:
            continue
        score = np.float32((b if v == last else total) + load_f32(row, v) + entry)
        bar = np.float32(new_best - np.float32(limits.beam))
        if score < bar:
            continue
        source = trace_b if v == last else trace
        end = load_i32(at, 3)
        while end >= 0:
            place = graph.added_ends + end * 32
            end = load_i32(place, 3)
            if load_i32(place, 4) <= graph.version < load_i32(place, 5):
                # The group's bonus, taken on entering it, gives way to the word's own score.
                taken = load_f32(graph.groups, 2 * load_i32(place, 6) + 1)
                at_end = np.float32(score + load_f32(place, 2) - taken)
                if at_end >= bar and new_count < full:
                    new_best = max(new_best, at_end)
                    new_count = _end_word(
                        graph, work, limits.keep_merges, new, epoch, new_count, bar, frame, source, at_end,
                        load_i32(place, 0), load_i32(place, 1), history, v,
                    )  # fmt: skip
        if load_i32(at, 1) >= 0:
            new_best = max(new_best, score)
            to_place = (
                ((ADDED + (at - graph.added_nodes) // 16) << np.int64(32)) | ((depth + 1) << np.int64(16)) | v
            )
            to, new_count = _find(work, new, epoch, new_count, to_place, history)
            _merge(work, limits.keep_merges, to, 1, score, source, True)
    return new_count, new_best


@njit(cache=True, nogil=True)
def _advance_unknown(
    graph, work, limits, row, num_tokens, new, epoch, new_count, new_best, frame, full, heard, depth, last, b, total,
    trace_b, trace,
):  # fmt: skip
    """An unknown word goes on by any phone, or begins (`heard` 0). graph.loop: float32 scores [phone, next
    phone], where phone 0 is the begin and next phone 0 the end."""
    for v in range(1, num_tokens):
        if not (load_i64(work.state, _MASKS + v // 64) >> np.int64(v % 64)) & 1 or new_count >= full:
            continue
        score = np.float32((b if v == last else total) + load_f32(row, v))
        score = np.float32(score + load_f32(graph.loop, heard * num_tokens + v))
        bar = np.float32(new_best - np.float32(limits.beam))
        if score < bar:
            continue
        source = trace_b if v == last else trace
        record = _record(work, source, np.int32(UNKNOWN_PHONE - v), np.int64(UNKNOWN_PHONE - v), frame)
        if record < 0:
            return new_count, new_best
        new_best = max(new_best, score)
        to_place = (
            ((LOOP + np.int64(v)) << np.int64(32)) | (min(depth + 1, SHORTEST_UNKNOWN) << np.int64(16)) | v
        )
        to, new_count = _find(work, new, epoch, new_count, to_place, np.int32(0))
        _merge(work, limits.keep_merges, to, 1, score, record, True)
        at_end = np.float32(score + load_f32(graph.loop, v * num_tokens))
        if depth + 1 >= SHORTEST_UNKNOWN and at_end >= bar:
            new_best = max(new_best, at_end)
            new_count = _end_word(
                graph, work, limits.keep_merges, new, epoch, new_count, bar, frame, record, at_end,
                np.int32(UNKNOWN_END), np.int64(UNKNOWN_END), np.int32(0), np.int64(v),
            )  # fmt: skip
    return new_count, new_best


@njit(cache=True, nogil=True)
def advance(graph, work, limits, log_probs, num_frames, num_tokens):
    """Search on through log_probs float32 (num_frames, num_tokens), from frame state[FRAME].

    Returns when all frames are done, or early where records or merges are nearly full: with more room it goes
    on.
    """
    state = work.state
    beam, blank_skip = np.float32(limits.beam), np.float32(limits.blank_skip)
    words, stride = graph.words, graph.words + 1
    count, epoch = load_i64(state, COUNT), load_i64(state, EPOCH)
    flip = load_i64(state, FLIP)
    best = load_f32(state, 2 * BEST)
    cut = load_f32(state, 2 * BEST + 1)
    frame = load_i64(state, FRAME)
    leader = load_i64(state, LEADER)
    first_frame = load_i64(state, FIRST_FRAME)
    while frame < num_frames:
        row = log_probs + frame * num_tokens * 4
        tokens = work.tokens_b if flip else work.tokens_a
        blank = load_f32(row, 0)
        if blank > blank_skip:
            run = blank
            frame += 1
            while frame < num_frames:
                blank = load_f32(log_probs + frame * num_tokens * 4, 0)
                if not blank > blank_skip:
                    break
                run += blank
                frame += 1
            _skip(work, tokens, count, cut, run)
            best, cut = np.float32(best + run), np.float32(cut + run)
            continue
        if load_i64(state, RECORDS) + work.capacity > work.record_capacity:
            break
        if limits.keep_merges and load_i64(state, MERGES) + 2 * work.capacity > work.merge_capacity:
            break
        store_i64(state, NOW, first_frame + frame)
        new = work.tokens_a if flip else work.tokens_b
        flip ^= 1
        epoch += 1
        new_count, new_best = np.int64(0), np.float32(best + blank)
        # What one arc or word can still add fits behind it.
        full = work.capacity - 64
        # Tokens of the emissions that could survive after the best path so far.
        keep = np.float32(new_best - beam - best - np.float32(graph.bonus))
        for w in range(words):
            mask = np.int64(0)
            for v in range(64 * w, min(64 * w + 64, num_tokens)):
                if v > 0 and load_f32(row, v) >= keep:
                    mask |= np.int64(1) << np.int64(v - 64 * w)
            store_i64(state, _MASKS + w, mask)
        for k in range(count):
            # The best token first: it tells soonest what is not worth keeping.
            i = leader if k == 0 else k - 1 if k <= leader else k
            token = tokens + i * TOKEN_BYTES
            b, p = load_f32(token, 4), load_f32(token, 5)
            if max(b, p) < cut or max(b, p) <= _GONE:
                continue
            if new_count >= full:
                store_i64(state, OVERFLOW, load_i64(state, OVERFLOW) + 1)
                continue
            place, extra = load_i64(token, 0), load_i32(token, 2)
            code = place >> np.int64(32)
            depth, last = (place >> np.int64(16)) & np.int64(0xFFFF), place & np.int64(0xFFFF)
            trace_b, trace_p = load_i32(token, 6), load_i32(token, 7)
            total = _add(b, p, work.add_table)
            trace = trace_b if b >= p else trace_p
            if trace_b != trace_p and b > _GONE and p > _GONE:
                if _words_of(work.records, trace_b) != _words_of(work.records, trace_p):
                    total = max(b, p)
            bar = np.float32(new_best - beam)
            # Wait: a blank, or the same phone again.
            waits = np.float32(total + blank)
            repeats = np.float32(p + load_f32(row, last)) if p > _GONE and last else NEVER
            if waits >= bar:
                new_best = max(new_best, waits)
                place_b = place if depth else place & ~np.int64(0xFFFF)
                to, new_count = _find(work, new, epoch, new_count, place_b, extra)
                _merge(work, limits.keep_merges, to, 0, waits, trace, False)
                if repeats >= bar and depth:
                    _merge(work, limits.keep_merges, to, 1, repeats, trace_p, False)
            if repeats >= bar and (depth == 0 or waits < bar):
                to, new_count = _find(work, new, epoch, new_count, place, extra)
                _merge(work, limits.keep_merges, to, 1, repeats, trace_p, False)
            new_best = max(new_best, repeats)
            if graph.loop and ((code == 0 and depth == 0) or LOOP <= code < ADDED):
                new_count, new_best = _advance_unknown(
                    graph, work, limits, row, num_tokens, new, epoch, new_count, new_best, first_frame + frame, full,
                    code - LOOP if code else code, depth, last, b, total, trace_b, trace,
                )  # fmt: skip
                if code:
                    continue
            if code >= ADDED:
                new_count, new_best = _advance_added(
                    graph, work, limits, row, new, epoch, new_count, new_best, first_frame + frame, full, code - ADDED,
                    np.float32(0.0), extra, depth, last, b, total, trace_b, trace,
                )  # fmt: skip
                continue
            if code < 0:
                # In a chain one phone can follow.
                chain = ~code
                pronunciation = load_i32(graph.chains, 2 * chain)
                start = load_i32(graph.offsets, pronunciation)
                length = load_i32(graph.offsets, pronunciation + 1) - start
                v = np.int64(load_i16(graph.tokens, start + depth))
                score = np.float32((b if v == last else total) + load_f32(row, v))
                if score < new_best - beam:
                    continue
                source = trace_b if v == last else trace
                new_best = max(new_best, score)
                if depth + 1 < length:
                    to_place = (code << np.int64(32)) | ((depth + 1) << np.int64(16)) | v
                    to, new_count = _find(work, new, epoch, new_count, to_place, np.int32(0))
                    _merge(work, limits.keep_merges, to, 1, score, source, True)
                else:
                    word = load_i32(graph.word_of, pronunciation)
                    if not load_i8(graph.removed, pronunciation):
                        new_count = _end_word(
                            graph, work, limits.keep_merges, new, epoch, new_count, new_best - beam,
                            first_frame + frame, source, score, pronunciation, word,
                            load_i32(graph.chains, 2 * chain + 1), v,
                        )  # fmt: skip
                continue
            packed = load_i64(graph.nodes, code * stride + words)
            arc = packed & np.int64(0xFFFFFFFF)
            for w in range(words):
                mask = load_i64(graph.nodes, code * stride + w)
                open_ = mask & load_i64(state, _MASKS + w)
                while open_:
                    bit = lowest_bit(open_)
                    open_ &= open_ - 1
                    v = 64 * w + bit
                    score = np.float32((b if v == last else total) + load_f32(row, v))
                    bar = np.float32(new_best - beam)
                    if (depth and score < bar) or new_count >= full:
                        continue
                    k = arc + count_bits(mask & ((np.int64(1) << bit) - 1))
                    score = np.float32(score + load_f32(graph.arcs, 2 * k))
                    if score < bar:
                        continue
                    source = trace_b if v == last else trace
                    to_code = np.int64(load_i32(graph.arcs, 2 * k + 1))
                    if to_code < 0:
                        chain = ~to_code
                        pronunciation = load_i32(graph.chains, 2 * chain)
                        length = load_i32(graph.offsets, pronunciation + 1) - load_i32(
                            graph.offsets, pronunciation
                        )
                        if length == depth + 1:
                            word = load_i32(graph.word_of, pronunciation)
                            if not load_i8(graph.removed, pronunciation):
                                new_best = max(new_best, score)
                                new_count = _end_word(
                                    graph, work, limits.keep_merges, new, epoch, new_count, bar, first_frame + frame,
                                    source, score, pronunciation, word, load_i32(graph.chains, 2 * chain + 1), v,
                                )  # fmt: skip
                            continue
                    else:
                        to_packed = load_i64(graph.nodes, to_code * stride + words)
                        last_end = load_i64(graph.nodes, (to_code + 1) * stride + words) >> np.int64(32)
                        for e in range(to_packed >> np.int64(32), last_end):
                            at_end = np.float32(score + load_f32(graph.ends, 3 * e + 1))
                            pronunciation = load_i32(graph.ends, 3 * e)
                            word = load_i32(graph.word_of, pronunciation)
                            if at_end < bar or load_i8(graph.removed, pronunciation) or new_count >= full:
                                continue
                            new_best = max(new_best, at_end)
                            new_count = _end_word(
                                graph, work, limits.keep_merges, new, epoch, new_count, bar, first_frame + frame,
                                source, at_end, pronunciation, word, load_i32(graph.ends, 3 * e + 2), v,
                            )  # fmt: skip
                        if not _goes_on(graph, to_code, words, stride):
                            continue
                    new_best = max(new_best, score)
                    to_place = (to_code << np.int64(32)) | ((depth + 1) << np.int64(16)) | v
                    to, new_count = _find(work, new, epoch, new_count, to_place, np.int32(0))
                    _merge(work, limits.keep_merges, to, 1, score, source, True)
                arc += count_bits(mask)
            if depth == 0 and graph.num_groups:
                link = load_i32(graph.heads, code)
                while link >= 0:
                    group = load_i32(graph.links, 4 * link)
                    if group < graph.num_groups:
                        entry = np.float32(
                            load_f32(graph.links, 4 * link + 1) + load_f32(graph.groups, 2 * group + 1)
                        )
                        new_count, new_best = _advance_added(
                            graph, work, limits, row, new, epoch, new_count, new_best, first_frame + frame, full,
                            np.int64(load_i32(graph.groups, 2 * group)), entry, load_i32(graph.links, 4 * link + 2),
                            depth, last, b, total, trace_b, trace,
                        )  # fmt: skip
                    link = load_i32(graph.links, 4 * link + 3)
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
def _goes_on(graph, node, words, stride):
    for w in range(words):
        if load_i64(graph.nodes, node * stride + w):
            return True
    return False


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
        cut = _threshold(tokens, count, best, beam, beam_size, work.state + 8 * _BINS)
    return best, cut, leader


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
            if score > _GONE:
                to, found = _find(work, new, epoch, found, place & ~np.int64(0xFFFF), np.int32(0))
                _merge(work, keep_merges, to, 0, score, load_i32(token, 6 + column), False)
    for i in range(found):
        token = new + i * TOKEN_BYTES
        history = load_i64(token, 0) >> np.int64(32)
        store_f32(finals, 2 * i, np.float32(load_f32(token, 4) + load_f32(end_scores, history)))
        store_i32(finals, 2 * i + 1, load_i32(token, 6))
    return found


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
    """The frame in which each token of a path begins, int32 into `frames` (arrays, not addresses).

    A word's last token begins in its frame of `last_frames`; those before it lie between the word before and
    there as the emissions have it best.
    """
    first, at = 0, 0
    for w in range(word_ends.shape[0]):
        last, end = last_frames[w], word_ends[w]
        n, span = end - at, last - first + 1
        # best[t, k]: tokens 0..k of the word have begun by frame first + t, the k-th is the last heard or its
        # blank after it.
        score = np.full((span, 2 * n), NEVER, np.float32)
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
                    best, step = NEVER, 1
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
            blank_before = score[t, 2 * k - 1] if t >= 0 else NEVER
            direct = score[t, 2 * k - 2] if t >= 0 and tokens[end - 1] != tokens[end - 2] else NEVER
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
