"""Words added while the decoder runs: small trees beside the compiled ones.

Added words that follow the same histories (those of their own place in the language model, or of that of
`like=`) form a group and share a tree, to which these histories are linked. The empty history, to which all
others back off, is linked to few trees: of words that are about as likely there, and of unknown words. So an
added word is found exactly where it would have been found had it been compiled. Links only ever grow, a
branch that loses its last word is cut from a copy of the tree, and a word end knows from which version to
which it is valid: a decode that runs while words come and go keeps to the version that it began with, without
a lock.
"""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from asr.decoder.graph import USE, Graph

NODE = np.dtype([("token", np.int32), ("child", np.int32), ("sibling", np.int32), ("end", np.int32)])
WORD_END = np.dtype(
    [("pronunciation", np.int32), ("word", np.int32), ("score", np.float32), ("next", np.int32),
     ("since", np.int32), ("until", np.int32), ("group", np.int32), ("to", np.int32)]
)  # fmt: skip
LINK = np.dtype([("group", np.int32), ("score", np.float32), ("to", np.int32), ("next", np.int32)])
# `bonus` is the best score of the group's words; entering its tree scores `enter`. A word leads to its `to`,
# or where that is -1 to that of the link by which its tree was entered.
GROUP = np.dtype([("root", np.int32), ("bonus", np.float32), ("enter", np.float32), ("_", np.int32)])
_UNKNOWN = 0  # the group of words that the language model does not know; that of a word has its id
_LEVEL = 2.0  # words whose scores after the empty history are in one such range share a group
_FOREVER = np.iinfo(np.int32).max
# What is written in place; the rest of AddedWords is replaced when it changes. Entries are never changed.
_GROWING = frozenset(
    ("_nodes", "_ends", "_links", "_heads", "_group_of", "_scores", "_by_word", "_full", "_unknown",
     "_floored")
)  # fmt: skip


@dataclass(frozen=True)
class Added:
    """A way to pronounce an added word; `lm_id`, `score` and `unknown` as in Vocabulary. `floor`: what a word
    that the language model knows scores there at least, weighted: it is found among the unknown words too,
    and if it `is_only_there` nowhere else."""

    word: str
    word_id: int
    tokens: np.ndarray
    lm_id: int
    score: float
    unknown: bool
    floor: float = -np.inf
    is_only_there: bool = False


@dataclass(frozen=True)
class AddedView:
    """What a decode needs of a version. `share`: what each unknown word scores beside its own score, and a
    floor beside itself. `floored`: by word, the ends that have its floor in some version."""

    nodes: np.ndarray
    ends: np.ndarray
    links: np.ndarray
    heads: np.ndarray
    groups: np.ndarray
    version: int
    bonus: float
    share: float
    floored: dict[int, list[int]]

    def has_floor(self, word_id: int) -> bool:
        # Later versions may have ends that this one has no room for.
        ends = [self.ends[e] for e in self.floored.get(word_id, ()) if e < len(self.ends)]
        return any(end["since"] <= self.version < end["until"] for end in ends)


