"""How a token goes on, on a GPU: arcs.py thread by thread, with arrays in place of addresses.

What arrives at a place is not merged at once, for another thread may be writing there. It is noted as a
candidate, with a number that says when the CPU's search would have met it; gpu_search.py merges all
candidates of a place in this order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.decoder.arcs import ADDED
from asr.decoder.gpu_block import CANDIDATES, OVERFLOW, RECORDS, device, fetch_add
from asr.decoder.tokens import _ADD_RANGE, _ADD_STEPS, _ODD, _PRIME, GONE, NEVER

BLANK, REPEAT, ARC = 0, 1, 2  # how a path arrives
_MOST = np.int64((1 << 20) - 1)


class Step(NamedTuple):
    """A frame: which tokens go on, what prunes them, and whether candidates are noted or only the best score
    is looked for. `keep`: what a phone must score to be heard by added words."""

    side: int
    frame: int
    leader: int
    beam: float
    cut: float
    keep: float
    noting: bool


class Source(NamedTuple):
    """The token that goes on, as in arcs.py; `rank` is its place in the order of the search."""

    rank: int
    blank: float
    total: float
    blank_trace: int
    trace: int
    code: int
    depth: int
    last: int
    extra: int


@device
def add(a, b, table):
    """log(exp(a) + exp(b)), by the table of the CPU."""
    high, gap = max(a, b), abs(a - b)
    if gap >= _ADD_RANGE:
        return high
    place = gap * np.float32(_ADD_STEPS)
    k = np.int64(place)
    below = table[k]
    return np.float32(high + below + (place - np.float32(k)) * (table[k + 1] - below))


@device
def fingerprint(block, work, trace):
    """The fingerprint of the words up to a record."""
    if trace < 0:
        return np.int64(0)
    return np.int64(work.record_words[block.number, trace])


@device
def key_of(place, extra):
    """A place in one number. Inside a tree the node tells depth and last phone: they can be left out."""
    code, depth = place >> np.int64(32), (place >> np.int64(16)) & np.int64(0xFFFF)
    if code >= ADDED:
        return np.int64(1) << np.int64(62) | (code - np.int64(ADDED)) << np.int64(32) | np.int64(extra)
    low = depth if depth else place & np.int64(0xFFFF)
    return (code & np.int64(0xFFFFFFFF)) << np.int64(16) | low


@device
def note(block, work, source, n, place, extra, score, trace, how):
    """A path arrives at a place: the n-th candidate of its source."""
    i = np.int64(fetch_add(block.ints, CANDIDATES, 1))
    if i < work.keys.shape[1]:
        b = block.number
        work.keys[b, i] = key_of(place, extra)
        work.order[b, i] = source.rank << np.int64(40) | min(np.int64(n), _MOST) << np.int64(20) | i
        work.to_place[b, i], work.to_extra[b, i] = place, extra
        work.to_score[b, i], work.to_trace[b, i], work.to_how[b, i] = score, trace, how


@device
def expand(block, graph, work, batch, step, k, best):
    """The k-th token of the search's order goes on; `best` is the best score so far, the new one returns."""
    # The best token first: it tells soonest what is not worth keeping.
    token = k
    if k == 0:
        token = step.leader
    elif k <= step.leader:
        token = k - 1
    b, side = block.number, step.side
    blank, phone = work.blank[b, side, token], work.phone[b, side, token]
    if max(blank, phone) < step.cut or max(blank, phone) <= GONE:
        return best
    source = _source(block, work, side, token, k, blank, phone)
    n, best = _wait(block, work, batch, step, source, token, phone, best)
    if source.code < 0:
        n, best = _follow_chain(block, graph, work, batch, step, source, n, best)
    elif source.code < ADDED:
        n, best = _follow_arcs(block, graph, work, batch, step, source, n, best)
        if source.depth == 0 and graph.num_groups > 0:
            n, best = _enter_added(block, graph, work, batch, step, source, n, best)
    else:
        n, best = _follow_added(
            block,
            graph,
            work,
            batch,
            step,
            source,
            source.code - ADDED,
            np.float32(0.0),
            source.extra,
            n,
            best,
        )
    return best


