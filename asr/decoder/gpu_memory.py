"""The arrays that a search on a GPU reads and writes, and what makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from asr.decoder.compiled import Compiled
from asr.decoder.gpu_block import allocate, upload
from asr.decoder.live import View
from asr.decoder.options import DecoderOptions
from asr.decoder.tokens import ADD_TABLE

_MOST_CANDIDATES = 1 << 20  # their numbers have 20 bits where they are sorted
_CANDIDATE_BYTES, _RECORD_BYTES = 116, 20  # all arrays of Work together, with two tokens for each candidate


class Graph(NamedTuple):
    """Arrays on the device: those of Graph, Vocabulary and AddedView, a column each.

    With Work and Batch they make just less than the 4096 bytes that a kernel's arguments may take.
    """

    nodes: Any
    arc_score: Any
    arc_to: Any
    end_pronunciation: Any
    end_score: Any
    end_history: Any
    chain_pronunciation: Any
    chain_history: Any
    backoff_score: Any
    backoff_to: Any
    end_scores: Any
    tokens: Any
    offsets: Any
    word_of: Any
    removed: Any
    heads: Any
    link_group: Any
    link_score: Any
    link_to: Any
    link_next: Any
    group_root: Any
    group_bonus: Any
    group_enter: Any
    node_token: Any
    node_child: Any
    node_sibling: Any
    node_end: Any
    added_pronunciation: Any
    added_word: Any
    added_score: Any
    added_next: Any
    added_since: Any
    added_until: Any
    added_group: Any
    added_to: Any
    num_groups: int
    version: int
    start: int
    bonus: float


class Work(NamedTuple):
    """What the blocks write; the first index is the block. Tokens have a second one, which of two frames.

    A candidate: its place and destination as in a token, score, record, how it arrives; `keys` and `order`
    are sorted, `first` and `at` are where each place's candidates begin. `tops`: the best score of each
    token's successors.
    """

    place: Any
    extra: Any
    blank: Any
    phone: Any
    blank_trace: Any
    phone_trace: Any
    to_place: Any
    to_extra: Any
    to_score: Any
    to_trace: Any
    to_how: Any
    keys: Any
    order: Any
    first: Any
    at: Any
    tops: Any
    record_before: Any
    record_pronunciation: Any
    record_frame: Any
    record_words: Any
    add_table: Any


class Batch(NamedTuple):
    """What is decoded, and what comes out. `log_probs` (batch, frames, tokens) float32, `lengths` int32.

    Of each utterance: the pronunciations and frames of its words' records int32 (batch, frames), their
    number, the score, and how often memory was full.
    """

    log_probs: Any
    lengths: Any
    pronunciations: Any
    frames: Any
    num_words: Any
    scores: Any
    overflows: Any
    beam_size: int
    beam: float
    blank_skip: float


def capacity_of(options: DecoderOptions) -> int:
    """Candidates that a frame has room for, and so tokens: before pruning it has a few times `beam_size`."""
    wanted = max(4096, 8 * options.beam_size)
    return min(1 << (wanted - 1).bit_length(), _MOST_CANDIDATES)


def records_of(capacity: int, frames: int) -> int:
    """Records that an utterance has room for: several times what wide beams were seen to need."""
    return capacity + 32 * frames


def blocks_within(most_bytes: int, capacity: int, records: int) -> int:
    """How many utterances may be searched at once: one at least."""
    return max(1, most_bytes // (_CANDIDATE_BYTES * capacity + _RECORD_BYTES * records))


def allocate_work(blocks: int, capacity: int, records: int) -> Work:

    def tokens(dtype: Any) -> Any:
        return allocate((blocks, 2, capacity), dtype)

    def candidates(dtype: Any) -> Any:
        return allocate((blocks, capacity), dtype)

    def noted(dtype: Any) -> Any:
        return allocate((blocks, records), dtype)

    return Work(
        place=tokens(np.int64), extra=tokens(np.int32), blank=tokens(np.float32), phone=tokens(np.float32),
        blank_trace=tokens(np.int32), phone_trace=tokens(np.int32),
        to_place=candidates(np.int64), to_extra=candidates(np.int32), to_score=candidates(np.float32),
        to_trace=candidates(np.int32), to_how=candidates(np.int32),
        keys=candidates(np.int64), order=candidates(np.int64), first=candidates(np.int64),
        at=candidates(np.int64), tops=candidates(np.float32),
        record_before=noted(np.int32), record_pronunciation=noted(np.int32), record_frame=noted(np.int32),
        record_words=noted(np.int64), add_table=upload(ADD_TABLE),
    )  # fmt: skip


def upload_compiled(compiled: Compiled) -> dict[str, Any]:
    """What never changes of a Graph on the device."""
    graph, vocabulary = compiled.graph, compiled.vocabulary
    arrays = {
        "nodes": graph.nodes,
        "arc_score": graph.arcs["score"],
        "arc_to": graph.arcs["to"],
        "end_pronunciation": graph.ends["pronunciation"],
        "end_score": graph.ends["score"],
        "end_history": graph.ends["history"],
        "chain_pronunciation": graph.chains["pronunciation"],
        "chain_history": graph.chains["history"],
        "backoff_score": graph.backoffs["score"],
        "backoff_to": graph.backoffs["to"],
        "end_scores": compiled.end_scores,
        "tokens": vocabulary.tokens,
        "offsets": vocabulary.offsets,
        "word_of": vocabulary.word,
    }
    return {name: upload(array) for name, array in arrays.items()}


def upload_view(view: View, compiled: Compiled, fixed: dict[str, Any]) -> Graph:
    """One version of the vocabulary; `fixed` is from upload_compiled."""
    # Words may be added meanwhile: what leads to others, which were written before it, is copied before them.
    heads, nodes = view.added.heads.copy(), view.added.nodes.copy()
    links, ends = view.added.links.copy(), view.added.ends.copy()
    added = replace(view.added, heads=heads, nodes=nodes, links=links, ends=ends)
    columns = {"removed": view.removed, "heads": added.heads}
    columns |= {f"link_{name}": added.links[name] for name in ("group", "score", "to", "next")}
    columns |= {f"group_{name}": added.groups[name] for name in ("root", "bonus", "enter")}
    columns |= {f"node_{name}": added.nodes[name] for name in ("token", "child", "sibling", "end")}
    names = ("pronunciation", "word", "score", "next", "since", "until", "group", "to")
    columns |= {f"added_{name}": added.ends[name] for name in names}
    return Graph(
        **fixed,
        **{name: upload(column) for name, column in columns.items()},
        num_groups=len(added.groups),
        version=added.version,
        start=compiled.graph.start,
        bonus=max(compiled.graph.bonus, added.bonus),
    )
