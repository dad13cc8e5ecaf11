"""The memory of one search: token buffers, hash table, back-pointers. Kept and used again, never cleared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr.decoder.arcs import GraphView, Limits
from asr.decoder.options import DecoderOptions
from asr.decoder.search import advance, begin, finish
from asr.decoder.tokens import (
    ADD_TABLE,
    FIRST_FRAME,
    FRAME,
    MERGE_BYTES,
    MERGES,
    OVERFLOW,
    RECORD_BYTES,
    RECORDS,
    STATE_SIZE,
    TOKEN_BYTES,
    Work,
)

RECORD = np.dtype(
    [
        ("before", np.int32),
        ("pronunciation", np.int32),
        ("frame", np.int32),
        ("_", np.int32),
        ("words", np.int64),
    ]
)
MERGE = np.dtype([("kept", np.int32), ("lost", np.int32), ("cost", np.float32), ("frame", np.int32)])
FINAL = np.dtype([("score", np.float32), ("record", np.int32)])


@dataclass(frozen=True)
class Paths:
    """What a search found: `finals` FINAL, `records` RECORD and `merges` MERGE, and how often memory was
    full."""

    finals: np.ndarray
    records: np.ndarray
    merges: np.ndarray
    overflow: int


class Workspace:
    """A search that can be fed piece by piece; not for two threads at a time."""

    def __init__(self, options: DecoderOptions, keep_merges: bool) -> None:
        """`keep_merges`: what lost to another path is remembered, as more than the best one needs."""
        # Before pruning a frame has a few times as many tokens as after it.
        capacity = max(4096, 6 * options.beam_size)
        self._capacity = capacity
        self._tokens = [np.zeros(capacity * TOKEN_BYTES, np.uint8) for _ in range(2)]
        self._table = np.zeros(1 << (2 * capacity).bit_length(), np.int64)
        self._records = np.zeros(4 * capacity, RECORD)
        self._merges = np.zeros(8 * capacity if keep_merges else 0, MERGE)
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._limits = Limits(
            options.beam_size, float(options.beam_threshold), float(np.log(options.blank_skip_threshold)),
            keep_merges,
        )  # fmt: skip

        self._work = self._addresses()

    def _addresses(self) -> Work:
        a, b = self._tokens
        return Work(
            a.ctypes.data,
            b.ctypes.data,
            self._table.ctypes.data,
            len(self._table) - 1,
            self._records.ctypes.data,
            self._merges.ctypes.data,
            ADD_TABLE.ctypes.data,
            self._state.ctypes.data,
            self._capacity,
            len(self._records),
            len(self._merges),
        )

    def begin(self, graph: GraphView, start: int) -> None:
        begin(graph, self._work, start)

    def advance(self, graph: GraphView, log_probs: np.ndarray) -> None:
        """Search on through (frames, tokens) float32, contiguous."""
        num_frames, num_tokens = log_probs.shape
        self._state[FRAME] = 0
        while True:
            advance(graph, self._work, self._limits, log_probs.ctypes.data, num_frames, num_tokens)
            if self._state[FRAME] == num_frames:
                break
            # It stopped for want of room.
            self._records = np.concatenate([self._records, np.zeros_like(self._records)])
            self._merges = np.concatenate([self._merges, np.zeros_like(self._merges)])
            self._work = self._addresses()
        self._state[FIRST_FRAME] += num_frames

    def finish(self, graph: GraphView, end_scores: np.ndarray) -> Paths:
        """The paths so far; the search can go on afterwards. `end_scores` float32 (histories,)."""
        finals = np.zeros(self._capacity, FINAL)
        merges = int(self._state[MERGES])
        count = finish(
            graph, self._work, self._limits.keep_merges, end_scores.ctypes.data, finals.ctypes.data
        )
        paths = Paths(
            finals[:count], self._records[: self._state[RECORDS]], self._merges[: self._state[MERGES]],
            int(self._state[OVERFLOW]),
        )  # fmt: skip
        self._state[MERGES] = merges
        return paths


assert (RECORD.itemsize, MERGE.itemsize) == (RECORD_BYTES, MERGE_BYTES)