@device
def _source(block, work, side, token, k, blank, phone):
    b = block.number
    place = np.int64(work.place[b, side, token])
    blank_trace, phone_trace = work.blank_trace[b, side, token], work.phone_trace[b, side, token]
    total = add(blank, phone, work.add_table)
    if (
        blank_trace != phone_trace
        and min(blank, phone) > GONE
        and fingerprint(block, work, blank_trace) != fingerprint(block, work, phone_trace)
    ):
        total = max(blank, phone)
    return Source(
        np.int64(k), blank, total, blank_trace, blank_trace if blank >= phone else phone_trace,
        place >> np.int64(32), (place >> np.int64(16)) & np.int64(0xFFFF), place & np.int64(0xFFFF),
        work.extra[b, side, token],
    )  # fmt: skip


@device
def _wait(block, work, batch, step, source, token, phone, best):
    """A blank, or the same phone again."""
    b = block.number
    place, phone_trace = np.int64(work.place[b, step.side, token]), work.phone_trace[b, step.side, token]
    bar = np.float32(best - step.beam)
    waits = np.float32(source.total + batch.log_probs[b, step.frame, 0])
    repeats = NEVER
    if phone > GONE and source.last:
        repeats = np.float32(phone + batch.log_probs[b, step.frame, source.last])
    n = np.int64(0)
    if step.noting and waits >= bar:
        # At a root a blank forgets the phone.
        to_place = place if source.depth else place & ~np.int64(0xFFFF)
        note(block, work, source, n, to_place, source.extra, waits, source.trace, BLANK)
        n += 1
    if step.noting and repeats >= bar:
        note(block, work, source, n, place, source.extra, repeats, phone_trace, REPEAT)
        n += 1
    return n, max(best, max(waits, repeats))


@device
def _hear(block, batch, step, source, v):
    """The score of the token when it goes on by phone v, and the record that it comes from: a phone follows
    itself only after a blank."""
    heard = batch.log_probs[block.number, step.frame, v]
    if v == source.last:
        return np.float32(source.blank + heard), source.blank_trace
    return np.float32(source.total + heard), source.trace


@device
def _go(block, work, step, source, code, v, extra, score, trace, n):
    """A path arrives at a place inside a word."""
    if step.noting:
        place = np.int64(code) << np.int64(32) | (source.depth + 1) << np.int64(16) | np.int64(v)
        note(block, work, source, n, place, extra, score, trace, ARC)
    return n + 1


@device
def _end_word(block, graph, work, step, source, trace, score, pronunciation, word, history, v, n, bar):
    """A word ends: its record, and candidates at the roots of its history and those that backoff leads to."""
    if not step.noting:
        return n
    b = block.number
    noted = fetch_add(block.ints, RECORDS, 1)
    if noted >= work.record_before.shape[1]:
        fetch_add(block.ints, OVERFLOW, 1)
        return n
    work.record_before[b, noted], work.record_pronunciation[b, noted] = trace, pronunciation
    work.record_frame[b, noted] = step.frame
    words = fingerprint(block, work, trace) * np.int64(_PRIME) + np.int64(word) + np.int64(_ODD)
    work.record_words[b, noted] = words
    while True:
        place = np.int64(history) << np.int64(32) | np.int64(v)
        note(block, work, source, n, place, 0, score, noted, ARC)
        n += 1
        if history == 0:
            return n
        score = np.float32(score + graph.backoff_score[history])
        history = graph.backoff_to[history]
        if score < bar:
            return n


@device
def _follow_chain(block, graph, work, batch, step, source, n, best):
    """Where a single word is left one phone can follow."""
    chain = ~source.code
    pronunciation = graph.chain_pronunciation[chain]
    start = graph.offsets[pronunciation]
    v = np.int64(graph.tokens[start + source.depth])
    score, trace = _hear(block, batch, step, source, v)
    bar = np.float32(best - step.beam)
    if score < bar:
        return n, best
    if source.depth + 1 < graph.offsets[pronunciation + 1] - start:
        n = _go(block, work, step, source, source.code, v, 0, score, trace, n)
    elif graph.removed[pronunciation]:
        return n, best
    else:
        n = _end_word(
            block, graph, work, step, source, trace, score, pronunciation, graph.word_of[pronunciation],
            graph.chain_history[chain], v, n, bar,
        )  # fmt: skip
    return n, max(best, score)


