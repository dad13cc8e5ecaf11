"""The best paths of a search with different words, from its records and from what was merged away.

From the end to the beginning, best first: a path is known from some record on (its suffix), and what met it
before could have led there as well. What that would score is known from where they met, though not exactly:
who wants exact scores computes them afterwards. Of the alignments that only differ in when words end, the
first one to be met stands for all: else they alone would fill the list.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

from asr.decoder.tokens import _PRIME
from asr.decoder.workspace import Paths

# Of the table of suffixes that were met; half of them are filled at most. Twenty seconds of noisy speech meet
# 250,000: beyond the room only what is on the list already is gone through.
_SLOTS = 1 << 18
_NO_UNTIL = np.iinfo(np.int32).max


def best_paths(paths: Paths, nbest: int, within: float) -> list[tuple[np.ndarray, float]]:
    """The `nbest` best (records int32, score) whose words differ by their ids, none worse than the best by
    more than `within`: the final records, and what was merged into them."""
    finals, records = paths.finals, paths.records
    if nbest == 1:
        if not len(finals):
            return []
        best = finals[finals["score"].argmax()]
        return [(_path(records, int(best["record"])), float(best["score"]))]
    if not len(finals):
        return []
    order, first = _by_kept(paths.merges, len(records))
    flat, ends, scores = _expand(finals, records, paths.merges, order, first, nbest, within)
    return [(p, float(s)) for p, s in zip(np.split(flat, ends[:-1]), scores, strict=True)]


@njit(cache=True, nogil=True)
def _by_kept(merges, num_records):
    """The merges by the record that was kept (-1: none): their numbers, and where each record's begin."""
    first = np.zeros(num_records + 2, np.int64)
    for i in range(merges.shape[0]):
        first[merges[i].kept + 2] += 1
    for r in range(1, num_records + 2):
        first[r] += first[r - 1]
    order = np.empty(merges.shape[0], np.int32)
    at = first.copy()
    for i in range(merges.shape[0]):
        kept = merges[i].kept + 1
        order[at[kept]] = i
        at[kept] += 1
    return order, first


@njit(cache=True, nogil=True)
def _expand(finals, records, merges, order, first, nbest, within):
    """The paths one behind the other, where each ends, and their scores."""
    best = np.float32(-np.inf)
    for final in finals:
        best = max(best, final.score)
    worst = np.float64(best) - within
    # What follows a record on a path: its number among these, -1 the end.
    node_record, node_next = [np.int32(-1)], [np.int64(-1)]
    expanded = np.zeros(_SLOTS, np.int64)
    used = 0
    # How far below zero its score is, a number for ties, the record to go back from, what follows it, and
    # number and fingerprint of the words that follow.
    heap = [(np.float64(0), np.int64(0), np.int32(0), np.int64(0), np.int64(0), np.int64(0))]
    heap.pop()
    pushed = np.int64(0)
    for final in finals:
        if final.score >= worst:
            heapq.heappush(
                heap, (-np.float64(final.score), pushed, final.record, np.int64(-1), np.int64(0), np.int64(0))
            )
            pushed += 1
    flat, ends, scores, found = [np.int32(0)], [np.int64(0)], [np.float64(0)], [np.int64(0)]
    flat.pop(), ends.pop(), scores.pop(), found.pop()
    while len(heap) > 0 and len(found) < nbest:
        negative, _, at, node, words, suffix = heapq.heappop(heap)
        while True:
            until = records[node_record[node]].frame if node >= 0 else np.int32(_NO_UNTIL)
            for k in range(first[at + 1], first[at + 2]):
                merge = merges[order[k]]
                # What met this path before its next word ended could have led there as well.
                if merge.frame >= until or -negative - merge.cost < worst or 2 * used >= _SLOTS:
                    continue
                if _is_new(expanded, (suffix * np.int64(_PRIME) + words) * np.int64(_PRIME) + merge.lost):
                    used += 1
                    heapq.heappush(heap, (negative + merge.cost, pushed, merge.lost, node, words, suffix))
                    pushed += 1
            if at < 0:
                break
            node_record.append(at)
            node_next.append(node)
            node = np.int64(len(node_record) - 1)
            suffix = suffix * np.int64(_PRIME) + _word(records, at)
            words += 1
            at = records[at].before
        if suffix in found:
            continue
        found.append(suffix)
        while node >= 0:
            flat.append(node_record[node])
            node = node_next[node]
        ends.append(np.int64(len(flat)))
        scores.append(-negative)
    return np.array(flat, np.int32), np.array(ends, np.int64), np.array(scores, np.float64)


@njit(cache=True, nogil=True)
def _word(records, at):
    """What the word of a record adds to the fingerprint of those before it: known by that alone."""
    before = records[at].before
    so_far = records[before].words if before >= 0 else np.int64(0)
    return records[at].words - so_far * np.int64(_PRIME)


@njit(cache=True, nogil=True)
def _is_new(table, key):
    """Whether the key was not in the table of keys, an array; it is afterwards."""
    if key == 0:
        key = np.int64(1)
    slot = (key ^ (key >> np.int64(29))) & np.int64(_SLOTS - 1)
    while table[slot] != 0:
        if table[slot] == key:
            return False
        slot = (slot + 1) & np.int64(_SLOTS - 1)
    table[slot] = key
    return True


@njit(cache=True, nogil=True)
def _path(records, at):
    """The records from the first to the one at `at`, int32."""
    length, before = 0, at
    while before >= 0:
        before = records[before].before
        length += 1
    path = np.empty(length, np.int32)
    while at >= 0:
        length -= 1
        path[length] = at
        at = records[at].before
    return path
