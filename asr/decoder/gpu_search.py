"""Token passing on a GPU: a block of threads an utterance, all of its frames in one launch.

It is the search of search.py, result for result. A frame has three steps: every token goes on, and what
arrives anywhere is noted as a candidate; candidates are sorted by place; and those of a place are merged by
one thread, in the order in which the CPU would have met them. For the same reason tokens go on twice: the
first time only the best score of each is found, from which the CPU would have pruned those after it. So no
thread waits for a lock, no score depends on which thread was first, and both engines differ by rounding
alone.

What does not fit the memory is counted as an overflow. Too many candidates narrow the frame's beam until they
fit; only where scores tie so that this does not help, or records run out, is it chance which are lost.
"""

from __future__ import annotations

import math

import numpy as np

from asr.decoder.gpu_arcs import ARC, BLANK, Step, add, expand, fingerprint
from asr.decoder.gpu_block import (
    BINS,
    CANDIDATES,
    COUNT,
    OVERFLOW,
    RECORDS,
    best_of,
    device,
    exclusive_max,
    fetch_add,
    kernel,
    sort,
    sync,
)
from asr.decoder.tokens import GONE, NEVER

_TRIES = 12  # each halves the beam of a frame with too many candidates


@device
def search(block, graph, work, batch):
    """Decode utterance block.number."""
    b = block.number
    num_frames = np.int64(batch.lengths[b])
    _begin(block, graph, work)
    count, leader = np.int64(block.ints[COUNT]), np.int64(0)
    best, cut = np.float32(0.0), NEVER
    frame, side = np.int64(0), np.int64(0)
    while frame < num_frames:
        run, skipped = _sure_blanks(block, batch, frame, num_frames)
        if skipped > 0:
            _skip(block, work, side, count, cut, run)
            best, cut, frame = np.float32(best + run), np.float32(cut + run), frame + skipped
            continue
        count = _advance(block, graph, work, batch, frame, side, count, best, cut, leader)
        side = 1 - side
        best, cut, leader = _survivors(block, work, batch, side, count)
        frame += 1
    _finish(block, graph, work, batch, side, count, cut)


@device
def _begin(block, graph, work):
    """Tokens before the first frame: the root of the sentence begin and those that backoff leads to."""
    b = block.number
    if block.thread == 0:
        count, score, history = 0, np.float32(0.0), np.int64(graph.start)
        while True:
            work.place[b, 0, count], work.extra[b, 0, count] = history << np.int64(32), 0
            work.blank[b, 0, count], work.phone[b, 0, count] = score, NEVER
            work.blank_trace[b, 0, count], work.phone_trace[b, 0, count] = -1, -1
            count += 1
            if history == 0:
                break
            score = np.float32(score + graph.backoff_score[history])
            history = np.int64(graph.backoff_to[history])
        block.ints[COUNT] = count
        block.ints[RECORDS] = 0
        block.ints[OVERFLOW] = 0
    sync()


@device
def _sure_blanks(block, batch, frame, num_frames):
    """The summed log-probability of the run of frames from here on that are blank for sure, and how many they
    are."""
    run, at = np.float32(0.0), frame
    while at < num_frames and batch.log_probs[block.number, at, 0] > batch.blank_skip:
        run = np.float32(run + batch.log_probs[block.number, at, 0])
        at += 1
    return run, at - frame


@device
def _skip(block, work, side, count, cut, blank):
    """Every token waits in place."""
    b = block.number
    for i in range(block.thread, count, block.threads):
        before, phone = work.blank[b, side, i], work.phone[b, side, i]
        work.phone[b, side, i] = NEVER
        if max(before, phone) < cut:
            work.blank[b, side, i] = NEVER
            continue
        if phone > before:
            work.blank_trace[b, side, i] = work.phone_trace[b, side, i]
        work.blank[b, side, i] = np.float32(add(before, phone, work.add_table) + blank)
    sync()