@device
def _follow_arcs(block, graph, work, batch, step, source, n, best):
    """From a node to its children by the phones that are heard."""
    words = graph.nodes.shape[1] - 1
    arc = graph.nodes[source.code, words] & np.int64(0xFFFFFFFF)
    for w in range(words):
        mask = graph.nodes[source.code, w]
        if mask == 0:
            continue
        for v in range(64 * w, min(64 * w + 64, batch.log_probs.shape[2])):
            if (mask >> np.int64(v - 64 * w)) & np.int64(1) == 0:
                continue
            k = arc
            arc += 1
            score, trace = _hear(block, batch, step, source, v)
            bar = np.float32(best - step.beam)
            # Scores of arcs are never above 0 but at the root.
            if source.depth and score < bar:
                continue
            score = np.float32(score + graph.arc_score[k])
            if score >= bar:
                n, best = _arrive(
                    block, graph, work, step, source, np.int64(graph.arc_to[k]), v, score, trace, n, best, bar
                )
    return n, best


@device
def _arrive(block, graph, work, step, source, to, v, score, trace, n, best, bar):
    """At the end of an arc: words end there, and others go on."""
    if to < 0:
        pronunciation = graph.chain_pronunciation[~to]
        if graph.offsets[pronunciation + 1] - graph.offsets[pronunciation] == source.depth + 1:
            if graph.removed[pronunciation]:
                return n, best
            n = _end_word(
                block, graph, work, step, source, trace, score, pronunciation, graph.word_of[pronunciation],
                graph.chain_history[~to], v, n, bar,
            )  # fmt: skip
            return n, max(best, score)
    else:
        words = graph.nodes.shape[1] - 1
        for e in range(graph.nodes[to, words] >> np.int64(32), graph.nodes[to + 1, words] >> np.int64(32)):
            at_end = np.float32(score + graph.end_score[e])
            pronunciation = graph.end_pronunciation[e]
            if at_end < bar or graph.removed[pronunciation]:
                continue
            best = max(best, at_end)
            n = _end_word(
                block, graph, work, step, source, trace, at_end, pronunciation, graph.word_of[pronunciation],
                graph.end_history[e], v, n, bar,
            )  # fmt: skip
        children = np.int64(0)
        for w in range(words):
            children |= graph.nodes[to, w]
        if children == 0:
            return n, best
    n = _go(block, work, step, source, to, v, 0, score, trace, n)
    return n, max(best, score)


@device
def _enter_added(block, graph, work, batch, step, source, n, best):
    """From a root into the trees of added words that its history names."""
    link = graph.heads[source.code]
    while link >= 0:
        group = graph.link_group[link]
        # A group that was made after this decode began is none yet.
        if group < graph.num_groups:
            entry = np.float32(graph.link_score[link] + graph.group_enter[group])
            n, best = _follow_added(
                block, graph, work, batch, step, source, np.int64(graph.group_root[group]), entry,
                graph.link_to[link], n, best,
            )  # fmt: skip
        link = graph.link_next[link]
    return n, best


@device
def _follow_added(block, graph, work, batch, step, source, node, entry, history, n, best):
    """From a node of added words' tree to its children. `entry`: what entering the tree scores; `history`:
    where those of its words lead that do not know it themselves."""
    child = np.int64(graph.node_child[node])
    while child >= 0:
        here = child
        child = np.int64(graph.node_sibling[here])
        v = np.int64(graph.node_token[here])
        if batch.log_probs[block.number, step.frame, v] < step.keep:
            continue
        score, trace = _hear(block, batch, step, source, v)
        score = np.float32(score + entry)
        bar = np.float32(best - step.beam)
        if score < bar:
            continue
        end = graph.node_end[here]
        while end >= 0:
            if graph.added_since[end] <= graph.version and graph.version < graph.added_until[end]:
                # The group's bonus, taken on entering it, gives way to the word's own score.
                at_end = np.float32(
                    score + graph.added_score[end] - graph.group_bonus[graph.added_group[end]]
                )
                if at_end >= bar:
                    best = max(best, at_end)
                    n = _end_word(
                        block, graph, work, step, source, trace, at_end, graph.added_pronunciation[end],
                        graph.added_word[end], history if graph.added_to[end] < 0 else graph.added_to[end],
                        v, n, bar,
                    )  # fmt: skip
            end = graph.added_next[end]
        if graph.node_child[here] >= 0:
            best = max(best, score)
            n = _go(block, work, step, source, ADDED + here, v, history, score, trace, n)
    return n, best
