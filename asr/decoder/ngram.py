"""N-gram language models: ARPA files into flat arrays, scored exactly as KenLM scores them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from asr.decoder.arpa import Section, read_arpa, unpacked
from asr.decoder.packed import MAGIC, unpack

_LN10 = np.log(10.0)
_BEGIN, _END = "<s>", "</s>"
_FORMAT = 5
_ARRAYS = ("log_prob", "backoff", "suffix", "word", "first")


@dataclass(frozen=True, kw_only=True)
class NgramModel:
    """A backoff model. N-grams are numbered by order, then by their context's number, then by their last
    word: the number of a unigram is its word id (id 0 is <unk>), and the n-grams that go on from one stand
    together.

    `log_prob`, `backoff`: float32 (n-grams,), natural log. `suffix`: int32 (n-grams,), the n-gram without its
    first word, -1 for a unigram. `word`: int32 (n-grams,), the last word. `first`: int32 (n-grams + 1,):
    those that go on from n-gram g are first[g] to first[g + 1]. A state of the model is the number of the
    longest n-gram that the history ends in and that has a successor; -1 is the empty history.
    """

    words: tuple[str, ...]
    order: int
    log_prob: np.ndarray
    backoff: np.ndarray
    suffix: np.ndarray
    word: np.ndarray
    first: np.ndarray
    begin: int
    end: int

    @classmethod
    def read(cls, path: str | Path) -> NgramModel:
        """Read an ARPA file (plain, .gz or .xz) or a packed one (.ngrams.xz); the second time it comes from a
        cache beside the user's other caches.

        Raises ValueError (not a language model) and OSError.
        """
        raw = Path(path).read_bytes()
        from asr.paths import cache_folder

        cached = cache_folder() / f"ngram-{_FORMAT}-{hashlib.sha256(raw).hexdigest()[:32]}"
        if not cached.is_dir():
            model = cls._parse(raw, str(path))
            try:
                model._store(cached)
            except OSError:
                return model  # a read-only home only costs time
        return cls._load(cached)

    @classmethod
    def _parse(cls, raw: bytes, path: str) -> NgramModel:
        words, sections = read_ngrams(raw, path)
        ids = {word: i for i, word in enumerate(words)}
        probs, backoffs = [sections[0].prob], [sections[0].backoff]
        last_words = [np.arange(len(words), dtype=np.int32)]
        suffix = [np.full(len(words), -1, np.int32)]
        # Those that go on from the n-grams so far; of the longest ones nothing is known yet.
        first = np.full(len(words) + 1, len(words), np.int32)
        begin = 0
        for section in sections[1:]:
            total = len(first) - 1
            known = np.concatenate(last_words)
            contexts = _numbers(section.grams[:, :-1], first, known)
            if len(contexts) and contexts.min() < 0:
                raise ValueError(f"{path}: an n-gram whose beginning is no n-gram itself")
            grams = section.grams[:, -1]
            place = np.lexsort((grams, contexts))
            probs.append(section.prob[place])
            backoffs.append(section.backoff[place])
            last_words.append(grams[place])
            counts = np.bincount(contexts - begin, minlength=total - begin)
            first[begin + 1 : total + 1] = total + np.cumsum(counts)
            first = np.concatenate([first, np.full(len(grams), total + len(grams), np.int32)])
            known = np.concatenate([known, grams[place]])
            suffix.append(_suffixes(section.grams[place], first, known))
            begin = total
        return cls(
            words=tuple(words),
            order=len(sections),
            log_prob=(np.concatenate(probs) * _LN10).astype(np.float32),
            backoff=(np.concatenate(backoffs) * _LN10).astype(np.float32),
            suffix=np.concatenate(suffix),
            word=np.concatenate(last_words),
            first=first,
            begin=ids.get(_BEGIN, -1),
            end=ids.get(_END, 0),
        )

    def _store(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "model"
            new.mkdir()
            for name in _ARRAYS:
                np.save(new / f"{name}.npy", getattr(self, name))
            (new / "words.txt").write_text("\n".join(self.words), encoding="utf-8")
            np.save(new / "numbers.npy", np.array([self.order, self.begin, self.end]))
            if not folder.exists():
                os.replace(new, folder)

    @classmethod
    def _load(cls, folder: Path) -> NgramModel:
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _ARRAYS}
        order, begin, end = (int(n) for n in np.load(folder / "numbers.npy"))
        words = tuple((folder / "words.txt").read_text(encoding="utf-8").split("\n"))
        return cls(words=words, order=order, begin=begin, end=end, **arrays)

    def ids(self) -> dict[str, int]:
        """Word -> id. <unk> has id 0."""
        return {word: i for i, word in enumerate(self.words)}

    def start(self, bos: bool = True) -> int:
        """The state before the first word."""
        return self.begin if bos and self.begin >= 0 else -1

    def score(self, words: Sequence[str], bos: bool = True, eos: bool = True) -> list[float]:
        """Log-probability (natural log) of each word, and of the sentence end if `eos`, as KenLM gives it."""
        ids = self.ids()
        state, scores = self.start(bos), []
        for word in [*words, *([_END] if eos else [])]:
            value, state = lm_step(
                self.log_prob, self.backoff, self.suffix, self.word, self.first, state, ids.get(word, 0)
            )
            scores.append(float(value))
        return scores

    def scores_of_ids(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probability (natural log) of each of the words given by their ids, after the sentence begin,
        float32."""
        return self.scores_and_backoffs(ids)[0]

    def scores_and_backoffs(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The same, and what it costs to back off from the words before each to none, float32, natural log:
        what comes before the score of a word that nobody knows."""
        return _scores_of_ids(
            self.log_prob, self.backoff, self.suffix, self.word, self.first, self.start(),
            np.asarray(ids, np.int32),
        )  # fmt: skip

    def totals(self, ids: np.ndarray, floors: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Summed log-probabilities (natural log) of many texts and their ends, float64 (texts,): text i has
        the words ids[ends[i - 1] : ends[i]], int32. A word scores at least its floor, float32 beside its id,
        and what it costs to back off to none."""
        return _totals(
            self.log_prob, self.backoff, self.suffix, self.word, self.first, self.start(), self.end,
            ids, floors, ends,
        )  # fmt: skip

    def scores_after(self, states: np.ndarray, word: int) -> np.ndarray:
        """Log-probability (natural log) of one word after each of many states, float32."""
        return _scores_after(
            self.log_prob, self.backoff, self.suffix, self.word, self.first, states, np.int64(word)
        )


def read_ngrams(raw: bytes, path: str) -> tuple[list[str], list[Section]]:
    """The words and sections of an ARPA file or a packed one. Raises ValueError for anything else."""
    content = unpacked(raw, path)
    return (unpack if content.startswith(MAGIC) else read_arpa)(content, path)


def flat_model() -> NgramModel:
    """A language model that finds every word equally good, at no cost."""
    return NgramModel(
        words=("<unk>",), order=1, log_prob=np.zeros(1, np.float32), backoff=np.zeros(1, np.float32),
        suffix=np.full(1, -1, np.int32), word=np.zeros(1, np.int32), first=np.ones(2, np.int32),
        begin=-1, end=0,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def find(word, first, context, wanted):
    """The n-gram `context` followed by word `wanted`, or -1."""
    low, high = np.int64(first[context]), np.int64(first[context + 1])
    end = high
    while low < high:
        middle = (low + high) >> 1
        if word[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < end and word[low] == wanted else np.int64(-1)


@njit(cache=True)
def _numbers(grams, first, word):
    """The number of each n-gram (rows of word ids), -1 where there is none."""
    numbers = np.empty(grams.shape[0], np.int32)
    for i in range(grams.shape[0]):
        number = np.int64(grams[i, 0])
        for k in range(1, grams.shape[1]):
            if number >= 0:
                number = find(word, first, number, grams[i, k])
        numbers[i] = number
    return numbers


@njit(cache=True)
def _suffixes(grams, first, word):
    """The number of each n-gram without its first word; pruning may have taken that one: then the longest
    left."""
    numbers = np.empty(grams.shape[0], np.int32)
    for i in range(grams.shape[0]):
        number = np.int64(-1)
        for start in range(1, grams.shape[1]):
            number = np.int64(grams[i, start])
            for k in range(start + 1, grams.shape[1]):
                if number >= 0:
                    number = find(word, first, number, grams[i, k])
            if number >= 0:
                break
        numbers[i] = number
    return numbers


@njit(cache=True, nogil=True)
def lm_step(log_prob, backoff, suffix, word, first, state, wanted):
    """Score of `wanted` after `state` and the state that follows (Katz backoff, as KenLM walks it)."""
    penalty = np.float32(0.0)
    context = np.int64(state)
    gram = np.int64(wanted)
    while context >= 0:
        found = find(word, first, context, wanted)
        if found >= 0:
            gram = found
            break
        penalty += backoff[context]
        context = np.int64(suffix[context])
    value = penalty + log_prob[gram]
    # Only a history that something can follow, or that has a backoff weight, need be kept.
    following = gram
    while following >= 0 and first[following + 1] == first[following] and backoff[following] == 0:
        following = np.int64(suffix[following])
    return value, following


@njit(cache=True, nogil=True)
def _scores_after(log_prob, backoff, suffix, word, first, states, wanted):
    scores = np.empty(states.shape[0], np.float32)
    for i in range(states.shape[0]):
        scores[i], _ = lm_step(log_prob, backoff, suffix, word, first, states[i], wanted)
    return scores


@njit(cache=True, nogil=True)
def _scores_of_ids(log_prob, backoff, suffix, word, first, state, words):
    scores, backoffs = np.empty(words.shape[0], np.float32), np.zeros(words.shape[0], np.float32)
    at = np.int64(state)
    for i in range(words.shape[0]):
        context = at
        while context >= 0:
            backoffs[i] += backoff[context]
            context = np.int64(suffix[context])
        scores[i], at = lm_step(log_prob, backoff, suffix, word, first, at, words[i])
    return scores, backoffs


@njit(cache=True, nogil=True)
def _totals(log_prob, backoff, suffix, word, first, state, end, words, floors, ends):
    totals = np.zeros(ends.shape[0])
    begin = np.int64(0)
    for i in range(ends.shape[0]):
        at = np.int64(state)
        for k in range(begin, ends[i]):
            floor, context = floors[k], at
            if floor > -np.inf:
                while context >= 0:
                    floor += backoff[context]
                    context = np.int64(suffix[context])
            score, at = lm_step(log_prob, backoff, suffix, word, first, at, words[k])
            totals[i] += max(score, floor)
        if end > 0:
            totals[i] += lm_step(log_prob, backoff, suffix, word, first, at, end)[0]
        begin = np.int64(ends[i])
    return totals
