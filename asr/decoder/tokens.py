"""Tokens, their hash table and the records of word ends, all at raw addresses (see memory.py).

A token is a place in the graph with two scores, of the paths that end in blank and of those that end in the
phone of the place. At a root the phone that was last heard is part of the place: a repetition across words
would be lost otherwise. Where two paths meet, they are added if they say the same words, so that a word
sequence scores the sum of its alignments and pronunciations; of different words the better path goes on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from asr.decoder.memory import load_f32, load_i32, load_i64, store_f32, store_i32, store_i64

NEVER = np.float32(-1e30)
GONE = np.float32(-1e29)  # what scores less is no path
# int64 place, int32 destination (of added words), float32 score of the last arrival by an arc, float32 scores
# ending in blank and in the phone, int32 back-pointers of both. A place is int32 code, 16 bits of depth, 16
# bits of the last phone.
TOKEN_BYTES = 32
# int32 record before, pronunciation, frame, unused, int64 fingerprint of the words so far.
RECORD_BYTES = 24
# int32 record kept, record lost, float32 by how much it was worse, int32 frame.
MERGE_BYTES = 16
_ADD_STEPS, _ADD_RANGE = 64, 12  # per unit; beyond the range adding changes nothing
_steps = np.arange(_ADD_STEPS * _ADD_RANGE + 2) / _ADD_STEPS
ADD_TABLE = np.log1p(np.exp(-_steps)).astype(np.float32)
_PRIME, _ODD = 6364136223846793005, 1442695040888963407

# Places in Work.state; behind them lie the masks of a frame, the bins of its histogram, and the levels.
COUNT, RECORDS, MERGES, EPOCH, FRAME, OVERFLOW, FLIP, BEST, FIRST_FRAME, NOW, LEADER = range(11)
MASKS, BINS = 16, 16 + 64
LEVELS = BINS + 128
NUM_LEVELS, LEVELS_PER_UNIT = 64, 4
STATE_SIZE = LEVELS + 64 * NUM_LEVELS
MOST_TOKENS = 64 * 64  # of the emissions


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


@njit(cache=True, nogil=True, inline="always")
def add(a, b, table):
    """log(exp(a) + exp(b)), to 1e-5."""
    high, gap = (a, a - b) if a > b else (b, b - a)
    if gap >= _ADD_RANGE:
        return high
    place = gap * np.float32(_ADD_STEPS)
    k = np.int64(place)
    below = load_f32(table, k)
    return np.float32(high + below + (place - np.float32(k)) * (load_f32(table, k + 1) - below))


@njit(cache=True, nogil=True)
def fingerprint(records, trace):
    """The fingerprint of the words up to a record."""
    return load_i64(records + trace * RECORD_BYTES, 2) if trace >= 0 else np.int64(0)


@njit(cache=True, nogil=True)
def find_token(work, tokens, epoch, count, place, extra):
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
def merge(work, keep_merges, token, column, score, trace, entry):
    """Let a path with that score and back-pointer arrive in a column (0 blank, 1 phone) of a token.

    `entry`: it arrives by an arc. Then it may be a path that has arrived already, by the word's own n-gram,
    and now comes by backoff: the better of both counts, not their sum.
    """
    old = load_f32(token, 4 + column)
    if old <= GONE:
        store_f32(token, 4 + column, score)
        store_i32(token, 6 + column, trace)
        if column == 1:
            store_f32(token, 3, score if entry else NEVER)
        return
    old_trace = load_i32(token, 6 + column)
    if entry and trace == old_trace:
        before = load_f32(token, 3)
        if before > GONE:
            if score > before:
                store_f32(token, 3, score)
                gain = math.exp(score - old) - math.exp(before - old)
                store_f32(token, 5, np.float32(old + math.log1p(gain)))
            return
        store_f32(token, 3, score)
    same = old_trace == trace or fingerprint(work.records, old_trace) == fingerprint(work.records, trace)
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
        store_f32(token, 4 + column, add(old, score, work.add_table))
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
def record(work, source, pronunciation, word, frame):
    """Note a word end, or a phone of an unknown word: the number of the record, -1 where memory is full."""
    records = load_i64(work.state, RECORDS)
    if records == work.record_capacity:
        store_i64(work.state, OVERFLOW, load_i64(work.state, OVERFLOW) + 1)
        return np.int32(-1)
    at = work.records + records * RECORD_BYTES
    store_i32(at, 0, source)
    store_i32(at, 1, pronunciation)
    store_i32(at, 2, frame)
    store_i64(at, 2, fingerprint(work.records, source) * _PRIME + np.int64(word) + np.int64(_ODD))
    store_i64(work.state, RECORDS, records + 1)
    return np.int32(records)