class AddedWords:
    """The growing trees. `first_id` is the number of the first added pronunciation.

    Words that the language model does not know stand for all that it does not know: the fewer they are, the
    likelier is each. `share_of` their number is what each scores beside its own score; `compiled` are
    those that were compiled, which are counted too, as are words with a floor.
    """

    def __init__(
        self, graph: Graph, first_id: int, share_of: Callable[[int], float], compiled: frozenset[int]
    ) -> None:
        self.entries: list[Added] = []
        self._graph, self._first_id = graph, first_id
        self._share_of, self._compiled = share_of, compiled
        self._unknown: set[int] = set()  # words beside the compiled ones
        self._share = 0.0
        self._nodes, self._num_nodes = np.full(256, -1, NODE), 0
        self._ends, self._num_ends = np.zeros(256, WORD_END), 0
        self._links, self._num_links = np.zeros(256, LINK), 0
        self._heads = np.zeros(0, np.int32)  # made with the first group
        self._groups = np.zeros(0, GROUP)
        self._best_link = np.zeros(0, np.float32)
        self._group_of: dict[int, int] = {}
        # Per group its live scores, best first; those of removed words go when they come to the top.
        self._scores: list[list[tuple[float, int]]] = []
        self._by_word: dict[int, list[int]] = {}
        self._full: list[int] = []  # the entry of which an entry is a form
        self._floored: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        self._seen = False  # whether somebody may look at the nodes as they are
        self.version = 0

    def view(self) -> AddedView:
        with self._lock:
            self._seen = True
            bonus = float((self._groups["enter"] + self._best_link).max(initial=-np.inf))
            return AddedView(
                self._nodes, self._ends, self._links, self._heads, self._groups, self.version, bonus,
                self._share, self._floored,
            )  # fmt: skip

    def add(self, forms: Sequence[Added]) -> None:
        """A pronunciation and then its other forms; one that is there already gets the new scores."""
        with self._lock:
            version = self.version + 1
            self._end([e for e in self._live(forms[0].word_id) if self._same(e, forms[0].tokens)])
            full, groups = len(self.entries), set[int]()
            for added in forms:
                self.entries.append(added)
                self._full.append(full)
                for group, score, to in self._places(added):
                    self._grow(added, group, score, to, version)
                    groups.add(group)
            self._count(forms[0].word_id, any(a.unknown or a.floor > -np.inf for a in forms))
            for group in groups:
                self._set_bonus(group)
            self.version = version

    def _places(self, added: Added) -> list[tuple[int, float, int]]:
        """The groups that it belongs to, what it scores there beside links, and where it leads (-1: where
        they do)."""
        graph = self._graph
        unigram = graph.unigrams[added.lm_id]
        to, expected = int(unigram["to"]), float(unigram["score"])
        if added.unknown:
            # What stands for the unknown word's score is in its own.
            return [(self._group(_UNKNOWN), added.score, to)]
        places = []
        if added.floor > -np.inf:
            places.append((self._group(_UNKNOWN), added.score + added.floor, to))
        if added.is_only_there:
            return places
        places.append((self._group(-1 - max(0, int(-expected / _LEVEL))), added.score + expected, to))
        if graph.first_use[added.lm_id] < graph.first_use[added.lm_id + 1]:
            places.append((self._group(added.lm_id), added.score, -1))
        return places

    def _grow(self, added: Added, group: int, score: float, to: int, version: int) -> None:
        """A word end of the last entry, valid from `version` on."""
        root = int(self._groups["root"][group])
        self._nodes = _room(self._nodes, self._num_nodes + len(added.tokens), -1)
        node, self._num_nodes = _insert(self._nodes, self._num_nodes, root, added.tokens)
        if self._num_ends == len(self._ends):
            # A view of an earlier version must not meet ends beyond its own array.
            self._nodes = self._nodes.copy()
            self._ends = _room(self._ends, self._num_ends + 1, 0)
        self._ends[self._num_ends] = (
            self._first_id + len(self.entries) - 1, added.word_id, score, self._nodes["end"][node], version,
            _FOREVER, group, to,
        )  # fmt: skip
        self._nodes["end"][node] = self._num_ends
        self._by_word[added.word_id].append(self._num_ends)
        if group == self._group_of.get(_UNKNOWN) and not added.unknown:
            self._floored.setdefault(added.word_id, []).append(self._num_ends)
        self._num_ends += 1
        heapq.heappush(self._scores[group], (-score, self._num_ends - 1))

    def remove(self, word_id: int, tokens: np.ndarray | None = None) -> bool:
        """A word, or its pronunciation `tokens` alone; False where there was none."""
        with self._lock:
            live = [e for e in self._live(word_id) if tokens is None or self._same(e, tokens)]
            self._end(live)
            self._count(word_id)
            self.version += 1
            return bool(live)

    def copy(self) -> AddedWords:
        """The same words, to which others can be added without anybody else's seeing it."""
        with self._lock:
            copied = AddedWords(self._graph, self._first_id, self._share_of, self._compiled)
            for name, value in self.__dict__.items():
                if name != "_lock":
                    setattr(copied, name, copy.deepcopy(value) if name in _GROWING else value)
            copied.entries = list(self.entries)
            return copied

    def _live(self, word_id: int) -> list[int]:
        """The ends of a word that are valid now."""
        live = [e for e in self._by_word.get(word_id, []) if self._ends["until"][e] == _FOREVER]
        self._by_word[word_id] = live
        return live

    def _end(self, ends: list[int]) -> None:
        """These are not valid from the next version on."""
        for end in ends:
            self._ends["until"][end] = self.version + 1
        if ends and self._seen:
            self._nodes, self._seen = self._nodes.copy(), False
        for end in ends:
            root = self._groups["root"][self._ends["group"][end]]
            _cut(self._nodes, self._ends, root, self.entries[self._entry(end)].tokens)
        for group in {int(self._ends["group"][end]) for end in ends}:
            self._set_bonus(group)

    def _set_bonus(self, group: int) -> None:
        """The group's best score among words that are there: look-ahead for all of its tree."""
        scores = self._scores[group]
        while scores and self._ends["until"][scores[0][1]] != _FOREVER:
            heapq.heappop(scores)
        bonus = np.float32(-scores[0][0] if scores else -np.inf)
        enter = np.float32(bonus + (self._share if group == self._group_of.get(_UNKNOWN) else 0.0))
        if bonus != self._groups["bonus"][group] or enter != self._groups["enter"][group]:
            self._groups = self._groups.copy()
            self._groups["bonus"][group], self._groups["enter"][group] = bonus, enter

    def _count(self, word_id: int, unknown: bool = False) -> None:
        """Of unknown words, after one was added or removed: what is the share of each."""
        if unknown and word_id not in self._compiled:
            self._unknown.add(word_id)
        elif not self._live(word_id):
            self._unknown.discard(word_id)
        share = self._share_of(len(self._compiled) + len(self._unknown))
        if share != self._share:
            self._share = share
            if _UNKNOWN in self._group_of:
                self._set_bonus(self._group_of[_UNKNOWN])

    def _same(self, end: int, tokens: np.ndarray) -> bool:
        there = self.entries[self._full[self._entry(end)]]
        return np.array_equal(there.tokens, tokens)

    def _entry(self, end: int) -> int:
        return int(self._ends["pronunciation"][end]) - self._first_id

    def _group(self, key: int) -> int:
        """Made with the first word of its kind."""
        if key in self._group_of:
            return self._group_of[key]
        graph = self._graph
        uses = np.zeros(1, USE)  # the empty history, at no cost: the scores of words are in their own
        if key > 0:
            uses = graph.uses[graph.first_use[key] : graph.first_use[key + 1]]
        group = len(self._groups)
        self._nodes = _room(self._nodes, self._num_nodes + 1, -1)
        groups = np.zeros(group + 1, GROUP)
        groups[:group] = self._groups
        groups[group] = (self._num_nodes, -np.inf, -np.inf, 0)
        self._num_nodes += 1
        self._groups = groups
        if len(self._heads) < len(graph.backoffs):
            self._heads = np.full(len(graph.backoffs), -1, np.int32)
        if self._num_links + len(uses) > len(self._links):
            # A view of an earlier version must not meet links beyond its own array.
            self._heads = self._heads.copy()
            self._links = _room(self._links, self._num_links + len(uses), 0)
        _connect(self._heads, self._links, self._num_links, group, uses)
        self._num_links += len(uses)
        self._group_of[key] = group
        self._scores.append([])
        self._best_link = np.append(self._best_link, np.float32(uses["score"].max()))
        return group


