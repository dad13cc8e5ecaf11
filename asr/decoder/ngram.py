"""N-gram language models: ARPA files into flat arrays, scored exactly as KenLM scores them."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

_LN10 = np.log(10.0)
_UNKNOWN, _BEGIN, _END = "<unk>", "<s>", "</s>"
_FORMAT = 3
# KenLM's log10 score for a word that the ARPA file gives no <unk> for.
_MISSING_UNKNOWN = -100.0


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
        try:
            if raw[:2] == b"\x1f\x8b":
                raw = gzip.decompress(raw)
            elif raw[:6] == b"\xfd7zXZ\0":
                raw = lzma.decompress(raw)
            text = raw.decode("utf-8")
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError):
            raise ValueError(f"{path}: not an ARPA language model (or a damaged one)") from None
        return _Parser(path).parse(text)

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
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
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


class _Parser:
    """Reads the sections of an ARPA text one after the other."""

    def __init__(self, path: str) -> None:
        self.path = path

    def parse(self, text: str) -> NgramModel:
        sections = self._sections(text)
        words, log_prob, backoff = self._unigrams(sections[0])
        ids = {word: i for i, word in enumerate(words)}
        columns = [np.arange(len(words), dtype=np.int64)[:, None]]
        probs, backoffs = [log_prob], [backoff]
        for order, lines in enumerate(sections[1:], 2):
            grams, p, b = self._ngrams(lines, order, ids)
            columns.append(grams)
            probs.append(p)
            backoffs.append(b)
        all_probs = (np.concatenate(probs) * _LN10).astype(np.float32)
        all_backoffs = (np.concatenate(backoffs) * _LN10).astype(np.float32)
        slots = 1 << max(4, int(1.5 * len(all_probs)).bit_length())
        table = np.full((slots, 2), -1, np.int64)
        suffix = np.full(len(all_probs), -1, np.int32)
        extends = np.zeros(len(all_probs), np.bool_)
        first = len(words)
        for grams in columns[1:]:
            if not _link(grams, first, table, suffix, extends):
                raise ValueError(f"{self.path}: an n-gram whose beginning is no n-gram itself")
            first += len(grams)
        return NgramModel(
            words=tuple(words), order=len(sections), log_prob=all_probs, backoff=all_backoffs, suffix=suffix,
            extends=extends, table=table, begin=ids.get(_BEGIN, -1), end=ids.get(_END, 0),
        )  # fmt: skip

    def _sections(self, text: str) -> list[list[str]]:
        sections: list[list[str]] = []
        at = text.find("\\1-grams:")
        if "\\data\\" not in text[: max(at, 0)]:
            raise ValueError(f"{self.path}: not an ARPA language model (no \\data\\ and \\1-grams:)")
        while at >= 0:
            begin = text.index("\n", at) + 1
            following = text.find(f"\\{len(sections) + 2}-grams:", begin)
            end = following if following >= 0 else text.find("\\end\\", begin)
            if end < 0:
                raise ValueError(f"{self.path}: the ARPA file breaks off (no \\end\\)")
            sections.append([line for line in text[begin:end].split("\n") if line.strip()])
            at = following
        return sections

    def _unigrams(self, lines: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        words, probs, backoffs = [_UNKNOWN], [_MISSING_UNKNOWN], [0.0]
        for line in lines:
            fields = line.split()
            if len(fields) not in (2, 3):
                raise ValueError(f"{self.path}: bad line {line!r}")
            backoff = float(fields[2]) if len(fields) == 3 else 0.0
            if fields[1] == _UNKNOWN:
                probs[0], backoffs[0] = float(fields[0]), backoff
                continue
            words.append(fields[1])
            probs.append(float(fields[0]))
            backoffs.append(backoff)
        return words, np.array(probs), np.array(backoffs)

    def _ngrams(
        self, lines: list[str], order: int, ids: dict[str, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grams = np.empty((len(lines), order), np.int64)
        probs, backoffs = np.empty(len(lines)), np.zeros(len(lines))
        try:
            for i, line in enumerate(lines):
                fields = line.split()
                probs[i] = float(fields[0])
                grams[i] = [ids[word] for word in fields[1 : order + 1]]
                if len(fields) > order + 1:
                    backoffs[i] = float(fields[order + 1])
        except (KeyError, ValueError):
            raise ValueError(f"{self.path}: bad {order}-gram line {line!r}") from None
        return grams, probs, backoffs


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
