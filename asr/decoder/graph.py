"""The search space: for every history of the language model a tree of the words that it names, joined by
backoff.

A history with explicit successors owns a tree of just those words' pronunciations; from its root one step of
backoff leads to the root of the next shorter history, and the empty history owns the whole lexicon.
Language-model scores stand as far to the front as the tree allows: an arc carries by how much the best score
below it falls. Where a single word is left, the rest of its pronunciation is a chain, shared by all histories
from which the word leads to the same one. This is what composing and determinising lexicon and language model
would give, without doing either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from asr.decoder.ngram import NgramModel
from asr.decoder.vocabulary import Vocabulary

ARC = np.dtype([("score", np.float32), ("to", np.int32)])
END = np.dtype([("pronunciation", np.int32), ("score", np.float32), ("history", np.int32)])
CHAIN = np.dtype([("pronunciation", np.int32), ("history", np.int32)])
BACKOFF = np.dtype([("score", np.float32), ("to", np.int32)])
USE = np.dtype([("history", np.int32), ("score", np.float32), ("to", np.int32)])


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in breadth-first order: node h is the root of history h, history 0 is the empty one.

    `nodes` int64 (nodes + 1, words of 64 tokens + 1): which tokens have a child, then the first arc and, 32
    bits higher, the first word end of the node. The arc of a token is the first one plus the number of bits
    below the token's. An arc leads to node `to`, or, where that is negative, into chain ~to. `states` int32:
    for each history the language model's state. `uses[first_use[w] : first_use[w + 1]]`: the histories that
    name word w of the language model, `unigrams[w]` what it scores after the empty one. `start`: the history
    of a sentence's begin. `bonus`: the most that an arc from a root scores,
    `root_best` float32 (histories,) the most of each.
    """

    nodes: np.ndarray
    arcs: np.ndarray
    ends: np.ndarray
    chains: np.ndarray
    backoffs: np.ndarray
    states: np.ndarray
    first_use: np.ndarray
    uses: np.ndarray
    unigrams: np.ndarray
    root_best: np.ndarray
    start: int
    bonus: float


