"""The whole path: recordings in, transcripts out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr import audio, paths
from asr.audio import AudioError, Segment
from asr.decoder import Decoder, DecoderOptions, decode_phones, for_embedded_model
from asr.decoder.unknown import is_mark
from asr.lexicon import Entry, G2p, Lexicon
from asr.lines import guess_sounds
from asr.open_phones import PhoneDecoder, PhoneOptions
from asr.own_words import OwnWords, collector_paused
from asr.types import Emissions, Hypothesis, Transcript, Word

if TYPE_CHECKING:
    from torch import Tensor

    from asr.model.checkpoint import AcousticModel
    from asr.spelling import Spelling

Paths = str | Path | Sequence[str | Path]

_BATCH_S = 120.0  # of audio that the encoder sees at once
_GROUP_S = 900.0  # of audio that is read before it is sorted by length
_READ_AT_ONCE = 4  # files, of which each may be hours long


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A recording that could not be transcribed, and why, in a line."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Recording:
    path: str
    duration_s: float
    waveform: np.ndarray
    segments: list[Segment]

    def piece(self, k: int) -> np.ndarray:
        return self.waveform[self.segments[k].start : self.segments[k].end]


@dataclass(frozen=True)
class _Heard:
    """A segment: its words, best first, and the phones that are heard without lexicon and language model."""

    hypotheses: list[Hypothesis]
    sounds: tuple[str, ...]


class Recognizer:
    """An acoustic model, a lexicon and a language model, ready to transcribe."""

    def __init__(
        self, model: AcousticModel, decoder: Decoder, read_base: Callable[[], Lexicon], own: OwnWords
    ) -> None:
        """`own` are the words beside those of the base lexicon, which `read_base` reads."""
        self.model, self.decoder = model, decoder
        self._read_base, self._own = read_base, own

    @classmethod
    @collector_paused()
    def load(
        cls,
        *,
        model: str | Path | None = None,
        lexicon: Paths = (),
        words: Sequence[str] = (),
        lm: str | Path | None = None,
        device: str = "auto",
        options: DecoderOptions | None = None,
        user_lexicon: bool = True,
        only: str | Path | None = None,
        neural_lm: str | Path | None = None,
    ) -> Recognizer:
        """The embedded model and language models unless others are named.

        The base lexicon comes first, then the user's, the `lexicon` files, and `words`, whose pronunciations
        G2P guesses. `only` is a lexicon file that takes the place of the base lexicon and the user's: a
        closed list (commands, digits, a menu), without a language model unless `lm` names one.

        `neural_lm` is the folder of a second, neural language model, which chooses among the best
        hypotheses, or "off". The embedded one belongs to the embedded `lm` and is not used with another, nor
        where words are marked as unknown, which it cannot read, nor on engine "gpu".

        Raises ValueError (LexiconError for bad lexicon lines) and OSError, each in words for the user.
        """
        lexicon, words = _listed(lexicon), _listed(words)
        for file in map(Path, [*lexicon, *([only] if only else [])]):
            if not file.is_file():
                raise ValueError(f"{file}: no such lexicon file")
        if lm is not None and not Path(lm).is_file():
            raise ValueError(f"{lm}: no such language model file")
        from asr.model.checkpoint import load_model

        acoustic = load_model(model, choose_device(device))
        g2p: G2p = partial(guess_sounds, phones=acoustic.phones)
        listed = Path(only or paths.base_lexicon())
        base = partial(Lexicon.read, [listed], acoustic.phones, g2p)
        language_model = lm or (None if only else paths.language_model())
        options = options or for_embedded_model()
        embedded = language_model and Path(language_model).resolve() == paths.language_model().resolve()
        usual = embedded and options.unknown == "off" and options.engine == "cpu"
        second = neural_lm or (paths.neural_lm() if usual else "off")
        rescorer = None
        if second != "off":
            from asr.model.text_scorer import TextScorer

            rescorer = TextScorer.load(second, acoustic.device)
        decoder = Decoder.load(listed, language_model, acoustic.phones, options, base, rescorer)
        files = [*([paths.user_lexicon()] if user_lexicon and not only else []), *map(Path, lexicon)]
        fixed = Lexicon.from_words(words, g2p) if words else Lexicon(())
        return cls(acoustic, decoder, base, OwnWords(decoder, files, fixed, acoustic.phones, g2p))

    @property
    def added(self) -> Lexicon:
        """The words beside those of the base lexicon."""
        return self._own.lexicon

    @property
    def lexicon(self) -> Lexicon:
        """The base lexicon, which is read when this is first asked for, and `added`."""
        return self._base + self.added

    @cached_property
    def _base(self) -> Lexicon:
        return self._read_base()

    def transcribe(self, recordings: Paths, words: Sequence[str] = ()) -> list[Transcript]:
        """Transcripts of the files in their order. An edited lexicon file counts from this call on.

        A single file, or a single word, need not be a list. `words` are heard in this call alone, in the
        pronunciations that G2P guesses. Raises AudioError at the first recording that cannot be read, and
        LexiconError for bad lines in an edited lexicon file.
        """
        results = []
        for result in self.stream(recordings, words=words):
            if isinstance(result, Failure):
                raise AudioError(result.reason)
            results.append(result)
        return results

    def stream(
        self,
        recordings: Paths,
        progress: Callable[[float], None] = lambda seconds: None,
        words: Sequence[str] = (),
    ) -> Iterator[Transcript | Failure]:
        """Like `transcribe`, one result after the other in order; a file that cannot be read gives a Failure.

        `progress` is told the seconds of audio that are done."""
        extra = self._extra(words)
        for group in _groups(_listed(recordings), partial(self._workers.map, _read)):
            read = [r for r in group if isinstance(r, _Recording)]
            hypotheses = self._decode(read, extra, progress)
            found = iter([self._transcript(r, h) for r, h in zip(read, hypotheses, strict=True)])
            for result in group:
                yield result if isinstance(result, Failure) else next(found)

    def transcribe_waveform(self, waveform: np.ndarray, words: Sequence[str] = ()) -> Transcript:
        """Mono float32 at 16 kHz -> its transcript. `words` and errors as for `transcribe`."""
        recording = _Recording(
            path="",
            duration_s=len(waveform) / audio.SAMPLE_RATE,
            waveform=waveform,
            segments=audio.cut(waveform),
        )
        return self._transcript(recording, self._decode([recording], self._extra(words))[0])

    def emissions(self, waveform: np.ndarray) -> Emissions:
        """Mono float32 at 16 kHz -> phone log-probabilities."""
        log_probs, lengths = self.model.log_probs([waveform])
        return Emissions(log_probs=log_probs[0, : int(lengths[0])].cpu().numpy(), frame_s=self.model.frame_s)

    def _extra(self, words: Sequence[str]) -> tuple[Entry, ...]:
        """Entries for one call; edited lexicon files are read."""
        self._own.refresh()
        g2p: G2p = partial(guess_sounds, phones=self.model.phones)
        return Lexicon.from_words(_listed(words), g2p).entries if words else ()

    def _decode(
        self,
        recordings: Sequence[_Recording],
        extra: Sequence[Entry],
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> list[list[_Heard]]:
        """For each recording what is heard in each of its segments; like lengths go together."""
        pieces = [(i, k) for i, r in enumerate(recordings) for k in range(len(r.segments))]
        pieces.sort(key=lambda p: -_length(recordings[p[0]].segments[p[1]]))
        results = [[_Heard([], ()) for _ in r.segments] for r in recordings]
        seconds = {p: _length(recordings[p[0]].segments[p[1]]) / audio.SAMPLE_RATE for p in pieces}
        batches = list(_batches(pieces, seconds, 0.0 if self.model.one_by_one else _BATCH_S))

        def hear(batch: list[tuple[int, int]]) -> list[_Heard]:
            return self._hear([recordings[i].piece(k) for i, k in batch], extra)

        # A piece alone may have all cores for each of its products.
        apart = self.model.one_by_one and len(batches) > 1
        for batch, heard in zip(batches, (self._workers.map if apart else map)(hear, batches), strict=True):
            for (i, k), found in zip(batch, heard, strict=True):
                results[i][k] = found
            progress(sum(seconds[piece] for piece in batch))
        return results

    def _hear(self, waveforms: Sequence[np.ndarray], extra: Sequence[Entry]) -> list[_Heard]:
        log_probs, lengths = self.model.log_probs(waveforms)
        decoded = self.decoder.decode(log_probs, lengths, extra)
        sounds = decode_phones(log_probs, lengths, self.model.phones, self.model.phone_lm)
        results = []
        for rows, found, heard in zip(log_probs, decoded, sounds, strict=True):
            hypotheses = [_with_token_scores(found[0], rows), *found[1:]]
            results.append(_Heard([self._spelled(h) for h in hypotheses], heard))
        return results

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        from asr.workers import workers

        return workers(self.decoder.options.num_threads)

    def _spelled(self, hypothesis: Hypothesis) -> Hypothesis:
        """With words that no lexicon has as their sounds are usually written, if that was asked for."""
        if self.decoder.options.unknown != "spell" or not any(map(is_mark, hypothesis.words)):
            return hypothesis
        words = []
        for word, first, last in zip(
            hypothesis.words, (0, *hypothesis.word_ends), hypothesis.word_ends, strict=False
        ):
            found = self._spelling.spell(hypothesis.token_ids[first:last]) if is_mark(word) else []
            words.append(found[0] if found else word)
        return replace(hypothesis, words=tuple(words))

    @cached_property
    def _spelling(self) -> Spelling:
        from asr.spelling import Spelling

        return Spelling.load(self.model.phones)

    def _transcript(self, recording: _Recording, heard: list[_Heard]) -> Transcript:
        found = [segment.hypotheses for segment in heard]
        words: list[Word] = []
        for segment, hypotheses in zip(recording.segments, found, strict=True):
            words += self._words(hypotheses[0], segment.start / audio.SAMPLE_RATE)
        alternatives: tuple[tuple[str, float], ...] = ()
        if self.decoder.options.nbest > 1:
            alternatives = _combine(found, self.decoder.options.nbest)
        return Transcript(
            path=recording.path,
            text=" ".join(word.text for word in words),
            duration_s=recording.duration_s,
            words=tuple(words),
            score=sum(hypotheses[0].score for hypotheses in found),
            alternatives=alternatives,
            sounds=tuple(phone for segment in heard for phone in segment.sounds),
        )

    def _words(self, hypothesis: Hypothesis, offset_s: float) -> Iterator[Word]:
        first = 0
        for text, last in zip(hypothesis.words, hypothesis.word_ends, strict=True):
            frames = hypothesis.token_frames[first:last]
            yield Word(
                text=text,
                start_s=round(offset_s + frames[0] * self.model.frame_s, 3),
                # CTC says where a phone begins, not how long it lasts: a word ends a frame after that.
                end_s=round(offset_s + (frames[-1] + 1) * self.model.frame_s, 3),
                phones=tuple(self.model.phones.symbols[t] for t in hypothesis.token_ids[first:last]),
                score=round(sum(hypothesis.token_scores[first:last]) / (last - first), 3),
            )
            first = last


class PhoneRecognizer:
    """An acoustic model alone: sounds without words."""

    def __init__(self, model: AcousticModel, decoder: PhoneDecoder | None) -> None:
        self.model, self.decoder = model, decoder

    @classmethod
    def load(
        cls, model: str | Path | None = None, device: str = "auto", options: PhoneOptions | None = None
    ) -> PhoneRecognizer:
        """By `decode_phones`, unless `options` ask for a language model or hot phones. Raises ValueError."""
        from asr.model.checkpoint import load_model

        acoustic = load_model(model, choose_device(device))
        beam = options is not None and bool(options.lm or options.hot)
        return cls(acoustic, PhoneDecoder(acoustic.phones, options) if options and beam else None)

    def phones(self, waveform: np.ndarray) -> tuple[str, ...]:
        """Mono float32 at 16 kHz -> the phones of all its segments."""
        heard: list[str] = []
        for segment in audio.cut(waveform):
            log_probs, lengths = self.model.log_probs([waveform[segment.start : segment.end]])
            if self.decoder is None:
                heard += decode_phones(log_probs, lengths, self.model.phones, self.model.phone_lm)[0]
            else:
                heard += self.decoder.decode(log_probs[0, : int(lengths[0])].cpu().numpy())
        return tuple(heard)


def choose_device(name: str) -> str:
    """'auto', 'cpu' or 'cuda' -> the device to use. Raises ValueError."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: take auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is available here; use --device cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _with_token_scores(hypothesis: Hypothesis, log_probs: Tensor) -> Hypothesis:
    scores = log_probs[list(hypothesis.token_frames), list(hypothesis.token_ids)].tolist()
    return replace(hypothesis, token_scores=tuple(scores))


