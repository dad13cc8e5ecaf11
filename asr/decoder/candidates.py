"""What a search found, before it is told to anybody: candidates whose words differ, with exact scores."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asr.decoder.added import Added
from asr.decoder.arcs import UNKNOWN_END, UNKNOWN_PHONE
from asr.decoder.ctc import place_tokens, relative, relative_scores
from asr.decoder.live import View
from asr.decoder.nbest import best_paths
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions
from asr.decoder.unknown import is_mark, unknown_word
from asr.decoder.workspace import Paths
from asr.phones import PhoneSet
from asr.text import normalize
from asr.types import Hypothesis

MOST_WORDS = 150  # of an utterance that is rescored
_NO_FRAMES = np.zeros(0, np.int32)


class Rescorer(Protocol):
    """A language model that is asked about whole texts."""

    def log_probs(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Log-probability (natural log) of each word and of the end of each text, float32 (words + 1,).

        Words are in their normal form. A lexicon entry of several words is one, with spaces in it; a marked
        word is empty: of both, as of all that the first model does not know, the score is not used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A path: its words as they are pronounced, the frame in which each of its records ends, and what it
    scores; `lm_scores` float32 (words + 1,) of each word and the end, unweighted, `floors` the least that
    they can be; `bonus`: all that is neither sound nor language model."""

    path: tuple[Added, ...]
    frames: np.ndarray
    acoustic_score: float
    lm_scores: np.ndarray
    floors: np.ndarray
    bonus: float
    lm_weight: float

    @property
    def score(self) -> float:
        return self.acoustic_score + self.lm_weight * float(self.lm_scores.sum()) + self.bonus

    def token_frames(self, log_probs: np.ndarray) -> tuple[int, ...]:
        """The frame in which each token begins. `log_probs` (frames, tokens) are those that were searched."""
        # A record ends a word, or is a phone of an unknown one: a piece of known place either way.
        sizes: list[int] = []
        for said in self.path:
            sizes += [1] * len(said.tokens) if said.word_id < 0 else [len(said.tokens)]
        tokens = _tokens(self.path)
        frames = np.zeros(len(tokens), np.int32)
        place_tokens(log_probs, tokens, np.cumsum(sizes, dtype=np.int32), self.frames, frames)
        return tuple(frames.tolist())

    def hypothesis(self, token_frames: tuple[int, ...]) -> Hypothesis:
        return Hypothesis(
            words=tuple(said.word for said in self.path),
            token_ids=tuple(_tokens(self.path).tolist()),
            token_frames=token_frames,
            word_ends=tuple(itertools.accumulate(len(said.tokens) for said in self.path)),
            acoustic_score=self.acoustic_score,
            lm_score=float(self.lm_scores.sum()),
            score=self.score,
        )


