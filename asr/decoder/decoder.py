"""The decoder: log-probabilities over phones to hypotheses over words."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.decoder.added import Added
from asr.decoder.arcs import UNKNOWN_END, UNKNOWN_PHONE
from asr.decoder.compiled import Compiled
from asr.decoder.ctc import ctc_score, place_tokens
from asr.decoder.live import LiveVocabulary, View
from asr.decoder.nbest import best_paths
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions
from asr.decoder.tokens import MOST_TOKENS
from asr.decoder.unknown import unknown_word
from asr.decoder.workspace import Workspace
from asr.lexicon import Entry, Lexicon
from asr.phones import PhoneSet
from asr.types import Hypothesis

if TYPE_CHECKING:
    from asr.decoder.gpu import GpuEngine


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
        compiled: Compiled | None = None,
    ) -> None:
        """`compiled` stands in for `lexicon`, which is not looked at then.

        Raises ValueError for a lexicon without entries and an engine that cannot run here, and UnknownPhone
        for a lexicon of other phones.
        """
        self.options = options or DecoderOptions()
        self.phones = phones
        if len(phones) > MOST_TOKENS:
            raise ValueError(f"at most {MOST_TOKENS} tokens can be decoded, not {len(phones)}")
        if compiled is None:
            if lexicon is None:
                lexicon = Lexicon(tuple(Entry(word=p, phones=(p,)) for p in phones.phones))
            if not lexicon.entries:
                raise ValueError("the lexicon has no words")
            compiled = Compiled.build(lexicon, language_model, phones, self.options)
        self._lm = language_model
        self._compiled = compiled
        self._live = LiveVocabulary(compiled, language_model, phones, self.options)
        self._free: SimpleQueue[Workspace] = SimpleQueue()
        self._gpu: GpuEngine | None = None
        if self.options.engine == "gpu":
            # Imported where it is used: it takes torch.
            from asr.decoder.gpu import GpuEngine

            self._gpu = GpuEngine(compiled, self.options)
        # How often a search had no room for a token, a record or a merge: then its beam was narrower than
        # asked.
        self.overflows = 0

    @classmethod
    def load(
        cls,
        lexicon: str | Path,
        language_model: str | Path | None,
        phones: PhoneSet,
        options: DecoderOptions | None = None,
        read: Callable[[], Lexicon] | None = None,
    ) -> Decoder:
        """From files. The second time they come compiled from a cache, known by their content, and at once.

        `read` reads the lexicon file where it is not in the cache, by default without G2P. Raises ValueError
        (LexiconError for bad lines, and a lexicon without words) and OSError.
        """
        options = options or DecoderOptions()
        lm = None if language_model is None else NgramModel.read(language_model)
        contents = [Path(file).read_bytes() for file in (lexicon, language_model) if file is not None]
        key = "-".join(hashlib.sha256(content).hexdigest() for content in contents)

        def entries() -> Lexicon:
            found = read() if read is not None else Lexicon.read([lexicon], phones)
            if not found.entries:
                raise ValueError(f"{lexicon}: no words in it")
            return found

        return cls(None, lm, phones, options, Compiled.cached(key, entries, lm, phones, options))

    def add(
        self,
        word: str,
        pronunciations: Sequence[Sequence[str]],
        weight: float = 1.0,
        like: str = "",
        boost: float = 0.0,
    ) -> None:
        """From the next `decode` on `word` is heard in these pronunciations too. See the lexicon format for
        the rest.

        Any thread may add while others decode. Raises UnknownPhone, and ValueError for a pronunciation of no
        or too many phones.
        """
        for phones in pronunciations:
            self.add_entry(
                Entry(word=word, phones=tuple(phones), weight=weight, like=like, boost=boost, source="add")
            )

    def add_entry(self, entry: Entry) -> None:
        """Like `add`, with an entry of a lexicon."""
        self._live.add(entry)

    def knows(self, word: str) -> bool:
        """Whether the language model has the word, so that `like=` it makes a difference."""
        return self._live.scorer.knows(word)

    def remove(self, word: str) -> None:
        """From the next `decode` on `word` is not heard any more. Raises ValueError for a word that is not
        there."""
        self._live.remove(word)

    def take_back(self, entry: Entry) -> None:
        """From the next `decode` on it is as if `entry` had never been added."""
        self._live.take_back(entry)

    def decode(
        self, log_probs: Any, lengths: Any = None, extra: Sequence[Entry] = ()
    ) -> list[list[Hypothesis]]:
        """Hypotheses of each utterance, best first, at most `options.nbest`, at least one (perhaps without
        words).

        `log_probs`: (batch, frames, tokens) float32, natural log, numpy or torch; `lengths`: (batch,) frames
        of each. `extra`: words that are heard in this call alone. Raises ValueError for shapes that do not
        fit, lengths beyond the frames, and NaN.

        With engine "gpu" a CUDA tensor is decoded on its device; other log_probs are moved to one.
        """
        if self._gpu is not None:
            sizes = _sizes(tuple(log_probs.shape), lengths, len(self.phones))
            found = self._gpu.decode(self._live.view_with(extra), log_probs, sizes)
            self.overflows += sum(f.overflow for f in found)
            return [[self._hypothesis(f.path, f.token_frames, f.score)] for f in found]
        utterances = _utterances(log_probs, lengths, len(self.phones))
        view = self._live.view_with(extra)
        threads = min(self.options.num_threads or len(os.sched_getaffinity(0)), len(utterances))
        if threads <= 1:
            return [self._decode_one(utterance, view) for utterance in utterances]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._decode_one, utterances, [view] * len(utterances)))

    def stream(self) -> Stream:
        """A search that is fed piece by piece. It keeps to the vocabulary of now."""
        return Stream(self)

    def _decode_one(self, log_probs: np.ndarray, view: View) -> list[Hypothesis]:
        try:
            workspace = self._free.get_nowait()
        except Empty:
            workspace = Workspace(self.options)
        workspace.begin(view.graph, self._compiled.graph.start)
        workspace.advance(view.graph, log_probs)
        hypotheses = self._hypotheses(workspace, view, log_probs)
        self._free.put(workspace)
        return hypotheses

    def _hypotheses(self, workspace: Workspace, view: View, log_probs: np.ndarray) -> list[Hypothesis]:
        """Of a search that has seen log_probs."""
        paths = workspace.finish(view.graph, self._compiled.end_scores)
        self.overflows += paths.overflow
        found = best_paths(paths, self.options.nbest, self.options.beam_threshold)
        found = found or [(np.zeros(0, np.int32), float(log_probs[:, 0].sum()))]
        hypotheses = []
        for chosen, score in found:
            path = self._path(view, paths.records["pronunciation"][chosen].tolist())
            frames = _token_frames(path, log_probs, paths.records[chosen])
            hypotheses.append(self._hypothesis(path, frames, score))
        if self.options.nbest > 1:
            # What a path scored before it met a better one is only known about: score all of them afresh.
            hypotheses = sorted((self._rescored(log_probs, h) for h in hypotheses), key=lambda h: -h.score)
        return hypotheses

    def _path(self, view: View, pronunciations: Sequence[int]) -> list[Added]:
        """What the records of a path say; those of an unknown word, a phone each and its end, become one."""
        path: list[Added] = []
        unknown: list[int] = []
        for i in pronunciations:
            if i <= UNKNOWN_PHONE:
                unknown.append(UNKNOWN_PHONE - i)
            elif i == UNKNOWN_END:
                path.append(unknown_word(unknown, view.loop, self.phones))
                unknown = []
            else:
                path.append(view.said(i))
        return path

    def _hypothesis(self, path: Sequence[Added], token_frames: tuple[int, ...], score: float) -> Hypothesis:
        lm_weight, lm_score = self.options.lm_weight, 0.0
        bonus = sum(said.score for said in path)
        if self._lm is not None:
            ids = [*(said.lm_id for said in path), *([self._lm.end] if self._lm.end > 0 else [])]
            lm_score = self._lm.score_ids(ids)
            # What an unknown word scores stands in place of the language model's <unk>.
            bonus -= lm_weight * float(self._lm.log_prob[0]) * sum(said.unknown for said in path)
        return Hypothesis(
            words=tuple(said.word for said in path),
            token_ids=tuple(_tokens(path).tolist()),
            token_frames=token_frames,
            word_ends=tuple(itertools.accumulate(len(said.tokens) for said in path)),
            acoustic_score=score - lm_weight * lm_score - bonus,
            lm_score=lm_score,
            score=score,
        )

    def _rescored(self, log_probs: np.ndarray, hypothesis: Hypothesis) -> Hypothesis:
        """The same words and phones with the exact sum over their alignments."""
        acoustic = float(ctc_score(log_probs, np.array(hypothesis.token_ids, np.int16)))
        gain = acoustic - hypothesis.acoustic_score
        return dataclasses.replace(hypothesis, acoustic_score=acoustic, score=hypothesis.score + gain)


class Stream:
    """Decodes one utterance that arrives in pieces; the result is that of decoding it in one piece."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._view = decoder, decoder._live.view
        self._workspace = Workspace(decoder.options)
        self._workspace.begin(self._view.graph, decoder._compiled.graph.start)
        self._pieces: list[np.ndarray] = []

    def accept(self, log_probs: Any) -> None:
        """The next frames (frames, tokens), float32, natural log. Raises ValueError as `decode` does."""
        (piece,) = _utterances(log_probs[None], None, len(self._decoder.phones))
        self._workspace.advance(self._view.graph, piece)
        self._pieces.append(piece)

    def partial(self) -> Hypothesis:
        """The best hypothesis if the utterance ended here."""
        return self.finish()[0]

    def finish(self) -> list[Hypothesis]:
        """Hypotheses for all that was accepted, best first; more may still be accepted."""
        empty = np.zeros((0, len(self._decoder.phones)), np.float32)
        return self._decoder._hypotheses(self._workspace, self._view, np.concatenate([empty, *self._pieces]))


