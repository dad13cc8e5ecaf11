"""Slow, obviously right language model estimation over dictionaries of word tuples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Ngram = tuple[str, ...]


class ReferenceModel:
    """Interpolated modified Kneser-Ney, straight from the definitions. <unk> is no event and no context."""

    def __init__(self, sentences: Sequence[str], vocabulary: Sequence[str], order: int) -> None:
        self.order = order
        self.events = ["<unk>", "</s>", *vocabulary]
        known = set(vocabulary)
        counts: list[Counter[Ngram]] = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            words = ["<s>", *(w if w in known else "<unk>" for w in sentence.split()), "</s>"]
            for n in range(1, order + 1):
                counts[n].update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        del counts[1][("<s>",)]
        self.raw = [Counter({g: c for g, c in level.items() if "<unk>" not in g}) for level in counts]
        self.adjusted: list[dict[Ngram, int]] = [{} for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in self.raw[n].items():
                if n == order or gram[0] == "<s>":
                    self.adjusted[n][gram] = count
                else:
                    self.adjusted[n][gram] = len(
                        {longer[0] for longer in counts[n + 1] if longer[1:] == gram}
                    )
        self.discount = [self._discounts(level) for level in self.adjusted]

    @staticmethod
    def _discounts(level: dict[Ngram, int]) -> dict[int, float]:
        t = Counter(level.values())
        if not (t[1] and t[2] and t[3]):
            return {1: 0.5, 2: 1.0, 3: 1.5}
        y = t[1] / (t[1] + 2 * t[2])
        found = {k: k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3)}
        return found if all(0 <= found[k] <= k for k in found) else {1: 0.5, 2: 1.0, 3: 1.5}

    def prob(self, word: str, history: Ngram) -> float:
        """P(word | history), of which the last order - 1 words matter."""
        history = history[max(0, len(history) - self.order + 1) :]
        n = len(history) + 1
        followers = {gram[-1]: a for gram, a in self.adjusted[n].items() if gram[:-1] == history}
        shorter = self.prob(word, history[1:]) if history else 1 / len(self.events)
        if not followers:
            return shorter
        total = sum(followers.values())
        freed = sum(self.discount[n][min(a, 3)] for a in followers.values())
        own = followers.get(word, 0)
        return (own - (self.discount[n][min(own, 3)] if own else 0)) / total + freed / total * shorter

    def listed(self, history: Ngram) -> set[str]:
        """The words that an ARPA file lists after `history`."""
        return {g[-1] for g in self.adjusted[len(history) + 1] if g[:-1] == history}


class BackoffModel:
    """An ARPA model as a dictionary n-gram -> probability, its backoffs those that sum to one."""

    def __init__(self, probs: dict[Ngram, float], events: Sequence[str]) -> None:
        self.probs = probs
        self.events = events

    def prob(self, word: str, history: Ngram) -> float:
        if (*history, word) in self.probs or not history:
            return self.probs[(*history, word)]
        return self.backoff(history) * self.prob(word, history[1:])

    def backoff(self, history: Ngram) -> float:
        listed = [w for w in self.events if (*history, w) in self.probs]
        if not listed:
            return 1.0
        left = 1 - sum(self.probs[(*history, w)] for w in listed)
        return left / (1 - sum(self.prob(w, history[1:]) for w in listed))

    def divergence(self, other: BackoffModel, history: Ngram) -> float:
        """The relative entropy in nats between the two models' words after `history`."""
        pairs = [(self.prob(w, history), other.prob(w, history)) for w in self.events]
        return sum(p * math.log(p / q) for p, q in pairs)