@device
def _advance(block, graph, work, batch, frame, side, count, best, cut, leader):
    """All tokens of a side go on into the other one; returns how many there are then."""
    b = block.number
    start = np.float32(best + batch.log_probs[b, frame, 0])
    beam = np.float32(batch.beam)
    keep = np.float32(start - beam - best - np.float32(graph.bonus))
    step = Step(side, frame, leader, beam, cut, keep, False)
    for k in range(block.thread, count, block.threads):
        work.tops[b, k] = expand(block, graph, work, batch, step, np.int64(k), start)
    sync()
    exclusive_max(block, work.tops, count, start)
    records, tries = block.ints[RECORDS], 0
    sync()
    while True:
        if block.thread == 0:
            block.ints[CANDIDATES], block.ints[RECORDS] = 0, records
        sync()
        step = Step(side, frame, leader, beam, cut, keep, True)
        for k in range(block.thread, count, block.threads):
            expand(block, graph, work, batch, step, np.int64(k), work.tops[b, k])
        sync()
        candidates = np.int64(block.ints[CANDIDATES])
        if candidates <= work.keys.shape[1] or tries == _TRIES:
            break
        beam, tries = np.float32(beam * np.float32(0.5)), tries + 1
        sync()
    if block.thread == 0:
        block.ints[RECORDS] = min(block.ints[RECORDS], work.record_before.shape[1])
        block.ints[OVERFLOW] += tries
    return _merge_all(block, work, 1 - side, min(candidates, work.keys.shape[1]))


@device
def _merge_all(block, work, side, candidates):
    """The tokens of a side from so many candidates, in the order in which their first ones were met."""
    b = block.number
    sort(block, work.keys, work.order, candidates)
    if block.thread == 0:
        block.ints[COUNT] = 0
    sync()
    for i in range(block.thread, candidates, block.threads):
        if i == 0 or work.keys[b, i] != work.keys[b, i - 1]:
            token = fetch_add(block.ints, COUNT, 1)
            work.first[b, token], work.at[b, token] = work.order[b, i], i
    sync()
    count = np.int64(block.ints[COUNT])
    sort(block, work.first, work.at, count)
    for token in range(block.thread, count, block.threads):
        _merge_place(block, work, side, token, candidates)
    sync()
    return count


@device
def _merge_place(block, work, side, token, candidates):
    """One token from all of its candidates."""
    b = block.number
    i = np.int64(work.at[b, token])
    key = work.keys[b, i]
    blank, phone, entry, unused = NEVER, NEVER, NEVER, NEVER
    blank_trace, phone_trace = np.int64(-1), np.int64(-1)
    first = work.order[b, i] & np.int64(0xFFFFF)
    while i < candidates and work.keys[b, i] == key:
        c = work.order[b, i] & np.int64(0xFFFFF)
        score, trace, how = work.to_score[b, c], np.int64(work.to_trace[b, c]), work.to_how[b, c]
        if how == BLANK:
            blank, blank_trace, unused = _merge(block, work, blank, blank_trace, unused, score, trace, False)
        else:
            phone, phone_trace, entry = _merge(
                block, work, phone, phone_trace, entry, score, trace, how == ARC
            )
        i += 1
    work.place[b, side, token], work.extra[b, side, token] = work.to_place[b, first], work.to_extra[b, first]
    work.blank[b, side, token], work.phone[b, side, token] = blank, phone
    work.blank_trace[b, side, token], work.phone_trace[b, side, token] = blank_trace, phone_trace


@device
def _merge(block, work, old, old_trace, before, score, trace, entry):
    """tokens.merge: the score, record, and last arrival by an arc of a token's column after one more path."""
    if old <= GONE:
        return score, trace, score if entry else NEVER
    if entry and trace == old_trace:
        if before > GONE:
            if score > before:
                gain = math.exp(score - old) - math.exp(before - old)
                return np.float32(old + np.float32(math.log1p(gain))), old_trace, score
            return old, old_trace, before
        before = score
    same = old_trace == trace or fingerprint(block, work, old_trace) == fingerprint(block, work, trace)
    merged = max(old, score)
    if same and not _twice(block, work, old_trace, trace):
        merged = add(old, score, work.add_table)
    if score > old:
        return merged, trace, score if entry else before
    return merged, old_trace, before


@device
def _twice(block, work, x, y):
    """Whether two records are one path that went by the word's own n-gram and by backoff."""
    b = block.number
    return (
        x >= 0
        and y >= 0
        and x != y
        and work.record_before[b, x] == work.record_before[b, y]
        and work.record_pronunciation[b, x] == work.record_pronunciation[b, y]
        and work.record_frame[b, x] == work.record_frame[b, y]
    )


