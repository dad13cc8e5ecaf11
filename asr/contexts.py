"""In which contexts one word would be written for another that sounds like it, by the model's bigrams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr.decoder.ngram import NgramModel, find


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A word as the decoder scores it: `lm_id` in the language model, 0 where that does not know it; `score`
    is all else (weight, boost, word score, and for an unknown word its place in the model), natural log."""

    lm_id: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Loss:
    """`share` (0 to 1) of a word's uses that another is written in; `safe`: words after which it stays, the
    most frequent contexts first."""

    share: float
    safe: tuple[str, ...]


class Contexts:
    """Bigrams of a language model by their second word."""

    def __init__(self, lm: NgramModel, lm_weight: float) -> None:
        self._lm, self._weight = lm, lm_weight
        size = len(lm.words)
        self._unigram, self._backoff = np.array(lm.log_prob[:size]), np.array(lm.backoff[:size])
        if lm.begin >= 0:
            # Its own score is no probability: sentences begin as often as they end.
            self._unigram[lm.begin] = self._unigram[lm.end]

    @cached_property
    def _bigrams(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First words and n-grams, both in the order of second words, and where each second word begins."""
        size = len(self._lm.words)
        first = np.repeat(np.arange(size), np.diff(self._lm.first[: size + 1]))
        grams = size + np.arange(len(first))
        second = self._lm.word[grams]
        order = np.argsort(second, kind="stable")
        return first[order], grams[order], np.searchsorted(second[order], np.arange(size + 1))

    @cached_property
    def _backoffs(self) -> float:
        """What all words together leave to the unigrams that follow them."""
        return float(np.exp(self._unigram + self._backoff).sum())

    def loss(self, word: Rival, other: Rival, distance: float, drop: float = 0.0) -> Loss:
        """How often `other` is written where `word` is said and their sounds are `distance` apart, if other
        scored `drop` less.

        Where the other leads by d it is written in exp(d - distance) of the cases, at most all; of words that
        sound the same the leading one is written always.
        """
        first, grams, begins = self._bigrams
        here = slice(begins[word.lm_id], begins[word.lm_id + 1])
        first, grams = first[here], grams[here]
        frequency = np.exp(self._unigram[first])
        uses = frequency * np.exp(self._lm.log_prob[grams])
        said = word.score + self._weight * self._lm.log_prob[grams]
        leads = self._scores_after(other, first) - drop - said
        lost = _share(leads, distance)
        # After all other words the model falls back on unigrams, of the other one too for the most part.
        others = self._backoffs - float((frequency * np.exp(self._backoff[first])).sum())
        rest = others * math.exp(self._unigram[word.lm_id])
        lead = other.score + (self._weight * float(self._unigram[other.lm_id]) if other.lm_id else 0.0)
        lead -= word.score + self._weight * float(self._unigram[word.lm_id]) + drop
        lost_rest = float(_share(np.array([lead]), distance)[0])
        share = (float((uses * lost).sum()) + rest * lost_rest) / (float(uses.sum()) + rest)
        kept = np.argsort(-(uses * (lost < 0.1)), kind="stable")
        names = [self._lm.words[first[i]] for i in kept[:10] if lost[i] < 0.1 and first[i] != self._lm.begin]
        return Loss(share=share, safe=tuple(names))

    def _scores_after(self, word: Rival, histories: np.ndarray) -> np.ndarray:
        """Of a word after each of the one-word histories."""
        scores = np.array(self._backoff[histories], np.float64)
        if not word.lm_id:
            return word.score + self._weight * scores
        scores += self._unigram[word.lm_id]
        for i, history in enumerate(histories.tolist()):
            gram = find(self._lm.word, self._lm.first, history, word.lm_id)
            if gram >= 0:
                scores[i] = self._lm.log_prob[gram]
        return word.score + self._weight * scores


def _share(leads: np.ndarray, distance: float) -> np.ndarray:
    if distance == 0:
        return (leads > 0).astype(np.float64)
    return np.exp(np.minimum(leads - distance, 0.0))
