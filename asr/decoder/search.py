"""Token passing over the lexicon tree with an n-gram language model (Graves et al. 2006 meets Ney & Ortmanns 1999).

A token is a place in the tree, a state of the language model and, at the root, the phone that was last heard. It has
two scores, of all paths that end in blank and of those that end in its phone: equal tokens are merged by adding
probabilities. A word ends in the frame in which its last phone begins, so that each CTC path is counted once.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from asr.decoder.ngram import lm_step

_NEVER = np.float32(-1e30)


@njit(cache=True, nogil=True, inline="always")
def _add(a, b):
    high, low = (a, b) if a > b else (b, a)
    return high if low <= high - 16 else np.float32(high + math.log1p(math.exp(low - high)))


@njit(cache=True, nogil=True)
def _place(keys, stamps, slots, epoch, node, state, last, count):
    """The token of that key: its number, or `count` for a new one."""
    mask = slots.shape[0] - 1
    h = np.uint64(node) * np.uint64(0x9E3779B97F4A7C15)
    h ^= np.uint64(np.int64(state) + 2) * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= np.uint64(last + 1) * np.uint64(0x165667B19E3779F9)
    h ^= h >> np.uint64(29)
    slot = np.int64(h & np.uint64(mask))
    while stamps[slot] == epoch:
        t = slots[slot]
        if keys[t, 0] == node and keys[t, 1] == state and keys[t, 2] == last:
            return t
        slot = (slot + 1) & mask
    stamps[slot] = epoch
    slots[slot] = count
    return count


@njit(cache=True, nogil=True)
def search(
    log_probs, first_arc, arc_token, arc_node, first_end, ends, token_of, ahead,
    word_lm, word_bonus, word_unknown, lm_prob, lm_backoff, lm_suffix, lm_extends, lm_table, lm_start, lm_end,
    lm_weight, beam_size, beam_threshold, blank_skip, keep_merges,
):  # fmt: skip
    """Decode log_probs (frames, tokens) float32.

    For pronunciation i: word_lm its language model id, word_bonus what its end scores beside the language model, and
    word_unknown (nan, or what replaces the language model's score). lm_end < 0: no sentence end is scored.

    Returns traces int32 (traces, 3): trace before (-1), pronunciation, frame; merges (trace kept, trace merged into it) with the
    score that the second loses; final traces and their scores, best first; and whether the beam overflowed.
    """
    num_frames, num_tokens = log_probs.shape
    capacity = max(20_000, 16 * beam_size)
    num_slots = 1
    while num_slots < 2 * capacity:
        num_slots *= 2
    stamps = np.full(num_slots, -1, np.int32)
    slots = np.zeros(num_slots, np.int32)
    keys, new_keys = np.zeros((capacity, 3), np.int32), np.zeros((capacity, 3), np.int32)
    # columns: score ending in blank, score ending in the phone
    scores, new_scores = np.zeros((capacity, 2), np.float32), np.zeros((capacity, 2), np.float32)
    traces, new_traces = np.zeros((capacity, 2), np.int32), np.zeros((capacity, 2), np.int32)
    history = np.zeros((1024, 3), np.int32)
    num_history = 0
    merges = np.zeros((1024, 2), np.int32)
    merge_costs = np.zeros(1024, np.float32)
    num_merges = 0
    overflow = 0

    keys[0, 0], keys[0, 1], keys[0, 2] = 0, lm_start, 0
    scores[0, 0], scores[0, 1] = 0.0, _NEVER
    traces[0, 0] = traces[0, 1] = -1
    count = 1
    for frame in range(num_frames):
        row = log_probs[frame]
        blank = row[0]
        best = _NEVER
        for i in range(count):
            best = max(best, scores[i, 0], scores[i, 1])
        skip = blank > blank_skip
        # The best score of the next frame is at least that of the best token's blank, and near that of its likeliest token.
        highest = row[0]
        for v in range(1, num_tokens):
            highest = max(highest, row[v])
        next_best = best + blank
        new_count = 0
        for i in range(count):
            node, state, last = keys[i, 0], keys[i, 1], keys[i, 2]
            blank_score, phone_score = scores[i, 0], scores[i, 1]
            total = _add(blank_score, phone_score)
            trace = traces[i, 0] if blank_score >= phone_score else traces[i, 1]
            heard = token_of[node] if node > 0 else last
            # Moves: 0 blank, 1 the same phone again, then the children.
            num_arcs = 0 if skip else first_arc[node + 1] - first_arc[node]
            for move in range(2 + num_arcs):
                if move == 0:
                    value, to_node, to_last, column = total + blank, node, np.int32(0), 0
                    source = trace
                elif move == 1:
                    if skip or heard == 0 or phone_score <= _NEVER / 2:
                        continue
                    value, to_node, to_last, column = phone_score + row[heard], node, last, 1
                    source = traces[i, 1]
                else:
                    arc = first_arc[node] + move - 2
                    token = arc_token[arc]
                    to_node, to_last, column = arc_node[arc], np.int32(0), 1
                    start = blank_score if token == heard else total
                    source = traces[i, 0] if token == heard else trace
                    value = start + row[token]
                    if value + ahead[to_node] - ahead[node] < next_best - beam_threshold:
                        continue
                    # The words that end here go on from the root.
                    for e in range(first_end[to_node], first_end[to_node + 1]):
                        word = ends[e]
                        lm, next_state = lm_step(
                            lm_prob, lm_backoff, lm_suffix, lm_extends, lm_table, state, word_lm[word]
                        )
                        if not math.isnan(word_unknown[word]):
                            lm = word_unknown[word]
                        at_end = np.float32(value - ahead[node] + lm_weight * lm + word_bonus[word])
                        if at_end < next_best - beam_threshold or new_count >= capacity - 2:
                            continue
                        next_best = max(next_best, at_end)
                        t = _place(new_keys, stamps, slots, frame, 0, next_state, token, new_count)
                        if t == new_count:
                            new_count += 1
                            new_keys[t, 0], new_keys[t, 1], new_keys[t, 2] = 0, next_state, token
                            new_scores[t, 0] = new_scores[t, 1] = _NEVER
                            new_traces[t, 0] = new_traces[t, 1] = -1
                        if num_history == history.shape[0]:
                            grown = np.zeros((2 * num_history, 3), np.int32)
                            grown[:num_history] = history
                            history = grown
                        history[num_history, 0], history[num_history, 1] = source, word
                        history[num_history, 2] = frame
                        old, old_trace = new_scores[t, 1], new_traces[t, 1]
                        if old > _NEVER / 2 and keep_merges:
                            merges, merge_costs, num_merges = _remember(
                                merges, merge_costs, num_merges, old_trace, num_history, old, at_end
                            )
                        if at_end > old:
                            new_traces[t, 1] = num_history
                        new_scores[t, 1] = _add(old, at_end)
                        num_history += 1
                    if first_arc[to_node + 1] == first_arc[to_node]:
                        continue  # nothing goes on from a leaf but its words
                    value += ahead[to_node] - ahead[node]
                value = np.float32(value)
                if value < next_best - beam_threshold:
                    continue
                if new_count >= capacity - 2:
                    overflow += 1
                    continue
                next_best = max(next_best, value)
                t = _place(new_keys, stamps, slots, frame, to_node, state, to_last, new_count)
                if t == new_count:
                    new_count += 1
                    new_keys[t, 0], new_keys[t, 1], new_keys[t, 2] = to_node, state, to_last
                    new_scores[t, 0] = new_scores[t, 1] = _NEVER
                    new_traces[t, 0] = new_traces[t, 1] = -1
                old, old_trace = new_scores[t, column], new_traces[t, column]
                if old > _NEVER / 2 and keep_merges and old_trace != source:
                    merges, merge_costs, num_merges = _remember(
                        merges, merge_costs, num_merges, old_trace, source, old, value
                    )
                if value > old:
                    new_traces[t, column] = source
                new_scores[t, column] = _add(old, value)
        # Keep what is inside the beam, at most beam_size tokens.
        totals = np.empty(new_count, np.float32)
        for i in range(new_count):
            totals[i] = _add(new_scores[i, 0], new_scores[i, 1])
        cutoff = _NEVER
        if new_count > 0:
            cutoff = totals.max() - np.float32(beam_threshold)
            if new_count > beam_size:
                cutoff = max(cutoff, np.partition(totals, new_count - beam_size)[new_count - beam_size])
        count = 0
        for i in range(new_count):
            if totals[i] >= cutoff and totals[i] > _NEVER / 2:
                for k in range(3):
                    keys[count, k] = new_keys[i, k]
                for k in range(2):
                    scores[count, k] = new_scores[i, k]
                    traces[count, k] = new_traces[i, k]
                count += 1

    # Only tokens between words end an utterance.
    final_traces, final_scores = np.zeros(count, np.int32), np.full(count, _NEVER, np.float32)
    finals = 0
    for i in range(count):
        if keys[i, 0] != 0:
            continue
        value = _add(scores[i, 0], scores[i, 1])
        if lm_end >= 0:
            lm, _ = lm_step(lm_prob, lm_backoff, lm_suffix, lm_extends, lm_table, keys[i, 1], lm_end)
            value += lm_weight * lm
        final_traces[finals] = traces[i, 0] if scores[i, 0] >= scores[i, 1] else traces[i, 1]
        final_scores[finals] = value
        finals += 1
    order = np.argsort(-final_scores[:finals])
    return (
        history[:num_history], merges[:num_merges], merge_costs[:num_merges], final_traces[:finals][order],
        final_scores[:finals][order], overflow,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _remember(merges, costs, count, a, b, score_a, score_b):
    """Note that two traces were merged: (the better one, the other) and by how much it is worse."""
    if count == merges.shape[0]:
        grown, grown_costs = np.zeros((2 * count, 2), np.int32), np.zeros(2 * count, np.float32)
        grown[:count] = merges
        grown_costs[:count] = costs
        merges, costs = grown, grown_costs
    better = score_b > score_a
    merges[count, 0], merges[count, 1] = (b, a) if better else (a, b)
    costs[count] = abs(score_a - score_b)
    return merges, costs, count + 1


@njit(cache=True, nogil=True)
def token_frames(log_probs, tokens):
    """The frame in which each token begins on the best CTC path of `tokens`, int32; -1 for all where they do not fit."""
    num_frames, num_states = log_probs.shape[0], 2 * tokens.shape[0] + 1
    score = np.full(num_states, _NEVER, np.float32)
    back = np.zeros((num_frames, num_states), np.int8)
    for t in range(num_frames):
        for s in range(num_states - 1, -1, -1):
            token = tokens[s // 2] if s % 2 else 0
            if t == 0:
                best = np.float32(0.0) if s < 2 else _NEVER
                step = 0
            else:
                best, step = score[s], 0
                if s > 0 and score[s - 1] > best:
                    best, step = score[s - 1], 1
                if s % 2 and s > 2 and tokens[s // 2] != tokens[s // 2 - 1] and score[s - 2] > best:
                    best, step = score[s - 2], 2
            back[t, s] = step
            score[s] = best + log_probs[t, token] if best > _NEVER / 2 else _NEVER
    frames = np.full(tokens.shape[0], -1, np.int32)
    s = num_states - 1
    if num_states > 1 and num_frames > 0 and score[s - 1] > score[s]:
        s -= 1
    if num_frames == 0 or score[s] <= _NEVER / 2:
        return frames
    for t in range(num_frames - 1, -1, -1):
        if s % 2:
            frames[s // 2] = t
        s -= back[t, s]
    return frames