def build_graph(vocabulary: Vocabulary, lm: NgramModel, num_tokens: int, lm_weight: float) -> Graph:
    """`num_tokens`: of the emissions, with blank. All scores are weighted here, once."""
    is_history = np.zeros(len(lm.log_prob), np.bool_)
    # Every n-gram above order 1: what it goes on from, its last word, its number.
    contexts = np.repeat(np.arange(len(lm.log_prob), dtype=np.int32), np.diff(lm.first))
    grams = np.arange(len(lm.words), len(lm.log_prob), dtype=np.int32)
    words = np.asarray(lm.word[len(lm.words) :])
    is_history[contexts] = True
    states = np.flatnonzero(is_history).astype(np.int32)
    history = np.zeros(len(lm.log_prob), np.int32)
    history[states] = np.arange(1, len(states) + 1, dtype=np.int32)
    history, skipped = _resolve(history, is_history, lm.suffix, lm.backoff)
    backoffs = np.zeros(len(states) + 1, BACKOFF)
    shorter = lm.suffix[states]
    backoffs["to"][1:] = np.where(shorter >= 0, history[shorter], 0)
    backoffs["score"][1:] = lm_weight * (lm.backoff[states] + np.where(shorter >= 0, skipped[shorter], 0))
    weight = np.float32(lm_weight)
    first, uses = _by_word(contexts, words, grams, len(lm.words), history, skipped, lm.log_prob, weight)
    unigrams = np.zeros(len(lm.words), USE)
    unigrams["score"] = weight * (lm.log_prob[: len(lm.words)] + skipped[: len(lm.words)])
    unigrams["to"] = history[: len(lm.words)]
    entries = _entries(
        first, uses, unigrams, weight * skipped[0], len(states) + 1, vocabulary.lm_id, vocabulary.unknown,
        vocabulary.score,
    )  # fmt: skip
    num_masks = -(-num_tokens // 64)
    masks, firsts, arc_score, arc_to, end_arrays, chain_arrays, bonus = _grow(
        *entries, vocabulary.tokens, vocabulary.offsets, num_masks
    )
    nodes = np.zeros((len(firsts) // 2, num_masks + 1), np.int64)
    nodes[:-1, :num_masks] = masks.reshape(-1, num_masks)
    nodes[:, num_masks] = firsts[::2].astype(np.int64) | firsts[1::2].astype(np.int64) << 32
    num_roots = len(states) + 1
    root_best = np.full(num_roots, -np.inf, np.float32)
    root_firsts = firsts[: 2 * num_roots + 2 : 2].astype(np.int64)
    has_arcs = root_firsts[1:] > root_firsts[:-1]
    root_best[has_arcs] = np.maximum.reduceat(arc_score[: root_firsts[-1]], root_firsts[:-1][has_arcs])
    begin = lm.start()
    return Graph(
        nodes=nodes,
        arcs=_records(ARC, arc_score, arc_to),
        ends=_records(END, *end_arrays),
        chains=_records(CHAIN, *chain_arrays),
        backoffs=backoffs,
        states=np.concatenate([np.array([-1], np.int32), states]),
        first_use=first,
        uses=uses,
        unigrams=unigrams,
        start=int(history[begin]) if begin >= 0 else 0,
        bonus=float(bonus),
        root_best=root_best,
    )


def _records(kind: np.dtype, *columns: np.ndarray) -> np.ndarray:
    records = np.empty(len(columns[0]), kind)
    for name, column in zip(kind.names or (), columns, strict=True):
        records[name] = column
    return records


@njit(cache=True)
def _resolve(history, is_history, suffix, backoff):
    """For each n-gram the history that it leads to, and the backoff of those skipped on the way."""
    skipped = np.zeros(history.shape[0], np.float32)
    # A suffix is of lower order and so of a lower number: it is resolved already.
    for gram in range(history.shape[0]):
        if is_history[gram]:
            continue
        shorter = suffix[gram]
        skipped[gram] = backoff[gram]
        if shorter >= 0:
            history[gram] = history[shorter]
            skipped[gram] += skipped[shorter]
    return history, skipped


@njit(cache=True)
def _by_word(contexts, words, grams, num_words, history, skipped, log_prob, weight):
    """Where each word is explicit: offsets by word, and (history, score, destination) of each place."""
    first = np.zeros(num_words + 1, np.int32)
    for word in words:
        first[word + 1] += 1
    for word in range(num_words):
        first[word + 1] += first[word]
    place = first[:-1].copy()
    uses = np.empty(grams.shape[0], USE)
    for i in range(grams.shape[0]):
        at, gram = place[words[i]], grams[i]
        place[words[i]] += 1
        uses[at].history = history[contexts[i]]
        uses[at].score = weight * (log_prob[gram] + skipped[gram])
        uses[at].to = history[gram]
    return first, uses


@njit(cache=True)
def _entries(first, uses, unigrams, unknown_score, num_histories, lm_id, unknown, bonus):
    """Per history its pronunciations in their order: offsets, pronunciation, score, destination."""
    # Pronunciation by pronunciation into the histories that name the word: all end up in order without
    # sorting.
    offsets = np.zeros(num_histories + 1, np.int64)
    offsets[1] = lm_id.shape[0]
    for p in range(lm_id.shape[0]):
        if not unknown[p]:
            for k in range(first[lm_id[p]], first[lm_id[p] + 1]):
                offsets[uses[k].history + 1] += 1
    for h in range(num_histories):
        offsets[h + 1] += offsets[h]
    place = offsets[:-1].copy()
    total = offsets[num_histories]
    pronunciation, score = np.empty(total, np.int32), np.empty(total, np.float32)
    destination = np.empty(total, np.int32)
    for p in range(lm_id.shape[0]):
        pronunciation[p], destination[p] = p, unigrams[lm_id[p]].to
        if unknown[p]:
            score[p] = bonus[p] + unknown_score
            continue
        score[p] = bonus[p] + unigrams[lm_id[p]].score
        for k in range(first[lm_id[p]], first[lm_id[p] + 1]):
            at = place[uses[k].history]
            place[uses[k].history] += 1
            pronunciation[at], destination[at] = p, uses[k].to
            score[at] = bonus[p] + uses[k].score
    return offsets, pronunciation, score, destination


@njit(cache=True)
def _larger(array, size):
    if array.shape[0] >= size:
        return array
    grown = np.empty(max(size, array.shape[0] + array.shape[0] // 2), array.dtype)
    grown[: array.shape[0]] = array
    return grown


@njit(cache=True)
def _grow(offsets, pronunciation, score, destination, tokens, starts, words):
    """All trees at once, level by level: a node is a run of entries with their first tokens in common."""
    num_nodes = offsets.shape[0] - 1
    low, high, value = offsets[:-1].copy(), offsets[1:].copy(), np.zeros(num_nodes, np.float32)
    depth = np.zeros(num_nodes, np.int32)
    masks = np.zeros(num_nodes * words, np.int64)
    first = np.zeros(2 * num_nodes + 2, np.int32)
    arc_score, arc_to = np.empty(1024, np.float32), np.empty(1024, np.int32)
    end_p, end_score, end_to = np.empty(1024, np.int32), np.empty(1024, np.float32), np.empty(1024, np.int32)
    num_slots = 1024
    while num_slots < pronunciation.shape[0] + pronunciation.shape[0] // 2:
        num_slots *= 2
    slots = np.full(num_slots, -1, np.int32)
    chain_p, chain_to = np.empty(1024, np.int32), np.empty(1024, np.int32)
    num_arcs = num_ends = num_chains = 0
    bonus = np.float32(0.0)
    node = 0
    while node < num_nodes:
        i, end, d = low[node], high[node], depth[node]
        arc_score, arc_to = _larger(arc_score, num_arcs + 64 * words), _larger(arc_to, num_arcs + 64 * words)
        masks, first = _larger(masks, (node + 1) * words), _larger(first, 2 * node + 4)
        masks[node * words : (node + 1) * words] = 0
        first[2 * node], first[2 * node + 1] = num_arcs, num_ends
        while i < end and starts[pronunciation[i] + 1] - starts[pronunciation[i]] == d:
            end_p, end_score = _larger(end_p, num_ends + 1), _larger(end_score, num_ends + 1)
            end_to = _larger(end_to, num_ends + 1)
            end_p[num_ends], end_to[num_ends] = pronunciation[i], destination[i]
            end_score[num_ends] = score[i] - value[node]
            num_ends += 1
            i += 1
        while i < end:
            token = tokens[starts[pronunciation[i]] + d]
            best, k = score[i], i + 1
            while k < end and tokens[starts[pronunciation[k]] + d] == token:
                best = max(best, score[k])
                k += 1
            masks[node * words + token // 64] |= np.int64(1) << np.int64(token % 64)
            arc_score[num_arcs] = best - value[node]
            if d == 0:
                bonus = max(bonus, best)
            if k == i + 1:
                # A single word: its chain, which another history may have made already.
                key = np.uint64(pronunciation[i]) * np.uint64(0x9E3779B97F4A7C15)
                key ^= np.uint64(destination[i]) * np.uint64(0xC2B2AE3D27D4EB4F)
                slot = np.int64((key ^ (key >> np.uint64(31))) & np.uint64(num_slots - 1))
                while slots[slot] >= 0 and (
                    chain_p[slots[slot]] != pronunciation[i] or chain_to[slots[slot]] != destination[i]
                ):
                    slot = (slot + 1) & (num_slots - 1)
                if slots[slot] < 0:
                    slots[slot] = num_chains
                    chain_p, chain_to = _larger(chain_p, num_chains + 1), _larger(chain_to, num_chains + 1)
                    chain_p[num_chains], chain_to[num_chains] = pronunciation[i], destination[i]
                    num_chains += 1
                arc_to[num_arcs] = ~slots[slot]
            else:
                low, high = _larger(low, num_nodes + 1), _larger(high, num_nodes + 1)
                depth, value = _larger(depth, num_nodes + 1), _larger(value, num_nodes + 1)
                low[num_nodes], high[num_nodes], depth[num_nodes] = i, k, d + 1
                value[num_nodes] = best
                arc_to[num_arcs] = num_nodes
                num_nodes += 1
            num_arcs += 1
            i = k
        node += 1
    first[2 * num_nodes], first[2 * num_nodes + 1] = num_arcs, num_ends
    return (
        masks[: num_nodes * words],
        first[: 2 * num_nodes + 2],
        arc_score[:num_arcs],
        arc_to[:num_arcs],
        (end_p[:num_ends], end_score[:num_ends], end_to[:num_ends]),
        (chain_p[:num_chains], chain_to[:num_chains]),
        bonus,
    )
