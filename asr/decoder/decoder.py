"""The decoder: log-probabilities over phones to hypotheses over words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.decoder.candidates import Candidate, Reader, Rescorer, rescore
from asr.decoder.compiled import Compiled
from asr.decoder.live import LiveVocabulary, View
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions
from asr.decoder.tokens import MOST_TOKENS
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
        rescorer: Rescorer | None = None,
    ) -> None:
        """`compiled` stands in for `lexicon`, which is not looked at then. `rescorer`, a second language
        model beside the first one, chooses among the best hypotheses of the search (engine "cpu" alone).

        Raises ValueError for a lexicon without entries, a rescorer without a language model or on engine
        "gpu", and an engine that cannot run here, and UnknownPhone for a lexicon of other phones.
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
        if rescorer is not None and language_model is None:
            raise ValueError("a rescorer (--neural-lm) needs a language model (--lm) beside it")
        if rescorer is not None and self.options.engine == "gpu":
            raise ValueError("engine gpu: it finds one hypothesis, and a rescorer has no choice")
        self._lm, self._rescorer = language_model, rescorer
        self._most = max(self.options.nbest, self.options.rescored if rescorer is not None else 1)
        # How far from the best one a second language model may still make a candidate the best.
        self._near = self.options.rescoring_beam if rescorer is not None else 0.0
        self._reader = Reader(language_model, phones, self.options)
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
        rescorer: Rescorer | None = None,
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

        compiled = Compiled.cached(key, entries, lm, phones, options)
        return cls(None, lm, phones, options, compiled, rescorer)

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
            best = self._gpu.decode(self._live.view_with(extra), log_probs, sizes)
            self.overflows += sum(f.overflow for f in best)
            candidates = [self._reader.candidate(tuple(f.path), f.score) for f in best]
            return [[c.hypothesis(f.token_frames)] for c, f in zip(candidates, best, strict=True)]
        utterances = _utterances(log_probs, lengths, len(self.phones))
        view = self._live.view_with(extra)
        threads = min(self.options.num_threads or len(os.sched_getaffinity(0)), len(utterances))
        if threads <= 1:
            found = [self._search(utterance, view) for utterance in utterances]
        else:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(self._search, utterances, [view] * len(utterances)))
        return self._told(found, utterances)

    def stream(self) -> Stream:
        """A search that is fed piece by piece. It keeps to the vocabulary of now."""
        return Stream(self)

    def _search(self, log_probs: np.ndarray, view: View) -> list[Candidate]:
        try:
            workspace = self._free.get_nowait()
        except Empty:
            workspace = Workspace(self.options, keep_merges=self._most > 1)
        workspace.begin(view.graph, self._compiled.graph.start)
        workspace.advance(view.graph, log_probs)
        candidates = self._candidates(workspace, view, log_probs, self._most)
        self._free.put(workspace)
        return candidates

    def _candidates(
        self, workspace: Workspace, view: View, log_probs: np.ndarray, most: int
    ) -> list[Candidate]:
        """Of a search that has seen log_probs."""
        paths = workspace.finish(view.graph, self._compiled.end_scores)
        self.overflows += paths.overflow
        return self._reader.candidates(paths, view, log_probs, most, self._near)

    def _told(self, found: list[list[Candidate]], utterances: list[np.ndarray]) -> list[list[Hypothesis]]:
        """The best of the candidates of each utterance, as the second language model sees them."""
        if self._rescorer is not None and self._lm is not None and self.options.rescoring_weight > 0:
            found = rescore(found, self._rescorer, self._lm, self.options.rescoring_weight)
        return [
            [c.hypothesis(c.token_frames(utterance)) for c in candidates[: self.options.nbest]]
            for candidates, utterance in zip(found, utterances, strict=True)
        ]


class Stream:
    """Decodes one utterance that arrives in pieces; the result is that of decoding it in one piece."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._view = decoder, decoder._live.view
        self._workspace = Workspace(decoder.options, keep_merges=decoder._most > 1)
        self._workspace.begin(self._view.graph, decoder._compiled.graph.start)
        self._pieces: list[np.ndarray] = []

    def accept(self, log_probs: Any) -> None:
        """The next frames (frames, tokens), float32, natural log. Raises ValueError as `decode` does."""
        (piece,) = _utterances(log_probs[None], None, len(self._decoder.phones))
        self._workspace.advance(self._view.graph, piece)
        self._pieces.append(piece)

    def partial(self) -> Hypothesis:
        """The best hypothesis if the utterance ended here, as the search alone has it."""
        log_probs, candidates = self._found(self._decoder.options.nbest)
        return candidates[0].hypothesis(candidates[0].token_frames(log_probs))

    def finish(self) -> list[Hypothesis]:
        """Hypotheses for all that was accepted, best first; more may still be accepted."""
        log_probs, candidates = self._found(self._decoder._most)
        return self._decoder._told([candidates], [log_probs])[0]

    def _found(self, most: int) -> tuple[np.ndarray, list[Candidate]]:
        empty = np.zeros((0, len(self._decoder.phones)), np.float32)
        log_probs = np.concatenate([empty, *self._pieces])
        return log_probs, self._decoder._candidates(self._workspace, self._view, log_probs, most)


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