class Reader:
    """Makes candidates of the paths of a search."""

    def __init__(self, lm: NgramModel | None, phones: PhoneSet, options: DecoderOptions) -> None:
        self._lm, self._phones, self._options = lm, phones, options

    def candidates(
        self, paths: Paths, view: View, log_probs: np.ndarray, most: int, near: float
    ) -> list[Candidate]:
        """Best first, one at least: of the `most` best paths those whose words differ and whose scores are
        within `near` of the best one, and in any case `nbest` of the options, where so many are found. Of
        more than one the acoustic scores are exact, of the pronunciations that the search found best; the
        best one alone scores what the search gave it, which sums other pronunciations too."""
        found = best_paths(paths, most, self._options.beam_threshold)
        if not found:
            silence = float(log_probs[:, 0].sum())
            return [self.candidate((), silence)]
        known: dict[int, Added] = {}
        said = [self._path(view, paths.records["pronunciation"][c].tolist(), known) for c, _ in found]
        if most == 1:
            return [self.candidate(said[0], found[0][1], _frames(paths, found[0][0]))]
        # What a path scored before it met a better one is only known about.
        acoustic, others = self._scores(said, log_probs)
        scores = acoustic + others
        worst = scores.max() - near
        first: dict[tuple[str, ...], Candidate] = {}
        for i in np.argsort(-scores, kind="stable").tolist():
            if scores[i] < worst and len(first) >= self._options.nbest:
                break
            words = tuple(s.word for s in said[i])
            if words not in first:  # a word's number may differ where its spelling does not
                candidate = self.candidate(said[i], 0.0, _frames(paths, found[i][0]))
                first[words] = dataclasses.replace(candidate, acoustic_score=float(acoustic[i]))
        return list(first.values())

    def _scores(
        self, paths: Sequence[tuple[Added, ...]], log_probs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each path scores by its sounds, all alignments summed, and by all else, float64 (paths,)."""
        number: dict[int, int] = {}  # by identity: most words are in most paths
        different: list[Added] = []
        numbers = []
        for said in itertools.chain.from_iterable(paths):
            if id(said) not in number:
                number[id(said)] = len(different)
                different.append(said)
            numbers.append(number[id(said)])
        sizes = [len(path) for path in paths]
        words, ends = np.array(numbers, np.int64), np.cumsum(sizes)
        offsets = np.cumsum([0, *(len(said.tokens) for said in different)])
        shares, highest = relative(log_probs)
        acoustic = highest + relative_scores(shares, _tokens(different), offsets, words, ends)
        bonus = np.array([self._bonus([said]) for said in different])
        others: np.ndarray = np.bincount(np.repeat(np.arange(len(paths)), sizes), bonus[words], len(paths))
        if self._lm is not None:
            weight = self._options.lm_weight
            ids = np.array([said.lm_id for said in different], np.int32)
            floors = np.array([said.floor / weight if weight else -np.inf for said in different], np.float32)
            others = others + weight * self._lm.totals(ids[words], floors[words], ends)
        return acoustic, others

    def _bonus(self, path: Sequence[Added]) -> float:
        """What scores a path beside its sounds and the language model."""
        bonus = sum(said.score for said in path)
        if self._lm is not None:
            # What an unknown word scores stands in place of the language model's <unk>.
            unknown = sum(said.unknown for said in path)
            bonus -= self._options.lm_weight * float(self._lm.log_prob[0]) * unknown
        return bonus

    def candidate(self, path: tuple[Added, ...], score: float, frames: np.ndarray = _NO_FRAMES) -> Candidate:
        """Of a path that scores that in all."""
        weight, bonus = self._options.lm_weight, self._bonus(path)
        lm_scores = np.zeros(len(path) + 1, np.float32)
        floors = np.full(len(path) + 1, -np.inf, np.float32)
        if self._lm is not None:
            ids = [*(said.lm_id for said in path), *([self._lm.end] if self._lm.end > 0 else [])]
            lm_scores[: len(ids)], backoffs = self._lm.scores_and_backoffs(ids)
            if weight > 0:
                floors[:-1] = backoffs[: len(path)] + [said.floor / weight for said in path]
                lm_scores = np.maximum(lm_scores, floors)
        acoustic = score - weight * float(lm_scores.sum()) - bonus
        return Candidate(
            path=path, frames=frames, acoustic_score=acoustic, lm_scores=lm_scores, floors=floors,
            bonus=bonus, lm_weight=weight,
        )  # fmt: skip

    def _path(self, view: View, pronunciations: Sequence[int], known: dict[int, Added]) -> tuple[Added, ...]:
        """What the records of a path say; those of an unknown word, a phone each and its end, become one."""
        path: list[Added] = []
        unknown: list[int] = []
        for i in pronunciations:
            if i <= UNKNOWN_PHONE:
                unknown.append(UNKNOWN_PHONE - i)
            elif i == UNKNOWN_END:
                path.append(unknown_word(unknown, view.loop, self._phones))
                unknown = []
            else:
                if i not in known:
                    known[i] = view.said(i)
                path.append(known[i])
        return tuple(path)


def rescore(
    utterances: Sequence[list[Candidate]], rescorer: Rescorer, lm: NgramModel, share: float
) -> list[list[Candidate]]:
    """Each utterance's candidates, best first, with `share` of the second model in their language model
    scores.

    A word that the language model does not know keeps its score; the second model reads it, so as to know
    what follows, but has no say in it: it may be the first time that anybody writes it. Where a word has a
    floor, both models stand on it. Utterances of more than MOST_WORDS words stay as they are: the second
    model is one of sentences.
    """
    short = [len(candidates[0].path) <= MOST_WORDS for candidates in utterances]
    texts = [
        [_text(said, lm) for said in candidate.path]
        for candidates, is_short in zip(utterances, short, strict=True)
        if is_short
        for candidate in candidates
    ]
    opinions = iter(rescorer.log_probs(texts))
    rescored = []
    for candidates, is_short in zip(utterances, short, strict=True):
        if not is_short:
            rescored.append(candidates)
            continue
        new = []
        for candidate in candidates:
            counts = np.array([*(share * (not said.unknown) for said in candidate.path), share], np.float32)
            opinion = next(opinions)
            assert opinion.shape == candidate.lm_scores.shape
            opinion = np.maximum(opinion, candidate.floors)
            scores = candidate.lm_scores + counts * (opinion - candidate.lm_scores)
            new.append(dataclasses.replace(candidate, lm_scores=scores))
        rescored.append(sorted(new, key=lambda c: -c.score))
    return rescored


def _text(said: Added, lm: NgramModel) -> str:
    """A word for a language model: with `like=` the word in whose place it stands."""
    if said.unknown:
        return "" if is_mark(said.word) else normalize(said.word)
    return lm.words[said.lm_id]


def _frames(paths: Paths, chosen: np.ndarray) -> np.ndarray:
    """The frame in which each record of a path ends, but for the ends of unknown words, int32."""
    records = paths.records[chosen]
    return records["frame"][records["pronunciation"] != UNKNOWN_END].copy()


def _tokens(path: Sequence[Added]) -> np.ndarray:
    return np.concatenate([said.tokens for said in path]) if path else np.zeros(0, np.int16)