@device
def _survivors(block, work, batch, side, count):
    """The best score of a frame, the score below which its tokens are given up, and which is the best."""
    b = block.number
    best, leader = NEVER, np.int64(0)
    for i in range(block.thread, count, block.threads):
        score = max(work.blank[b, side, i], work.phone[b, side, i])
        if score > best:
            best, leader = score, np.int64(i)
    best, leader = best_of(block, best, leader)
    cut = np.float32(best - np.float32(batch.beam))
    if count > batch.beam_size:
        cut = _threshold(block, work, batch, side, count, best)
    return best, cut, leader


@device
def _threshold(block, work, batch, side, count, best):
    """The score that all but about the best `beam_size` tokens fall short of."""
    b, beam = block.number, np.float32(batch.beam)
    for k in range(block.thread, 256, block.threads):
        block.ints[BINS + k] = 0
    sync()
    scale = np.float32(np.float32(255.0) / beam)
    for i in range(block.thread, count, block.threads):
        gap = best - max(work.blank[b, side, i], work.phone[b, side, i])
        if gap < beam:
            fetch_add(block.ints, BINS + np.int64(max(gap, np.float32(0.0)) * scale), 1)
    sync()
    cut, total = np.float32(best - beam), 0
    for k in range(256):
        total += block.ints[BINS + k]
        if total > batch.beam_size:
            cut = np.float32(best - np.float32(k) / scale)
            break
    sync()
    return cut


@device
def _finish(block, graph, work, batch, side, count, cut):
    """Where the utterance may end, and the records of the best way there."""
    b = block.number
    if block.thread == 0:
        block.ints[CANDIDATES] = 0
    sync()
    for i in range(block.thread, count, block.threads):
        place, blank, phone = np.int64(work.place[b, side, i]), work.blank[b, side, i], work.phone[b, side, i]
        if (place >> np.int64(16)) & np.int64(0xFFFF) or max(blank, phone) < cut:
            continue
        root = place & ~np.int64(0xFFFF)
        if blank > GONE:
            _end_at(block, work, i, 0, root, blank, work.blank_trace[b, side, i])
        if phone > GONE:
            _end_at(block, work, i, 1, root, phone, work.phone_trace[b, side, i])
    sync()
    candidates = np.int64(block.ints[CANDIDATES])
    if block.thread == 0:
        block.ints[OVERFLOW] += max(0, candidates - work.keys.shape[1])
    found = _merge_all(block, work, 1 - side, min(candidates, work.keys.shape[1]))
    best, leader = NEVER, np.int64(0)
    for i in range(block.thread, found, block.threads):
        history = np.int64(work.place[b, 1 - side, i]) >> np.int64(32)
        score = np.float32(work.blank[b, 1 - side, i] + graph.end_scores[history])
        if score > best:
            best, leader = score, np.int64(i)
    best, leader = best_of(block, best, leader)
    if block.thread == 0:
        trace = -1
        if found > 0:
            trace = work.blank_trace[b, 1 - side, leader]
        else:
            # No word is complete: silence is the only hypothesis.
            best = np.float32(0.0)
            for frame in range(batch.lengths[b]):
                best = np.float32(best + batch.log_probs[b, frame, 0])
        batch.scores[b], batch.overflows[b] = best, block.ints[OVERFLOW]
        _write_path(block, work, batch, trace)


@device
def _end_at(block, work, token, column, root, score, trace):
    """A candidate among the ends: the column and the token say when the CPU would have met it."""
    i = np.int64(fetch_add(block.ints, CANDIDATES, 1))
    if i < work.keys.shape[1]:
        b = block.number
        work.keys[b, i] = root
        work.order[b, i] = np.int64(token) << np.int64(40) | np.int64(column) << np.int64(20) | i
        work.to_place[b, i], work.to_extra[b, i] = root, 0
        work.to_score[b, i], work.to_trace[b, i], work.to_how[b, i] = score, trace, BLANK


@device
def _write_path(block, work, batch, trace):
    """The records that lead to `trace`, the first one first."""
    b, length, at = block.number, 0, trace
    while at >= 0:
        length, at = length + 1, work.record_before[b, at]
    batch.num_words[b] = length
    at = trace
    while at >= 0:
        length -= 1
        batch.pronunciations[b, length] = work.record_pronunciation[b, at]
        batch.frames[b, length] = work.record_frame[b, at]
        at = work.record_before[b, at]


search_batch = kernel(search)
