"""The decoder: log-probabilities over phones to hypotheses over words."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions
from asr.decoder.search import search, token_frames
from asr.decoder.trie import build_trie
from asr.lexicon import Entry, Lexicon
from asr.phones import PhoneSet
from asr.text import normalize
from asr.types import Hypothesis


class Decoder:
    """Finds the words of `lexicon` that the phones spell best under `language_model`.

    Without a language model all words are alike; without a lexicon the phones themselves are the words.
    """

    def __init__(
        self,
        lexicon: Lexicon | None,
        language_model: NgramModel | None,
        phones: PhoneSet,
        options: DecoderOptions | None = None,
    ) -> None:
        """Raises ValueError for a lexicon without entries, and UnknownPhone for one of other phones."""
        self.options = options or DecoderOptions()
        self.phones = phones
        if lexicon is None:
            lexicon = Lexicon(tuple(Entry(word=p, phones=(p,)) for p in phones.phones))
        if not lexicon.entries:
            raise ValueError("the lexicon has no words")
        self._entries = lexicon.entries
        self._tokens = [phones.encode(entry.phones) for entry in lexicon.entries]
        self._lm = language_model or _flat_model()
        self._scores_end = language_model is not None and language_model.end > 0
        self._score_words()
        self._trie = build_trie(self._tokens, self._ahead)

    def _score_words(self) -> None:
        options, lm = self.options, self._lm
        ids = lm.ids()
        self._lm_ids = np.zeros(len(self._entries), np.int32)
        self._unknown = np.full(len(self._entries), np.nan, np.float32)
        self._bonus = np.full(len(self._entries), options.word_score, np.float32)
        known: dict[str, int] = {}
        for i, entry in enumerate(self._entries):
            name = entry.like or entry.word
            if name not in known:
                known[name] = ids.get(name, -1) if name in ids else ids.get(normalize(name), -1)
            if known[name] >= 0:
                self._lm_ids[i] = known[name]
            elif len(lm.words) > 1:
                self._unknown[i] = options.unknown_word_score
            if entry.weight != 1.0 or entry.boost:
                self._bonus[i] += math.log(entry.weight) + entry.boost
        unigram = np.where(np.isnan(self._unknown), lm.log_prob[self._lm_ids], self._unknown)
        self._ahead = (options.lm_weight * unigram + self._bonus).astype(np.float32)

    def decode(self, log_probs: Any, lengths: Any = None) -> list[list[Hypothesis]]:
        """Hypotheses of each utterance, best first, at most `options.nbest`, at least one (perhaps without words).

        `log_probs`: (batch, frames, tokens) float32, natural log, numpy or torch; `lengths`: (batch,) frames of each.
        Raises ValueError for shapes that do not fit, lengths beyond the frames, and NaN.
        """
        batch = np.asarray(log_probs.detach().cpu() if hasattr(log_probs, "detach") else log_probs, np.float32)
        if batch.ndim != 3:
            raise ValueError(f"log_probs must be (batch, frames, tokens), not of shape {batch.shape}")
        if batch.shape[2] != len(self.phones):
            raise ValueError(f"log_probs has {batch.shape[2]} tokens, the phone set {len(self.phones)}")
        if lengths is None:
            lengths = [batch.shape[1]] * len(batch)
        sizes = [int(n) for n in lengths]
        if len(sizes) != len(batch) or any(not 0 <= n <= batch.shape[1] for n in sizes):
            raise ValueError(f"lengths {sizes} do not fit log_probs of shape {batch.shape}")
        utterances = [np.ascontiguousarray(row[:n]) for row, n in zip(batch, sizes, strict=True)]
        if any(np.isnan(utterance).any() for utterance in utterances):
            raise ValueError("log_probs holds NaN")
        threads = self.options.num_threads or len(os.sched_getaffinity(0))
        if threads == 1 or len(utterances) == 1:
            return [self._decode_one(utterance) for utterance in utterances]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._decode_one, utterances))

    def _decode_one(self, log_probs: np.ndarray) -> list[Hypothesis]:
        trie, lm, options = self._trie, self._lm, self.options
        if not len(log_probs):
            return [self._hypothesis(log_probs, [], 0.0)]
        history, merges, costs, finals, scores, _ = search(
            np.maximum(log_probs, np.float32(-1e5)), trie.first_arc, trie.arc_token, trie.arc_node,
            trie.first_end, trie.ends, trie.token, trie.ahead, self._lm_ids, self._bonus, self._unknown,
            lm.log_prob, lm.backoff, lm.suffix, lm.extends, lm.table, lm.start(),
            lm.end if self._scores_end else -1, np.float32(options.lm_weight), options.beam_size,
            np.float32(options.beam_threshold), np.float32(math.log(options.blank_skip_threshold)), options.nbest > 1,
        )  # fmt: skip
        if not len(finals):
            return [self._hypothesis(log_probs, [], float(log_probs[:, 0].sum()))]
        found = _best_paths(history, merges, costs, finals, scores, options.nbest, self._words_of)
        return [self._hypothesis(log_probs, path, score) for path, score in found]

    def _words_of(self, path: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._entries[i].word for i in path)

    def _hypothesis(self, log_probs: np.ndarray, path: Sequence[int], score: float) -> Hypothesis:
        options = self.options
        tokens = [t for i in path for t in self._tokens[i]]
        lm_score = self._lm_score(path)
        bonus = sum(float(self._bonus[i]) for i in path)
        # What an unknown word scores instead of the language model's <unk> belongs to neither part.
        unknown = [i for i in path if not math.isnan(self._unknown[i])]
        bonus += options.lm_weight * sum(float(self._unknown[i]) - float(self._lm.log_prob[0]) for i in unknown)
        return Hypothesis(
            words=self._words_of(path),
            token_ids=tuple(tokens),
            token_frames=tuple(int(f) for f in token_frames(log_probs, np.array(tokens, np.int32))) if tokens else (),
            word_ends=tuple(int(n) for n in np.cumsum([len(self._tokens[i]) for i in path])),
            acoustic_score=score - options.lm_weight * lm_score - bonus,
            lm_score=lm_score,
            score=score,
        )

    def _lm_score(self, path: Sequence[int]) -> float:
        if len(self._lm.words) == 1:
            return 0.0
        return self._lm.score_ids([*(int(self._lm_ids[i]) for i in path), *([self._lm.end] * self._scores_end)])


def greedy(log_probs: Any, lengths: Any, phones: PhoneSet) -> list[tuple[str, ...]]:
    """The likeliest token of each frame, repetitions and blanks removed: the phones of each utterance."""
    best = np.asarray(log_probs.detach().cpu() if hasattr(log_probs, "detach") else log_probs).argmax(2)
    results = []
    for row, length in zip(best, lengths, strict=True):
        row = row[: int(length)]
        kept = row[np.flatnonzero(np.diff(row, prepend=-1) != 0)]
        results.append(tuple(phones.symbols[t] for t in kept if t != 0))
    return results


def _best_paths(history, merges, costs, finals, scores, nbest, words_of):  # type: ignore[no-untyped-def]
    """The `nbest` best (pronunciations, score) with different words: the final traces, and what was merged into them."""
    merged: dict[int, list[tuple[int, float]]] = {}
    for (kept, lost), cost in zip(merges.tolist(), costs.tolist(), strict=True):
        merged.setdefault(kept, []).append((lost, cost))
    heap = [(-float(score), k, int(trace), ()) for k, (trace, score) in enumerate(zip(finals, scores, strict=True))]
    heapq.heapify(heap)
    found: dict[tuple[str, ...], tuple[list[int], float]] = {}
    pushed = len(heap)
    while heap and len(found) < nbest and pushed < 200 * nbest + len(finals):
        negative, _, trace, after = heapq.heappop(heap)
        path, at = list(after), trace
        while True:
            for lost, cost in merged.get(at, ()) if nbest > 1 else ():
                heapq.heappush(heap, (negative + cost, pushed, lost, tuple(path)))
                pushed += 1
            if at < 0:
                break
            path.insert(0, int(history[at, 1]))
            at = int(history[at, 0])
        words = words_of(path)
        if words not in found:
            found[words] = (path, -negative)
    return list(found.values())


def _flat_model() -> NgramModel:
    """A language model that finds every word equally good, at no cost."""
    return NgramModel(
        words=("<unk>",), order=1, log_prob=np.zeros(1, np.float32), backoff=np.zeros(1, np.float32),
        suffix=np.full(1, -1, np.int32), extends=np.zeros(1, np.bool_), table=np.full((16, 2), -1, np.int64),
        begin=-1, end=0,
    )  # fmt: skip
