"""How good is a recogniser on transcribed recordings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asr.manifest import Utterance
from asr.metrics import Errors, Pair, Recall, align, bootstrap_interval, count_errors, phone_errors, recall
from asr.text import normalize
from asr.transcribe import Failure, Recognizer
from asr.types import Transcript


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An utterance with its alignment: pairs (reference word, heard word), '' for nothing."""

    path: str
    reference: str
    heard: str
    pairs: tuple[Pair, ...]

    @property
    def errors(self) -> Errors:
        return count_errors(self.pairs)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All rates are fractions. `seconds` of audio, `wall_s` from file to text with everything loaded."""

    scored: tuple[Scored, ...]
    phones: Errors
    recall: Recall | None
    seconds: float
    wall_s: float
    failures: tuple[Failure, ...]

    @property
    def words(self) -> Errors:
        return sum((s.errors for s in self.scored), Errors())

    @property
    def interval(self) -> tuple[float, float]:
        return bootstrap_interval([s.errors for s in self.scored])

    @property
    def rtfx(self) -> float:
        return self.seconds / max(self.wall_s, 1e-9)

    def confusions(self, count: int = 15) -> list[tuple[Pair, int]]:
        """The most frequent errors: (reference word, heard word), how often."""
        return Counter(pair for s in self.scored for pair in s.pairs if pair[0] != pair[1]).most_common(count)

    def as_dict(self) -> dict[str, object]:
        found = self.recall
        return {
            "wer": self.words.rate,
            "wer_interval": list(self.interval),
            "per": self.phones.rate,
            "rtfx": self.rtfx,
            "recall": None if found is None else found.rate,
            "false_alarms": None if found is None else found.false,
            "utterances": len(self.scored),
            "words": self.words.total,
        }


def evaluate(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    words: set[str] | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Evaluation:
    """Transcribe and score. `words`: for recall, in normal form. Utterances without text are left out.

    Raises ValueError where no utterance has a text.
    """
    usable = [u for u in utterances if normalize(u.text)]
    if not usable:
        raise ValueError("no recording in the manifest has a text to compare with")
    began = time.perf_counter()
    results = list(recognizer.stream([u.path for u in usable], progress))
    wall_s = time.perf_counter() - began
    scored: list[Scored] = []
    failures: list[Failure] = []
    phones = Errors()
    seconds = 0.0
    variants = recognizer.lexicon.pronunciations()
    for utterance, result in zip(usable, results, strict=True):
        if isinstance(result, Failure):
            failures.append(result)
            continue
        scored.append(_score(utterance, result))
        seconds += result.duration_s
        phones += _phone_errors(recognizer, utterance, result, variants)
    return Evaluation(
        scored=tuple(scored),
        phones=phones,
        recall=recall([(s.reference, s.heard) for s in scored], words) if words else None,
        seconds=seconds,
        wall_s=wall_s,
        failures=tuple(failures),
    )


def _score(utterance: Utterance, transcript: Transcript) -> Scored:
    reference, heard = normalize(utterance.text), normalize(transcript.text)
    pairs = tuple(align(reference.split(), heard.split()))
    return Scored(path=str(utterance.path), reference=reference, heard=heard, pairs=pairs)


def _phone_errors(
    recognizer: Recognizer,
    utterance: Utterance,
    transcript: Transcript,
    variants: dict[str, list[tuple[str, ...]]],
) -> Errors:
    from asr.g2p import pronounce

    words = normalize(utterance.text).split()
    for word in words:
        if word not in variants:
            variants[word] = pronounce([word], recognizer.model.phones)[0]
    return phone_errors([variants[word] for word in words if variants[word]], transcript.sounds)
