"""Viterbi alignment of frames to the states of a transcript, over all pronunciations of its words.

A phone has three states, left to right. Between words, and at both ends, silence is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

STATES_PER_PHONE = 3
_NEVER = np.float32(-1e30)


@dataclass(frozen=True, kw_only=True)
class StateGraph:
    """The states of one transcript in topological order.

    `classes` (states,) int32 is the acoustic class of each state: 3 * phone id + 0, 1 or 2, where silence
    takes the place of blank (phone id 0). `predecessors[offsets[s] : offsets[s + 1]]` are the states before s
    (itself is always one too); -1 means that a path may begin in s. `final` marks where a path may end.
    `words` (states,) is the index of the word that a state belongs to, -1 for silence.
    """

    classes: np.ndarray
    predecessors: np.ndarray
    offsets: np.ndarray
    final: np.ndarray
    words: np.ndarray


def build_graph(pronunciations: Sequence[Sequence[Sequence[int]]]) -> StateGraph:
    """For each word its pronunciations, sequences of phone ids (1 and up) -> the graph of all readings."""
    classes: list[int] = []
    words: list[int] = []
    before: list[list[int]] = []

    def chain(phones: Sequence[int], word: int, entry: list[int]) -> int:
        for phone in phones:
            for k in range(STATES_PER_PHONE):
                before.append(entry)
                classes.append(STATES_PER_PHONE * phone + k)
                words.append(word)
                entry = [len(classes) - 1]
        return entry[0]

    ends = [-1]
    for word, variants in enumerate(pronunciations):
        silence = chain([0], -1, ends)
        ends = [chain(phones, word, [*ends, silence]) for phones in variants]
    silence = chain([0], -1, ends)
    final = np.zeros(len(classes), bool)
    final[[*ends, silence] if pronunciations else [silence]] = True
    offsets = np.zeros(len(before) + 1, np.int32)
    np.cumsum([len(b) for b in before], out=offsets[1:])
    return StateGraph(
        classes=np.array(classes, np.int32),
        predecessors=np.array([p for b in before for p in b], np.int32),
        offsets=offsets,
        final=final,
        words=np.array(words, np.int32),
    )


def align(graph: StateGraph, scores: np.ndarray) -> tuple[np.ndarray, float]:
    """The best path: (frames,) int32 state of each frame, and its score.

    `scores`: float32 (frames, classes), log-likelihoods. Raises ValueError when there are too few frames.
    """
    path, score = _viterbi(
        graph.classes,
        graph.predecessors,
        graph.offsets,
        graph.final,
        np.ascontiguousarray(scores, np.float32),
    )
    if score <= _NEVER / 2:
        raise ValueError(f"{len(scores)} frames are too few for {len(graph.classes)} states")
    return path, float(score)


def uniform(graph: StateGraph, num_frames: int) -> np.ndarray:
    """A path through the first pronunciations, equal shares for all states, silence at both ends only."""
    keep = [s for s in range(len(graph.classes)) if graph.words[s] >= 0]
    first: list[int] = []
    for s in keep:
        # The first variant of a word comes first and is contiguous.
        continues = bool(first) and graph.words[first[-1]] == graph.words[s]
        if continues and first[-1] != s - 1:
            continue
        if continues and graph.predecessors[graph.offsets[s]] != s - 1:
            continue
        first.append(s)
    states = np.array([0, 1, 2, *first, *range(len(graph.classes) - 3, len(graph.classes))], np.int32)
    return states[np.arange(num_frames) * len(states) // max(num_frames, 1)]


def phones_of(graph: StateGraph, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The phone ids that a path passes (silence left out), int32, and the word index of each."""
    entered = path[np.flatnonzero(np.diff(path, prepend=-1) != 0)]
    begins = entered[(graph.classes[entered] % STATES_PER_PHONE == 0) & (graph.words[entered] >= 0)]
    return graph.classes[begins] // STATES_PER_PHONE, graph.words[begins]


@njit(cache=True, nogil=True)
def _viterbi(classes, predecessors, offsets, final, scores):
    num_frames, num_states = scores.shape[0], classes.shape[0]
    back = np.zeros((num_frames, num_states), np.int32)
    last = np.full(num_states, _NEVER, np.float32)
    current = np.full(num_states, _NEVER, np.float32)
    for t in range(num_frames):
        for s in range(num_states):
            best = last[s] if t > 0 else _NEVER
            source = s
            for i in range(offsets[s], offsets[s + 1]):
                p = predecessors[i]
                value = _NEVER
                if p < 0 and t == 0:
                    value = np.float32(0.0)
                elif p >= 0 and t > 0:
                    value = last[p]
                if value > best:
                    best = value
                    source = p
            current[s] = best + scores[t, classes[s]] if best > _NEVER else _NEVER
            back[t, s] = source
        last, current = current, last
    path = np.empty(num_frames, np.int32)
    best = _NEVER
    state = np.int32(0)
    for s in range(num_states):
        if final[s] and last[s] > best:
            best = last[s]
            state = np.int32(s)
    for t in range(num_frames - 1, -1, -1):
        path[t] = state
        state = back[t, state]
    return path, best