def _room(array: np.ndarray, size: int, fill: int) -> np.ndarray:
    """The array, or a copy of twice the length where it is too short."""
    if size <= len(array):
        return array
    grown = np.full(max(size, 2 * len(array)), fill, array.dtype)
    grown[: len(array)] = array
    return grown


@njit(cache=True)
def _insert(nodes, count, root, tokens):
    """The node of `tokens` below `root`, made where it is missing, and how many nodes there are now."""
    node = root
    for token in tokens:
        child = nodes[node].child
        while child >= 0 and nodes[child].token != token:
            child = nodes[child].sibling
        if child < 0:
            child = count
            nodes[child].token = token
            nodes[child].sibling = nodes[node].child
            nodes[node].child = child
            count += 1
        node = child
    return node, count


@njit(cache=True)
def _cut(nodes, ends, root, tokens):
    """Take out the branch of `tokens` as far as no word is left on it: a search that follows sounds which end
    nowhere takes its score for a reason to drop others."""
    path = np.empty(len(tokens) + 1, np.int64)
    path[0] = root
    for i, token in enumerate(tokens):
        child = nodes[path[i]].child
        while child >= 0 and nodes[child].token != token:
            child = nodes[child].sibling
        if child < 0:
            return
        path[i + 1] = child
    for i in range(len(tokens), 0, -1):
        node, above = path[i], path[i - 1]
        if nodes[node].child >= 0:
            return
        end = nodes[node].end
        while end >= 0:
            if ends[end].until == _FOREVER:
                return
            end = ends[end].next
        if nodes[above].child == node:
            nodes[above].child = nodes[node].sibling
        else:
            before = nodes[above].child
            while nodes[before].sibling != node:
                before = nodes[before].sibling
            nodes[before].sibling = nodes[node].sibling


@njit(cache=True)
def _connect(heads, links, count, group, uses):
    for i in range(uses.shape[0]):
        link, history = count + i, uses[i].history
        links[link].group, links[link].score = group, uses[i].score
        links[link].to, links[link].next = uses[i].to, heads[history]
        heads[history] = link
