"""The lexicon as a prefix tree of token ids, in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True, kw_only=True)
class Trie:
    """Node 0 is the root. The children of node n are arcs first_arc[n] to first_arc[n + 1]: `arc_token` and
    `arc_node`, sorted by token. The pronunciations that end in n are `ends[first_end[n] : first_end[n + 1]]`.
    `token` (nodes,) is the token on the way into a node. `ahead` (nodes,) float32 is the best score of a pronunciation at or
    below the node, 0 at the root.
    """

    first_arc: np.ndarray
    arc_token: np.ndarray
    arc_node: np.ndarray
    first_end: np.ndarray
    ends: np.ndarray
    token: np.ndarray
    ahead: np.ndarray


def build_trie(pronunciations: Sequence[Sequence[int]], scores: np.ndarray) -> Trie:
    """Token ids of each pronunciation and the score to look ahead to (pronunciations,) float32 -> the tree."""
    order = sorted(range(len(pronunciations)), key=lambda i: pronunciations[i])
    lengths = np.array([len(pronunciations[i]) for i in order], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.fromiter((t for i in order for t in pronunciations[i]), np.int32, int(offsets[-1]))
    parent, token, end_node = _grow(flat, offsets)
    num_nodes = len(parent)
    by_parent = np.argsort(parent[1:], kind="stable") + 1
    first_arc = np.searchsorted(parent[by_parent], np.arange(num_nodes + 1)).astype(np.int32)
    by_node = np.argsort(end_node, kind="stable")
    first_end = np.searchsorted(end_node[by_node], np.arange(num_nodes + 1)).astype(np.int32)
    ahead = np.full(num_nodes, -np.inf, np.float32)
    np.maximum.at(ahead, end_node, scores[order].astype(np.float32))
    _smear(parent, ahead)
    ahead[0] = 0.0
    return Trie(
        first_arc=first_arc, arc_token=token[by_parent], arc_node=by_parent.astype(np.int32), first_end=first_end,
        ends=np.array(order, np.int32)[by_node], token=token, ahead=ahead,
    )  # fmt: skip


@njit(cache=True)
def _grow(flat, offsets):
    """Nodes of sorted sequences: parent and token of each node, and the node where each sequence ends."""
    total = flat.shape[0] + 1
    parent = np.full(total, -1, np.int32)
    token = np.zeros(total, np.int32)
    end_node = np.zeros(offsets.shape[0] - 1, np.int32)
    path = np.zeros(total + 1, np.int32)
    num_nodes = 1
    for i in range(offsets.shape[0] - 1):
        length = offsets[i + 1] - offsets[i]
        shared = 0
        if i > 0:
            most = min(length, offsets[i] - offsets[i - 1])
            while shared < most and flat[offsets[i] + shared] == flat[offsets[i - 1] + shared]:
                shared += 1
        for k in range(shared, length):
            parent[num_nodes] = path[k]
            token[num_nodes] = flat[offsets[i] + k]
            path[k + 1] = num_nodes
            num_nodes += 1
        end_node[i] = path[length]
    return parent[:num_nodes], token[:num_nodes], end_node


@njit(cache=True)
def _smear(parent, ahead):
    # A node's number is above its parent's: one sweep from the back carries every score to the root.
    for n in range(parent.shape[0] - 1, 0, -1):
        if ahead[n] > ahead[parent[n]]:
            ahead[parent[n]] = ahead[n]
