"""Sounds to a spelling: a joint-sequence model of letters and phones (Bisani & Ney 2008), made of a lexicon.

A word is a string of pairs of phones and letters (asr.pairs). An n-gram model over pairs says how likely a
string is; a beam finds the likeliest for the phones of a word.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numba import njit

from asr import paths
from asr.lexicon import read_entries
from asr.pairs import ALPHABET, MOST_TOKENS, cut_words, learn_pairs, letters_of, phones_of
from asr.phones import PhoneSet

ORDER = 5  # pairs that an n-gram spans
_BEAM = 32
_BEGIN, _END, _FIRST_PAIR = 0, 1, 2
_VERSION = "1"  # of the cached file


@dataclass(frozen=True)
class Spelling:
    """`pairs` int64; the rest is the n-gram model over them, a node for each n-gram, 0 for none.

    Nodes first[node] to first[node + 1] are the n-grams that are one `item` longer, in the order of these;
    `shorter` is the node without the first item. `log_prob` is that of the last item after the others,
    `backoff` what is left for items that follow in none of them; natural logs.
    """

    pairs: np.ndarray
    item: np.ndarray
    first: np.ndarray
    shorter: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray

    @classmethod
    def train(cls, words: Sequence[tuple[str, Sequence[int]]], order: int = ORDER) -> Spelling:
        """Of (spelling, tokens). Raises ValueError where no word is made of the letters a to z."""
        usable = [(word, tokens) for word, tokens in words if tokens and word and set(word) <= set(ALPHABET)]
        if not usable:
            raise ValueError("no word of the letters a to z to learn spelling from")
        pairs, probability = learn_pairs(usable)
        strings = [cut + _FIRST_PAIR for cut in cut_words(usable, pairs, probability) if len(cut)]
        return cls(pairs, *_ngrams(strings, len(pairs) + _FIRST_PAIR, order))

    @classmethod
    def load(cls, phones: PhoneSet, lexicon: str | Path | None = None) -> Spelling:
        """Made of a lexicon file, the base lexicon by default; the second time it comes from a cache."""
        path = Path(lexicon or paths.base_lexicon())
        key = hashlib.sha256(
            path.read_bytes() + "\n".join((_VERSION, str(ORDER), *phones.symbols)).encode()
        ).hexdigest()
        cached = paths.cache_folder() / f"spelling-{key[:16]}.npz"
        try:
            with np.load(cached) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError):
            pass
        entries, _ = read_entries(path, phones)
        made = cls.train([(entry.word, phones.encode(entry.phones)) for entry in entries])
        _save(cached, {field.name: getattr(made, field.name) for field in fields(cls)})
        return made

    @cached_property
    def _by_phones(self) -> dict[int, np.ndarray]:
        """Phones of a pair, as a number -> its items in the n-gram model."""
        found: dict[int, list[int]] = defaultdict(list)
        for place, said in enumerate(phones_of(self.pairs).tolist()):
            found[said].append(place + _FIRST_PAIR)
        return {said: np.array(items) for said, items in found.items()}

    @cached_property
    def _letters(self) -> list[str]:
        return ["", "", *map(letters_of, self.pairs.tolist())]

    def spell(self, tokens: Sequence[int], count: int = 1) -> list[str]:
        """The likeliest spellings of a pronunciation, best first; none where it holds a phone that
        no word has."""
        # For each number of phones: (letters, node) -> score.
        beams: list[dict[tuple[str, int], float]] = [{} for _ in range(len(tokens) + 1)]
        beams[0]["", 1 + _BEGIN] = 0.0
        for i, token in enumerate(tokens):
            best = sorted(beams[i].items(), key=lambda item: -item[1])[:_BEAM]
            nodes = np.array([node for (_, node), _ in best])
            following = [(token, 1)]
            following += [(token + MOST_TOKENS * tokens[i + 1], 2)] if i + 1 < len(tokens) else []
            for said, length in following:
                if not best or said not in self._by_phones:
                    continue
                items = self._by_phones[said]
                scores, to = self._step(nodes, items)
                grown = beams[i + length]
                for row, ((letters, _), score) in enumerate(best):
                    for column in np.argsort(-scores[row])[:_BEAM].tolist():
                        key = letters + self._letters[items[column]], int(to[row, column])
                        total = score + float(scores[row, column])
                        grown[key] = max(total, grown.get(key, -np.inf))
        ended: dict[str, float] = {}
        for (letters, node), score in beams[-1].items():
            if letters:
                total = score + float(self._step(np.array([node]), np.array([_END]))[0][0, 0])
                ended[letters] = max(total, ended.get(letters, -np.inf))
        return sorted(ended, key=lambda letters: -ended[letters])[:count]

    def _step(self, nodes: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each item after each node, and the node where it leads."""
        scores, to = np.empty((len(nodes), len(items))), np.empty((len(nodes), len(items)), np.int64)
        _follow(self.item, self.first, self.shorter, self.log_prob, self.backoff, nodes, items, scores, to)
        return scores, to


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """At once or not at all; a cache that cannot be written is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    except OSError:
        pass


@dataclass(frozen=True, kw_only=True)
class _Level:
    """All n-grams of a length in order of `parent`, the place of that without its last item among those one
    shorter, and `item`, the last one. `shorter`: the place there of that without its first item."""

    parent: np.ndarray
    item: np.ndarray
    shorter: np.ndarray
    count: np.ndarray


def _ngrams(strings: Sequence[np.ndarray], size: int, order: int) -> tuple[np.ndarray, ...]:
    """item, first, shorter, log_prob and backoff of Spelling, for strings of items below `size`."""
    stream = np.concatenate([np.concatenate([[_BEGIN], string, [_END]]) for string in strings])
    begins = np.flatnonzero(stream == _BEGIN)
    depth = np.arange(len(stream)) - np.repeat(begins, np.diff(np.append(begins, len(stream))))
    none, counts = np.zeros(size, np.int64), np.bincount(stream, minlength=size)
    levels = [_Level(parent=none, item=np.arange(size), shorter=none, count=counts)]
    at = stream  # the n-gram of the level that ends at each place of the stream
    for n in range(2, order + 1):
        here = np.flatnonzero(depth >= n - 1)
        keys, place = np.unique(at[here - 1] * size + stream[here], return_inverse=True)
        shorter = np.zeros(len(keys), np.int64)
        shorter[place] = at[here]
        levels.append(
            _Level(parent=keys // size, item=keys % size, shorter=shorter, count=np.bincount(place))
        )
        at = np.full(len(stream), -1)
        at[here] = place
    return _estimated(levels)


def _estimated(levels: Sequence[_Level]) -> tuple[np.ndarray, ...]:
    """Interpolated Kneser-Ney (Kneser & Ney 1995) with a discount for each length."""
    sizes = [1, *(len(level.item) for level in levels)]
    offsets = np.cumsum([0, *sizes])
    item, shorter = np.zeros(offsets[-1], np.int32), np.zeros(offsets[-1], np.int32)
    log_prob, backoff = np.zeros(offsets[-1], np.float32), np.zeros(offsets[-1], np.float32)
    first = np.full(offsets[-1] + 1, offsets[-1], np.int32)
    before = np.full(1, 1.0 / (sizes[1] - 1))
    for n, level in enumerate(levels):
        here, above = slice(offsets[n + 1], offsets[n + 2]), slice(offsets[n], offsets[n + 1])
        count = level.count.astype(np.float64)
        if n + 1 < len(levels):
            # Below the longest an n-gram counts once for each item before it; at the begin there are none.
            different = np.bincount(levels[n + 1].shorter, minlength=len(count))
            count = np.where(different > 0, different, count)
        if n == 0:
            count[_BEGIN] = 0.0  # nobody waits for it
        once, twice = (count == 1).sum(), (count == 2).sum()
        discount = once / (once + 2 * twice) if once else 0.5
        total = np.bincount(level.parent, count, sizes[n])
        left = discount * np.bincount(level.parent, count > 0, sizes[n]) / np.maximum(total, 1e-9)
        probability = np.maximum(count - discount, 0) / np.maximum(total, 1e-9)[level.parent]
        before = probability + left[level.parent] * before[level.shorter]
        if n == 0:
            before[_BEGIN] = 0.0
        log_prob[here] = np.log(np.maximum(before, 1e-30))
        backoff[above] = np.where(total > 0, np.log(np.maximum(left, 1e-30)), 0.0)
        item[here] = level.item
        shorter[here] = (0 if n == 0 else offsets[n]) + level.shorter
        first[above] = offsets[n + 1] + np.searchsorted(level.parent, np.arange(sizes[n]))
    return item, first, shorter, log_prob, backoff


@njit(cache=True)
def _follow(item, first, shorter, log_prob, backoff, nodes, items, scores, to):
    """Of each item after each node: log-probability, and the node of the longest n-gram that ends with it."""
    for i in range(nodes.shape[0]):
        for j in range(items.shape[0]):
            node, score = nodes[i], 0.0
            while True:
                place = first[node] + np.searchsorted(item[first[node] : first[node + 1]], items[j])
                if place < first[node + 1] and item[place] == items[j]:
                    scores[i, j], to[i, j] = score + log_prob[place], place
                    break
                if node == 0:
                    scores[i, j], to[i, j] = -np.inf, 0
                    break
                score += backoff[node]
                node = shorter[node]
