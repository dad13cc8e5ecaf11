"""The best paths of a search with different words, from its records and from what was merged away."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from asr.decoder.workspace import Paths


def best_paths(
    paths: Paths, nbest: int, words_of: Callable[[Sequence[int]], tuple[str, ...]]
) -> list[tuple[list[int], float]]:
    """The `nbest` best (records, score) with different words: the final records, and what was merged into
    them."""
    finals, records = paths.finals, paths.records
    if nbest == 1:
        if not len(finals):
            return []
        best = finals[finals["score"].argmax()]
        return [(_path(records, int(best["record"])).tolist(), float(best["score"]))]
    merged: dict[int, list[tuple[int, float, int]]] = {}
    for kept, lost, cost, frame in paths.merges.tolist():
        merged.setdefault(kept, []).append((lost, cost, frame))
    # A partial path: how far its score is below, a number for ties, the record to go back from, and what
    # follows it.
    heap: list[tuple[float, int, int, tuple[int, ...]]] = [
        (-score, k, record, ()) for k, (score, record) in enumerate(finals.tolist())
    ]
    heapq.heapify(heap)
    found: dict[tuple[str, ...], tuple[list[int], float]] = {}
    pushed = len(heap)
    while heap and len(found) < nbest and pushed < 500 * nbest + len(finals):
        negative, _, record, after = heapq.heappop(heap)
        path, at = list(after), record
        while True:
            # What met this path before its next word ended could have led there as well.
            until = records["frame"][path[0]] if path else np.iinfo(np.int32).max
            for lost, cost, frame in merged.get(at, ()):
                if frame < until:
                    heapq.heappush(heap, (negative + cost, pushed, lost, tuple(path)))
                    pushed += 1
            if at < 0:
                break
            path.insert(0, at)
            at = int(records["before"][at])
        words = words_of(records["pronunciation"][path].tolist())
        if words not in found:
            found[words] = (path, -negative)
    return list(found.values())


@njit(cache=True)
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
