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

from asr.decoder.arpa import read_arpa

_LN10 = np.log(10.0)
_BEGIN, _END = "<s>", "</s>"
_FORMAT = 4


@dataclass(frozen=True, kw_only=True)
class NgramModel:
    """A backoff model. N-grams of all orders are numbered one after the other, unigrams first, so that the
    number of a unigram is its word id; id 0 is <unk>.

    `log_prob`, `backoff`: float32 (n-grams,), natural log. `suffix`: int32 (n-grams,), the n-gram without its
    first word, -1 for a unigram. `table`: int64 (slots, 2), open-addressing hash of (context n-gram, word) ->
    n-gram of one order more. A state of the model is the number of the longest n-gram that the history ends
    in and that has a successor; -1 is the empty history.
    """

    words: tuple[str, ...]
    order: int
    log_prob: np.ndarray
    backoff: np.ndarray
    suffix: np.ndarray
    extends: np.ndarray
    table: np.ndarray
    begin: int
    end: int

    @classmethod
    def read(cls, path: str | Path) -> NgramModel:
        """Read an ARPA file (plain, .gz or .xz); the second time it comes from a cache beside the user's
        other caches.

        Raises ValueError (not an ARPA file) and OSError.
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
        words, sections = read_arpa(raw, path)
        log_prob = (np.concatenate([section.prob for section in sections]) * _LN10).astype(np.float32)
        backoff = (np.concatenate([section.backoff for section in sections]) * _LN10).astype(np.float32)
        slots = 1 << max(4, int(1.25 * len(log_prob)).bit_length())
        table = np.full((slots, 2), -1, np.int64)
        suffix = np.full(len(log_prob), -1, np.int32)
        extends = np.zeros(len(log_prob), np.bool_)
        first = len(words)
        for section in sections[1:]:
            if not _link(section.grams, first, table, suffix, extends):
                raise ValueError(f"{path}: an n-gram whose beginning is no n-gram itself")
            first += len(section.grams)
        ids = {word: i for i, word in enumerate(words)}
        return cls(
            words=tuple(words), order=len(sections), log_prob=log_prob, backoff=backoff, suffix=suffix,
            extends=extends, table=table, begin=ids.get(_BEGIN, -1), end=ids.get(_END, 0),
        )  # fmt: skip

    def _store(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "model"
            new.mkdir()
            for name in ("log_prob", "backoff", "suffix", "extends", "table"):
                np.save(new / f"{name}.npy", getattr(self, name))
            (new / "words.txt").write_text("\n".join(self.words), encoding="utf-8")
            np.save(new / "numbers.npy", np.array([self.order, self.begin, self.end]))
            if not folder.exists():
                os.replace(new, folder)

    @classmethod
    def _load(cls, folder: Path) -> NgramModel:
        arrays = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
            for name in ("log_prob", "backoff", "suffix", "extends", "table")
        }
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
                self.log_prob, self.backoff, self.suffix, self.extends, self.table, state, ids.get(word, 0)
            )
            scores.append(float(value))
        return scores

    def score_ids(self, ids: Sequence[int]) -> float:
        """Log-probability (natural log) of words given by their ids, after the sentence begin."""
        return float(
            _score_ids(
                self.log_prob, self.backoff, self.suffix, self.extends, self.table, self.start(),
                np.asarray(ids, np.int32),
            )
        )  # fmt: skip

    def scores_after(self, states: np.ndarray, word: int) -> np.ndarray:
        """Log-probability (natural log) of one word after each of many states, float32."""
        return _scores_after(
            self.log_prob, self.backoff, self.suffix, self.extends, self.table, states, np.int64(word)
        )


def flat_model() -> NgramModel:
    """A language model that finds every word equally good, at no cost."""
    return NgramModel(
        words=("<unk>",), order=1, log_prob=np.zeros(1, np.float32), backoff=np.zeros(1, np.float32),
        suffix=np.full(1, -1, np.int32), extends=np.zeros(1, np.bool_), table=np.full((16, 2), -1, np.int64),
        begin=-1, end=0,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _slot(table, context, word):
    """The slot that holds (context, word), or the empty one where it would go."""
    mask = table.shape[0] - 1
    key = (np.int64(context) << 32) | np.int64(word)
    h = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(h >> np.uint64(20)) & mask
    while table[slot, 0] != -1 and table[slot, 0] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def find(table, context, word):
    """The n-gram `context` followed by `word`, or -1."""
    return table[_slot(table, context, word), 1]


@njit(cache=True)
def _link(grams, first, table, suffix, extends):
    order = grams.shape[1]
    for i in range(grams.shape[0]):
        context = grams[i, 0]
        for k in range(1, order - 1):
            context = find(table, context, grams[i, k])
            if context < 0:
                return False
        word = grams[i, order - 1]
        # Pruning may have taken the n-gram that is one word shorter: the longest one left is as good.
        tail = np.int64(-1)
        for start in range(1, order):
            tail = grams[i, start]
            for k in range(start + 1, order):
                if tail >= 0:
                    tail = find(table, tail, grams[i, k])
            if tail >= 0:
                break
        slot = _slot(table, context, word)
        table[slot, 0] = (np.int64(context) << 32) | np.int64(word)
        table[slot, 1] = first + i
        suffix[first + i] = tail
        extends[context] = True
    return True


@njit(cache=True, nogil=True)
def lm_step(log_prob, backoff, suffix, extends, table, state, word):
    """Score of `word` after `state` and the state that follows (Katz backoff, as KenLM walks it)."""
    penalty = np.float32(0.0)
    context = np.int64(state)
    gram = np.int64(word)
    while context >= 0:
        found = find(table, context, word)
        if found >= 0:
            gram = found
            break
        penalty += backoff[context]
        context = np.int64(suffix[context])
    value = penalty + log_prob[gram]
    # Only a history that something can follow, or that has a backoff weight, need be kept.
    following = gram
    while following >= 0 and not extends[following] and backoff[following] == 0:
        following = np.int64(suffix[following])
    return value, following


@njit(cache=True, nogil=True)
def _scores_after(log_prob, backoff, suffix, extends, table, states, word):
    scores = np.empty(states.shape[0], np.float32)
    for i in range(states.shape[0]):
        scores[i], _ = lm_step(log_prob, backoff, suffix, extends, table, states[i], word)
    return scores


@njit(cache=True, nogil=True)
def _score_ids(log_prob, backoff, suffix, extends, table, state, words):
    total, at = 0.0, np.int64(state)
    for word in words:
        value, at = lm_step(log_prob, backoff, suffix, extends, table, at, word)
        total += value
    return total