def _tokens(path: Sequence[Added]) -> np.ndarray:
    return np.concatenate([said.tokens for said in path]) if path else np.zeros(0, np.int16)


def _token_frames(path: Sequence[Added], log_probs: np.ndarray, records: np.ndarray) -> tuple[int, ...]:
    """The frame in which each token begins."""
    # A record ends a word, or is a phone of an unknown one: a piece of known place either way.
    pieces = records[records["pronunciation"] != UNKNOWN_END]
    sizes: list[int] = []
    for said in path:
        sizes += [1] * len(said.tokens) if said.word_id < 0 else [len(said.tokens)]
    tokens = _tokens(path)
    frames = np.zeros(len(tokens), np.int32)
    place_tokens(log_probs, tokens, np.cumsum(sizes, dtype=np.int32), pieces["frame"].copy(), frames)
    return tuple(frames.tolist())


def _utterances(log_probs: Any, lengths: Any, num_tokens: int) -> list[np.ndarray]:
    """The frames of each utterance, contiguous. Raises ValueError."""
    batch = np.asarray(log_probs.detach().cpu() if hasattr(log_probs, "detach") else log_probs, np.float32)
    sizes = _sizes(batch.shape, lengths, num_tokens)
    utterances = [np.ascontiguousarray(row[:n]) for row, n in zip(batch, sizes, strict=True)]
    if any(np.isnan(utterance).any() for utterance in utterances):
        raise ValueError("log_probs holds NaN")
    # A log-probability of minus infinity is one that no path can afford.
    return [np.maximum(utterance, np.float32(-1e5)) for utterance in utterances]


def _sizes(shape: tuple[int, ...], lengths: Any, num_tokens: int) -> list[int]:
    """The frames of each utterance. Raises ValueError."""
    if len(shape) != 3:
        raise ValueError(f"log_probs must be (batch, frames, tokens), not of shape {shape}")
    if shape[2] != num_tokens:
        raise ValueError(f"log_probs has {shape[2]} tokens, the phone set {num_tokens}")
    sizes = [shape[1]] * shape[0] if lengths is None else [int(n) for n in lengths]
    if len(sizes) != shape[0] or any(not 0 <= n <= shape[1] for n in sizes):
        raise ValueError(f"lengths {sizes} do not fit log_probs of shape {shape}")
    return sizes