def _listed(given: Any) -> list[Any]:
    """A name that stands alone is one name, not a sequence of letters."""
    return [given] if isinstance(given, str | Path) else list(given)


def _groups(
    recordings: Sequence[str | Path], read: Callable[[Sequence[str | Path]], Iterable[_Recording | Failure]]
) -> Iterator[list[_Recording | Failure]]:
    """Read files until there is enough to sort by length."""
    group: list[_Recording | Failure] = []
    seconds = 0.0
    for first in range(0, len(recordings), _READ_AT_ONCE):
        for result in read(recordings[first : first + _READ_AT_ONCE]):
            group.append(result)
            seconds += result.duration_s if isinstance(result, _Recording) else 0.0
        if seconds > _GROUP_S:
            yield group
            group, seconds = [], 0.0
    yield group


def _read(path: str | Path) -> _Recording | Failure:
    try:
        waveform = audio.load(path)
    except AudioError as error:
        return Failure(path=str(path), reason=str(error))
    duration_s = len(waveform) / audio.SAMPLE_RATE
    return _Recording(path=str(path), duration_s=duration_s, waveform=waveform, segments=audio.cut(waveform))


def _length(segment: Segment) -> int:
    return segment.end - segment.start


def _batches(
    pieces: Sequence[tuple[int, int]], seconds: dict[tuple[int, int], float], most_s: float
) -> Iterator[list[tuple[int, int]]]:
    """Pieces sorted by length, the longest first -> batches of at most `most_s` with padding, or a piece."""
    batch: list[tuple[int, int]] = []
    for piece in pieces:
        if batch and seconds[batch[0]] * (len(batch) + 1) > most_s:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _combine(found: list[list[Hypothesis]], nbest: int) -> tuple[tuple[str, float], ...]:
    """The best different texts of the whole recording from the n-best lists of its segments."""
    combined: list[tuple[str, float]] = [("", 0.0)]
    for hypotheses in found:
        scores: dict[str, float] = {}
        for text, score in combined:
            for h in hypotheses:
                joined = f"{text} {' '.join(h.words)}".strip()
                scores[joined] = max(score + h.score, scores.get(joined, -math.inf))
        combined = sorted(scores.items(), key=lambda item: -item[1])[:nbest]
    return tuple(combined)
